"""Several generators on the same rows: a paired test for every pair, the verdict in words, and the rows to show.

Losses are means over the tokens of the reference answers. Models that cut text into different tokens are compared by
character instead: a loss per token would favour the one with the shorter tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from tunesmith.errors import RunError
from tunesmith.evaluation.comparison import NOTABLE
from tunesmith.evaluation.intervals import Floats, Index, bootstrap, bootstrap_p, holm, mcnemar_exact, percentile
from tunesmith.evaluation.report import chance, level, part, share
from tunesmith.evaluation.responses import SHARES
from tunesmith.recipe import Evaluate

Rows = Sequence[Mapping[str, Any]]
"""The lines of predictions/test.jsonl, as `responses.score` describes them."""
Figures = Mapping[str, Any]

TESTED = ("ended", "exact_match")
"""Shares of the answers that McNemar's test compares."""
SHOWN = 3
"""Rows of each kind that a page shows side by side."""


# The tests.


def compare(methods: Mapping[str, Rows], settings: Evaluate, seed: int) -> dict[str, Any]:
    """{"unit", "rows", "left_out", "losses", "pairs"}; losses of each method, and a dict per pair of them.

    The one criterion, fixed beforehand: a pair is `distinguishable` where the p of its loss difference (a - b, paired
    bootstrap over rows), Holm-adjusted over all pairs, is below 1 - confidence. `loss_ratio` is a / b. Rows that are
    too long for one of the methods have no loss there and are left out for all.
    """
    _check_same_rows(methods)
    kept = _kept(methods)
    unit, weights = _weigh(methods, kept)
    sums = {name: np.array([rows[i]["loss"] for i in kept], np.float64) for name, rows in methods.items()}

    def measure(draws_BN: Index) -> dict[str, Floats]:
        counts_B = weights[draws_BN].sum(1)
        return {name: np.maximum(sums_N[draws_BN].sum(1) / counts_B, 1e-12) for name, sums_N in sums.items()}

    losses = {name: float(value[0]) for name, value in measure(np.arange(len(kept))[None]).items()}
    drawn = bootstrap(measure, len(kept), settings.bootstrap_samples, seed) if len(methods) > 1 else {}
    pairs: list[dict[str, Any]] = [
        {"a": a, "b": b, "rows": len(kept)}
        | _contrast((losses[a], losses[b]), (drawn[a], drawn[b]), len(kept), settings.confidence)
        | {name: _mcnemar(methods[a], methods[b], SHARES[name]) for name in TESTED}
        for a, b in combinations(methods, 2)
    ]
    for test in ("loss_difference", *TESTED):
        _adjust([pair[test] for pair in pairs])
    for pair in pairs:
        pair["distinguishable"] = pair["loss_difference"]["p_holm"] < 1 - settings.confidence
    left_out = len(next(iter(methods.values()))) - len(kept)
    return {"unit": unit, "rows": len(kept), "left_out": left_out, "losses": losses, "pairs": pairs}


def _check_same_rows(methods: Mapping[str, Rows]) -> None:
    (first, reference), *others = methods.items()
    for name, rows in others:
        if [row["id"] for row in rows] != [row["id"] for row in reference]:
            raise RunError(
                f"{first} and {name} were not tested on the same rows",
                expected=f"{len(reference):,} rows, the first of them {reference[0]['id']}",
                found=f"{len(rows):,} rows, the first of them {rows[0]['id']}",
                do="train both with the same data, split and seed",
            )


def _kept(methods: Mapping[str, Rows]) -> list[int]:
    """The places of the rows that every method could read whole."""
    kept = [i for i, rows in enumerate(zip(*methods.values(), strict=True)) if all(row["learned"] for row in rows)]
    if not kept:
        raise RunError("no test answer is short enough for every method", do="raise model.max_length and train again")
    return kept


def _weigh(methods: Mapping[str, Rows], kept: Sequence[int]) -> tuple[str, Floats]:
    """What losses are means over, and how many of them each row has."""
    learned = [[rows[i]["learned"] for i in kept] for rows in methods.values()]
    if all(counts == learned[0] for counts in learned):
        return "token", np.array(learned[0], np.float64)
    rows = next(iter(methods.values()))
    return "character", np.array([max(1, len(rows[i]["reference"])) for i in kept], np.float64)


def _contrast(
    values: tuple[float, float], drawn: tuple[Floats, Floats], rows: int, confidence: float
) -> dict[str, dict[str, Any]]:
    difference, ratio = values[0] - values[1], values[0] / values[1]
    # No paired test of N rows can be surer than all N signs being equal; the bootstrap of few rows does not know that.
    p = min(1.0, max(bootstrap_p(drawn[0] - drawn[1]), 0.5 ** (rows - 1)))
    return {
        "loss_difference": _interval(difference, drawn[0] - drawn[1], confidence) | {"p": p},
        "loss_ratio": _interval(ratio, drawn[0] / drawn[1], confidence),
    }


def _interval(value: float, drawn: Floats, confidence: float) -> dict[str, Any]:
    low, high = percentile(value, drawn, confidence)
    return {"value": value, "low": low, "high": high}


def _mcnemar(a: Rows, b: Rows, holds: Callable[[Mapping[str, Any]], bool]) -> dict[str, Any]:
    """Over the rows that both answered."""
    answered = [(x, y) for x, y in zip(a, b, strict=True) if None not in (x.get("response"), y.get("response"))]
    found = [(holds(x), holds(y)) for x, y in answered]
    only_a, only_b = found.count((True, False)), found.count((False, True))
    return {"rows": len(found), "only_a": only_a, "only_b": only_b, "p": mcnemar_exact(only_a, only_b)}


def _adjust(tests: Sequence[dict[str, Any]]) -> None:
    for test, p_holm in zip(tests, holm([test["p"] for test in tests]), strict=True):
        test["p_holm"] = p_holm


# The verdict.


def rank(methods: Sequence[Figures], losses: Mapping[str, float]) -> tuple[str, str | None]:
    """The method with the lowest loss (of equals the one that trained fastest), and the untuned one it is held against.

    Without an untuned method, or where that one is best, there is nothing to hold it against: None.
    """
    best = min(methods, key=lambda m: (losses[m["name"]], m["costs"]["train_seconds"] or 0))["name"]
    untuned = [m["name"] for m in methods if m["costs"]["trainable"] == 0]
    return best, next((name for name in untuned if name != best and best not in untuned), None)


def verdict(methods: Sequence[Figures], compared: Figures) -> str:
    """A few plain sentences: whose answers come closest, by how much, what that is worth, and what it costs."""
    by_name = {method["name"]: method for method in methods}
    best, base = rank(methods, compared["losses"])
    beaten, equals = _against(best, compared["pairs"])
    if len(methods) == 1:
        return _alone(methods[0])
    lead = _gain(by_name, best, base, compared) if base in beaten else _lowest(by_name[best], compared)
    others = {name: p for name, p in beaten.items() if name != base}
    sentences = [
        lead,
        f"{best} {'also ' if base in beaten else ''}beats {_with_p(others, max)}." if others else "",
        _undecided(by_name, best, equals, compared["rows"]) if equals else "",
        f"Nothing here shows that training was worth its cost: {base} did not train." if base in equals else "",
        "Training lowered the loss nowhere." if by_name[best]["costs"]["trainable"] == 0 else "",
        _measured(compared),
    ]
    return " ".join(filter(None, sentences))


def _against(best: str, pairs: Iterable[Figures]) -> tuple[dict[str, float], dict[str, float]]:
    """{name: p} of the methods that `best` beats, and of those it cannot be told from."""
    beaten: dict[str, float] = {}
    equals: dict[str, float] = {}
    for pair in pairs:
        if best in (pair["a"], pair["b"]):
            other = pair["b"] if pair["a"] == best else pair["a"]
            (beaten if pair["distinguishable"] else equals)[other] = pair["loss_difference"]["p_holm"]
    return beaten, equals


def _alone(method: Figures) -> str:
    scores = method["scores"]
    loss, rows = scores["headline"]["loss"], scores["rows"]
    interval = f"{level(scores['confidence'])} interval {loss['low']:.2f} to {loss['high']:.2f}"
    where = f"per token on {rows:,} test answers ({interval})"
    return f"{method['name']} has a loss of {loss['value']:.2f} {where}{_ends(method)}."


def _lowest(best: Figures, compared: Figures) -> str:
    where = f"on {compared['rows']:,} test answers"
    loss = compared["losses"][best["name"]]
    return f"{best['name']} has the lowest loss {where}, {loss:.2f} per {compared['unit']}{_ends(best)}."


def _gain(by_name: Mapping[str, Figures], best: str, base: str | None, compared: Figures) -> str:
    (ratio,) = (_over(pair, best) for pair in compared["pairs"] if {pair["a"], pair["b"]} == {best, base})
    before, after = (compared["losses"][name] for name in (str(base), best))
    confidence = level(by_name[best]["scores"]["confidence"])
    interval = f"{confidence} interval {_change(ratio['low'])} to {_change(ratio['high'])}"
    return (
        f"{best} lowers the loss on {compared['rows']:,} test answers from {before:.2f} ({base}) to {after:.2f} "
        f"({_change(ratio['value'])}, {interval}){_ends(by_name[best], by_name[str(base)])}."
    )


def _over(pair: Figures, name: str) -> Figures:
    """The pair's ratio with the loss of `name` on top."""
    ratio = pair["loss_ratio"]
    if pair["a"] == name:
        return {end: ratio[end] for end in ("value", "low", "high")}
    return {"value": 1 / ratio["value"], "low": 1 / ratio["high"], "high": 1 / ratio["low"]}


def _change(ratio: float) -> str:
    """−34%, +2.1%."""
    change = 100 * (ratio - 1)
    return f"{change:+.{0 if abs(change) >= 9.95 else 1}f}%".replace("-", "−")


def _ends(method: Figures, base: Figures | None = None) -> str:
    if not method["scores"]["answered"]:
        return ""
    held_against = f" ({base['name']}: {_ended(base)})" if base and base["scores"]["answered"] else ""
    return f", and ends {_ended(method)} of its answers itself{held_against}"


def _ended(method: Figures) -> str:
    return share(method["scores"]["headline"]["ended"]["value"])


def _undecided(by_name: Mapping[str, Figures], best: str, equals: Mapping[str, float], rows: int) -> str:
    told = f"{best} cannot be told from {_with_p(equals, min)} on these {rows:,} rows"
    rivals = [by_name[name] for name in equals if by_name[name]["costs"]["trainable"]]
    if not rivals or not by_name[best]["costs"]["trainable"]:
        return f"{told}."
    cheap, dear = sorted([by_name[best], min(rivals, key=_seconds)], key=_seconds)
    saved = _saving(cheap["costs"], dear["costs"], "" if len(equals) == 1 else f" than {dear['name']}")
    return f"{told}; {cheap['name']} {saved}." if saved else f"{told}."


def _seconds(method: Figures) -> float:
    return float(method["costs"]["train_seconds"] or 0)


def _saving(cheap: Figures, dear: Figures, than: str) -> str:
    """What the cheaper of two that were trained saves, where it is notable."""
    ours, theirs = cheap["train_seconds"] or 0, dear["train_seconds"] or 0
    faster = f"trained {theirs / ours:.1f} times faster{than}" if ours and theirs > NOTABLE * ours else ""
    fewer = dear["trainable"] > NOTABLE * cheap["trainable"]
    changed = f"changed {part(cheap['trainable'] / cheap['parameters'])} of the parameters" if fewer else ""
    return " and ".join(filter(None, [faster, changed]))


def _measured(compared: Figures) -> str:
    """What is unusual about the losses."""
    by_character = "The models cut text into different tokens, so losses are compared per character."
    left_out = f"{compared['left_out']:,} rows too long for one of the models are left out."
    said = [by_character if compared["unit"] == "character" else "", left_out if compared["left_out"] else ""]
    return " ".join(filter(None, said))


def _with_p(p_values: Mapping[str, float], outermost: Callable[[Iterable[float]], float]) -> str:
    """Names, each with its p; beyond three names only the p that bounds them all."""
    if len(p_values) <= 3:
        return _join([f"{name} ({_p(p)})" for name, p in p_values.items()])
    which = "largest" if outermost is max else "smallest"
    return f"{_join(list(p_values))} ({which} {_p(outermost(p_values.values()))})"


def _p(p: float) -> str:
    return f"p {chance(p)}" if p < 0.001 else f"p = {chance(p)}"


def _join(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


# What the page shows.


def choose(
    methods: Mapping[str, Rows], compared: Figures, best: str, base: str | None, seed: int
) -> list[dict[str, Any]]:
    """Groups of answered rows to lay side by side: {"title", "rows"}; no row stands in two of them.

    With several methods the rows where `best` gains and loses most over `base` (without one, over the method with the
    highest loss); of one method its likeliest and unlikeliest references; and some drawn with the seed.
    """
    losses, unit = compared["losses"], compared["unit"]
    other = base or max((name for name in methods if name != best), key=losses.__getitem__, default=None)
    places = [
        i for i, rows in enumerate(zip(*methods.values(), strict=True))
        if all(row["learned"] and row.get("response") is not None for row in rows)
    ]  # fmt: skip
    gains = {
        i: _row_loss(methods[best][i], unit) - (_row_loss(methods[other][i], unit) if other else 0) for i in places
    }
    order = sorted(places, key=gains.__getitem__)
    top = [i for i in order if not other or gains[i] < 0][:SHOWN]
    bottom = [i for i in reversed(order) if (not other or gains[i] > 0) and i not in top][:SHOWN]
    rest = [i for i in places if i not in (*top, *bottom)]
    draw = np.random.Generator(np.random.PCG64(seed))
    drawn = sorted(draw.choice(rest, min(SHOWN, len(rest)), replace=False).tolist()) if rest else []
    titles = (
        (f"Where {best} lowers the loss of {other} most", f"Where {best} raises the loss of {other} most")
        if other
        else ("Lowest loss", "Highest loss")
    )
    groups = zip((*titles, "Drawn at random"), (top, bottom, drawn), strict=True)
    return [
        {"title": title, "rows": [_side_by_side(methods, i, unit) for i in found]} for title, found in groups if found
    ]


def _row_loss(row: Mapping[str, Any], unit: str) -> float:
    return float(row["loss"]) / (row["learned"] if unit == "token" else max(1, len(row["reference"])))


def _side_by_side(methods: Mapping[str, Rows], place: int, unit: str) -> dict[str, Any]:
    first = next(iter(methods.values()))[place]
    answers = [
        {
            "name": name,
            "loss": _row_loss(rows[place], unit),
            **{key: rows[place][key] for key in ("response", "tokens", "ended")},
        }
        for name, rows in methods.items()
    ]
    return {"id": first["id"], "prompt": first["prompt"], "reference": first["reference"], "answers": answers}
