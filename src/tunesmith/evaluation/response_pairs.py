"""Several models that answered the same prompts: a paired test of every figure for every pair.

Losses are means over the tokens of the reference answers. Models that cut text into different tokens are compared by
character instead: a loss per token would favour the one with the shorter tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from tunesmith.errors import RunError
from tunesmith.evaluation import text_overlap
from tunesmith.evaluation.intervals import (
    Confidence,
    Floats,
    Index,
    bootstrap,
    bootstrap_p,
    holm,
    mcnemar_exact,
    percentile,
)
from tunesmith.evaluation.responses import SHARES
from tunesmith.types import ResponseRow

Rows = Sequence[ResponseRow]
Figures = Mapping[str, Any]
Drawn = dict[str, tuple[float, Floats]]
"""A figure of each model as it is, and on every resample."""


def compare(methods: Mapping[str, Rows], confidence: Confidence) -> dict[str, Any]:
    """{"unit", "rows", "left_out", "losses", "closeness", "decided_by", "pairs"}, with a dict per pair of methods.

    The one criterion, fixed beforehand: a pair is `distinguishable` where the p of its difference in loss (where any
    answer has no loss: in `closeness`, see `overlap.deciding`), a - b, paired bootstrap over rows, Holm-adjusted over
    all pairs, is below 1 - confidence. That p is the pair's `p_holm`. `loss_ratio` is a / b. Rows that are too long for
    one of the methods have no loss there and are left out for all. `differences` has the other figures, over the rows
    that all answered; SHARES are tested by McNemar, each row once.
    """
    _check_same_rows(methods)
    closeness = text_overlap.deciding([row.texts[1] for row in next(iter(methods.values()))])
    by_loss = all(row.learned is not None for rows in methods.values() for row in rows)
    found = _losses(methods, confidence) if by_loss else _without_losses(methods)
    answered = [
        place
        for place, rows in enumerate(zip(*methods.values(), strict=True))
        if all(row.response is not None for row in rows)
    ]
    drawn = _overlaps({name: [rows[i] for i in answered] for name, rows in methods.items()}, confidence)
    for pair in found["pairs"]:
        a, b = pair["a"], pair["b"]
        pair["answered"] = len(answered)
        pair["differences"] = {
            name: _difference(of[a], of[b], len(answered), confidence.level) for name, of in drawn.items()
        }
        pair |= {name: _mcnemar(methods[a], methods[b], name, holds) for name, holds in SHARES.items()}
    _correct(found["pairs"])
    for pair in found["pairs"]:
        decides = pair["loss_difference"] if by_loss else pair["differences"].get(closeness, {"p_holm": 1.0})
        pair["p_holm"] = decides["p_holm"]
        pair["distinguishable"] = decides["p_holm"] < 1 - confidence.level
    return found | {"closeness": closeness, "decided_by": "loss" if by_loss else closeness}


def _check_same_rows(methods: Mapping[str, Rows]) -> None:
    (first, reference), *others = methods.items()
    for name, rows in others:
        if [row.id for row in rows] != [row.id for row in reference]:
            raise RunError(
                f"{first} and {name} were not tested on the same rows",
                expected=f"{len(reference):,} rows, the first of them {reference[0].id}",
                found=f"{len(rows):,} rows, the first of them {rows[0].id}",
                do="train both with the same data, split and seed",
            )


# Losses.


def _losses(methods: Mapping[str, Rows], confidence: Confidence) -> dict[str, Any]:
    kept = _kept(methods)
    unit, weights = _weigh(methods, kept)
    sums = {name: np.array([rows[i].loss for i in kept], np.float64) for name, rows in methods.items()}

    def measure(draws_BN: Index) -> dict[str, Floats]:
        counts_B = weights[draws_BN].sum(1)
        return {name: np.maximum(sums_N[draws_BN].sum(1) / counts_B, 1e-12) for name, sums_N in sums.items()}

    losses = {name: float(value[0]) for name, value in measure(np.arange(len(kept))[None]).items()}
    drawn = bootstrap(measure, len(kept), confidence.resamples, confidence.seed) if len(methods) > 1 else {}
    pairs = []
    for a, b in combinations(methods, 2):
        one, other = (losses[a], drawn[a]), (losses[b], drawn[b])
        tested = {
            "loss_difference": _difference(one, other, len(kept), confidence.level),
            "loss_ratio": _interval(losses[a] / losses[b], drawn[a] / drawn[b], confidence.level),
        }
        pairs.append({"a": a, "b": b, "rows": len(kept), **tested})
    left_out = len(next(iter(methods.values()))) - len(kept)
    return {"unit": unit, "rows": len(kept), "left_out": left_out, "losses": losses, "pairs": pairs}


def _without_losses(methods: Mapping[str, Rows]) -> dict[str, Any]:
    rows = len(next(iter(methods.values())))
    pairs = [{"a": a, "b": b, "rows": rows} for a, b in combinations(methods, 2)]
    return {"unit": None, "rows": rows, "left_out": 0, "losses": {}, "pairs": pairs}


def _kept(methods: Mapping[str, Rows]) -> list[int]:
    """The places of the rows that every method could read whole."""
    kept = [i for i, rows in enumerate(zip(*methods.values(), strict=True)) if all(row.learned for row in rows)]
    if not kept:
        raise RunError("no test answer is short enough for every method", do="raise model.max_length and train again")
    return kept


def _weigh(methods: Mapping[str, Rows], kept: Sequence[int]) -> tuple[str, Floats]:
    """What losses are means over, and how many of them each row has."""
    learned = [[rows[i].learned for i in kept] for rows in methods.values()]
    if all(counts == learned[0] for counts in learned):
        return "token", np.array(learned[0], np.float64)
    rows = next(iter(methods.values()))
    return "character", np.array([max(1, len(rows[i].texts[1])) for i in kept], np.float64)


# Answers.


def _overlaps(methods: Mapping[str, Rows], confidence: Confidence) -> dict[str, Drawn]:
    """{figure: {method: (value, resampled)}}; none where there is nothing to compare."""
    rows = len(next(iter(methods.values())))
    if len(methods) < 2 or not rows:
        return {}
    found: dict[str, Drawn] = {}
    for method, answers in methods.items():
        table = text_overlap.tabulate([row.texts for row in answers])
        values = text_overlap.measure(table, np.arange(rows)[None])
        drawn = bootstrap(partial(text_overlap.measure, table), rows, confidence.resamples, confidence.seed)
        for name, value_1 in values.items():
            found.setdefault(name, {})[method] = (float(value_1[0]), drawn[name])
    return found


def _mcnemar(a: Rows, b: Rows, name: str, holds: Callable[[ResponseRow], bool]) -> dict[str, Any]:
    """Over the rows that both answered, and of which both tell what is asked."""
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if None not in (x.response, y.response)]
    found = [(holds(x), holds(y)) for x, y in pairs if name != "ended" or None not in (x.ended, y.ended)]
    only_a, only_b = found.count((True, False)), found.count((False, True))
    return {"rows": len(found), "only_a": only_a, "only_b": only_b, "p": mcnemar_exact(only_a, only_b)}


# Tests.


def _difference(a: tuple[float, Floats], b: tuple[float, Floats], rows: int, confidence: float) -> dict[str, Any]:
    # No paired test of N rows can be surer than all N signs being equal; the bootstrap of few rows does not know that.
    p = min(1.0, max(bootstrap_p(a[1] - b[1]), 0.5 ** (rows - 1)))
    return _interval(a[0] - b[0], a[1] - b[1], confidence) | {"p": p}


def _interval(value: float, drawn: Floats, confidence: float) -> dict[str, Any]:
    low, high = percentile(value, drawn, confidence)
    return {"value": value, "low": low, "high": high}


def _correct(pairs: Sequence[dict[str, Any]]) -> None:
    """Every test over all pairs (Holm)."""
    kinds: list[list[dict[str, Any]]] = [[pair[name] for pair in pairs] for name in SHARES]
    if pairs:
        kinds += [[pair["differences"][name] for pair in pairs] for name in pairs[0]["differences"]]
        kinds += [[pair["loss_difference"] for pair in pairs]] if "loss_difference" in pairs[0] else []
    for tests in kinds:
        for test, p_holm in zip(tests, holm([test["p"] for test in tests]), strict=True):
            test["p_holm"] = p_holm
