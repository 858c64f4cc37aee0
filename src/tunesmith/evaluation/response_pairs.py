"""Several models that answered the same prompts: a paired test of every figure for every pair.

Losses are means over the tokens of the reference answers. Models that tokenize differently are compared by
character instead: a loss per token would favour the one with the shorter tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import combinations

import numpy as np

from tunesmith.errors import RunError
from tunesmith.evaluation import text_overlap
from tunesmith.evaluation.intervals import Confidence, Estimate, Floats, Index, bootstrap, mcnemar_exact
from tunesmith.evaluation.paired_tests import (
    UNADJUSTED,
    McNemarTest,
    PairedDifference,
    adjusted,
    check_same_rows,
    difference,
)
from tunesmith.evaluation.responses import SHARES
from tunesmith.records import omitted_if_none
from tunesmith.types import ResponseRow

Rows = Sequence[ResponseRow]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponsePair:
    """Two models that answered the same prompts; every difference is a - b."""

    a: str
    b: str
    rows: int
    """That both have a loss of; all where there are no losses."""
    loss_difference: PairedDifference | None = omitted_if_none()
    loss_ratio: Estimate | None = omitted_if_none()
    """a / b."""
    answered: int
    """Rows that every model answered, which `differences` are over."""
    differences: dict[str, PairedDifference]
    """By figure of `text_overlap`."""
    exact_match: McNemarTest
    ended: McNemarTest
    answer_only: McNemarTest
    empty: McNemarTest
    p_holm: float = UNADJUSTED
    """Of the figure that decides."""
    distinguishable: bool = False
    """They differ significantly: `p_holm` is below 1 - confidence level."""

    def test(self, figure: str) -> PairedDifference | McNemarTest | None:
        """Return the test of a figure; None where there is none, or no row to test it on."""
        if figure == "loss":
            return self.loss_difference
        if figure not in SHARES:
            return self.differences.get(figure)
        test: McNemarTest = getattr(self, figure)
        return test if test.rows else None

    def difference(self, figure: str) -> PairedDifference | None:
        """Return the difference in a figure that is not a share."""
        return self.loss_difference if figure == "loss" else self.differences.get(figure)


@dataclass(frozen=True, slots=True)
class ResponseComparison:
    """What all pairs of models have in common."""

    unit: str | None = None
    """What losses are means over: `token` or `character`; None where there are no losses."""
    rows: int = 0
    left_out: int = 0
    """Rows that are too long for one of the models, which have no loss there."""
    losses: dict[str, float] = field(default_factory=dict)
    """By model."""
    closeness: str = ""
    """The figure of likeness to the references that counts, see `text_overlap.deciding`."""
    decided_by: str = ""
    """`loss`, or `closeness` where any answer has no loss."""


def compare(methods: Mapping[str, Rows], confidence: Confidence) -> tuple[ResponseComparison, list[ResponsePair]]:
    """Return what the models have in common, and the test of every pair.

    The one criterion, fixed beforehand: a pair is `distinguishable` where the p of its difference in the deciding
    figure, paired bootstrap over rows, Holm-adjusted over all pairs, is below 1 - confidence. Rows that are too long
    for one of the models are left out for all. Of the other figures SHARES are tested by McNemar, each row once.
    """
    check_same_rows({name: [row.id for row in rows] for name, rows in methods.items()})
    first, level = next(iter(methods.values())), confidence.level
    closeness = text_overlap.deciding([row.texts[1] for row in first])
    by_loss = all(row.learned is not None for rows in methods.values() for row in rows)
    shared = ResponseComparison(rows=len(first), closeness=closeness, decided_by=closeness)
    losses: dict[str, _Resampled] = {}
    if by_loss:
        shared, losses = _losses(methods, confidence, replace(shared, decided_by="loss"))
    answered = [
        place
        for place, rows in enumerate(zip(*methods.values(), strict=True))
        if all(row.response is not None for row in rows)
    ]
    overlaps = _overlaps({name: [rows[i] for i in answered] for name, rows in methods.items()}, confidence)

    def tested(figure: Mapping[str, _Resampled], a: str, b: str, rows: int) -> PairedDifference:
        # No paired test of N rows can be surer than all N signs being equal; the bootstrap of few rows does not know.
        gap = figure[a].value - figure[b].value, figure[a].draws - figure[b].draws
        return difference(*gap, level, least_p=0.5 ** (rows - 1))

    pairs = [
        ResponsePair(
            a=a,
            b=b,
            rows=shared.rows,
            loss_difference=tested(losses, a, b, shared.rows) if losses else None,
            loss_ratio=Estimate.of(losses[a].value / losses[b].value, losses[a].draws / losses[b].draws, level)
            if losses
            else None,
            answered=len(answered),
            differences={name: tested(figure, a, b, len(answered)) for name, figure in overlaps.items()},
            exact_match=_mcnemar(methods[a], methods[b], "exact_match"),
            ended=_mcnemar(methods[a], methods[b], "ended"),
            answer_only=_mcnemar(methods[a], methods[b], "answer_only"),
            empty=_mcnemar(methods[a], methods[b], "empty"),
        )
        for a, b in combinations(methods, 2)
    ]
    return shared, _decided(pairs, shared.decided_by, confidence)


@dataclass(frozen=True, slots=True)
class _Resampled:
    """A figure of one model as it is, and on every resample."""

    value: float
    draws: Floats


def _losses(
    methods: Mapping[str, Rows], confidence: Confidence, shared: ResponseComparison
) -> tuple[ResponseComparison, dict[str, _Resampled]]:
    """Return the losses of the models over the rows that each could read whole; resampled where there are several."""
    kept = [i for i, rows in enumerate(zip(*methods.values(), strict=True)) if all(row.learned for row in rows)]
    if not kept:
        raise RunError("no test answer is short enough for every method", do="raise model.max_length and train again")
    learned = [[rows[i].learned for i in kept] for rows in methods.values()]
    first = next(iter(methods.values()))
    if all(counts == learned[0] for counts in learned):
        unit, weights_N = "token", np.array(learned[0], np.float64)
    else:
        unit, weights_N = "character", np.array([max(1, len(first[i].texts[1])) for i in kept], np.float64)
    sums = {name: np.array([rows[i].loss for i in kept], np.float64) for name, rows in methods.items()}

    def measure(draws_BN: Index) -> dict[str, Floats]:
        counts_B = weights_N[draws_BN].sum(1)
        return {name: np.maximum(sums_N[draws_BN].sum(1) / counts_B, 1e-12) for name, sums_N in sums.items()}

    losses = {name: float(value[0]) for name, value in measure(np.arange(len(kept))[None]).items()}
    shared = replace(shared, unit=unit, rows=len(kept), left_out=len(first) - len(kept), losses=losses)
    if len(methods) == 1:
        return shared, {}
    draws = bootstrap(measure, len(kept), confidence.resamples, confidence.seed)
    return shared, {name: _Resampled(losses[name], draws[name]) for name in methods}


def _overlaps(methods: Mapping[str, Rows], confidence: Confidence) -> dict[str, dict[str, _Resampled]]:
    """Return every figure of `text_overlap`, by model; none where there is nothing to compare."""
    rows = len(next(iter(methods.values())))
    if len(methods) < 2 or not rows:
        return {}
    by_figure: dict[str, dict[str, _Resampled]] = {}
    for method, answers in methods.items():
        table = text_overlap.tabulate([row.texts for row in answers])
        values = text_overlap.measure(table, np.arange(rows)[None])
        draws = bootstrap(partial(text_overlap.measure, table), rows, confidence.resamples, confidence.seed)
        for name, value_1 in values.items():
            by_figure.setdefault(name, {})[method] = _Resampled(float(value_1[0]), draws[name])
    return by_figure


def _mcnemar(a: Rows, b: Rows, share: str) -> McNemarTest:
    """Return the test over the rows that both answered, and where both know whether the share holds."""
    holds = SHARES[share]
    answered = [(x, y) for x, y in zip(a, b, strict=True) if None not in (x.response, y.response)]
    held = [(holds(x), holds(y)) for x, y in answered if share != "ended" or None not in (x.ended, y.ended)]
    only_a, only_b = held.count((True, False)), held.count((False, True))
    return McNemarTest(len(held), only_a, only_b, mcnemar_exact(only_a, only_b))


def _decided(pairs: Sequence[ResponsePair], decided_by: str, confidence: Confidence) -> list[ResponsePair]:
    """Return the pairs with every test Holm-adjusted over all of them, and with what the deciding one says."""
    if not pairs:
        return []
    losses = adjusted([pair.loss_difference for pair in pairs if pair.loss_difference])
    differences = {name: adjusted([pair.differences[name] for pair in pairs]) for name in pairs[0].differences}
    shares = {name: adjusted([getattr(pair, name) for pair in pairs]) for name in SHARES}
    decided = []
    for place, pair in enumerate(pairs):
        pair = replace(
            pair,
            loss_difference=losses[place] if losses else None,
            differences={name: tests[place] for name, tests in differences.items()},
            **{name: tests[place] for name, tests in shares.items()},
        )
        deciding = pair.difference(decided_by)
        p = deciding.p_holm if deciding else 1.0
        decided.append(replace(pair, p_holm=p, distinguishable=p < 1 - confidence.level))
    return decided
