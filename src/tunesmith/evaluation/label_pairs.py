"""Several methods on the same rows: a paired test for every pair, and what to conclude, in plain sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from tunesmith.errors import RunError
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
from tunesmith.evaluation.metrics import PredictionTable, accuracy, count, every_row, macro_f1, tabulate
from tunesmith.types import Prediction

NOTABLE = 1.2
"""A cost this many times another's is called different; less is the noise of a busy machine."""


def compare(
    gold: Sequence[str],
    methods: Mapping[str, Sequence[Prediction]],
    labels: Sequence[str],
    confidence: Confidence,
) -> list[dict[str, Any]]:
    """One dict per pair of methods, in the mapping's order; every difference is a - b.

    The one criterion, fixed beforehand: a pair is `distinguishable` where McNemar's exact p, Holm-adjusted over all
    pairs, is below 1 - confidence. The macro F1 difference stands beside it with its own paired bootstrap test,
    likewise adjusted, but decides nothing: two looks would err more often than the level says.
    """
    _check_same_rows(methods)
    tables = {name: tabulate(gold, predictions, labels) for name, predictions in methods.items()}
    measured = {name: _measure(table, every_row(table)) for name, table in tables.items()}
    resampled = {name: _resample(table, confidence.resamples, confidence.seed) for name, table in tables.items()}
    pairs: list[dict[str, Any]] = []
    for a, b in combinations(methods, 2):
        differences = _difference(measured[a], measured[b]), _difference(resampled[a], resampled[b])
        pair = {"a": a, "b": b, "rows": len(gold), "mcnemar": _mcnemar(tables[a], tables[b])}
        pairs.append(pair | _intervals(*differences, confidence.level))
    _adjust(pairs, "mcnemar")
    _adjust(pairs, "macro_f1_difference")
    return [pair | {"distinguishable": pair["mcnemar"]["p_holm"] < 1 - confidence.level} for pair in pairs]


def _check_same_rows(methods: Mapping[str, Sequence[Prediction]]) -> None:
    """RunError unless all methods predicted the same rows in the same order."""
    (first, reference), *others = methods.items()
    ids = [prediction.id for prediction in reference]
    for name, predictions in others:
        found = [prediction.id for prediction in predictions]
        if found != ids:
            raise RunError(
                f"{first} and {name} were not evaluated on the same rows",
                **_first_difference(ids, found),
                do="give both runs the same data, split settings and seed, and train or evaluate them again",
            )


def _first_difference(expected: Sequence[str], found: Sequence[str]) -> dict[str, str]:
    place = next((i for i, (e, f) in enumerate(zip(expected, found, strict=False)) if e != f), None)
    if place is None:
        return {"expected": f"{len(expected)} rows", "found": f"{len(found)} rows"}
    return {"expected": f"{expected[place]} in row {place + 1}", "found": found[place]}


def _measure(table: PredictionTable, draws_BN: Index) -> dict[str, Floats]:
    counts = count(table, draws_BN)
    return {"accuracy": accuracy(counts), "macro_f1": macro_f1(counts)}


def _resample(table: PredictionTable, samples: int, seed: int) -> dict[str, Floats]:
    # One seed draws the same rows for every method: that is what makes the differences paired.
    return bootstrap(lambda draws: _measure(table, draws), len(table.gold), samples, seed)


def _difference(a: dict[str, Floats], b: dict[str, Floats]) -> dict[str, Floats]:
    return {name: a[name] - b[name] for name in a}


def _mcnemar(a: PredictionTable, b: PredictionTable) -> dict[str, Any]:
    only_a, only_b = int((a.right > b.right).sum()), int((b.right > a.right).sum())
    return {"only_a_right": only_a, "only_b_right": only_b, "p": mcnemar_exact(only_a, only_b)}


def _intervals(measured: dict[str, Floats], resampled: dict[str, Floats], confidence: float) -> dict[str, Any]:
    entries: dict[str, dict[str, float]] = {}
    for name, (value,) in measured.items():
        low, high = percentile(float(value), resampled[name], confidence)
        entries[f"{name}_difference"] = {"value": float(value), "low": low, "high": high}
    entries["macro_f1_difference"]["p"] = bootstrap_p(resampled["macro_f1"])
    return entries


def _adjust(pairs: Sequence[dict[str, Any]], test: str) -> None:
    for pair, p_holm in zip(pairs, holm([pair[test]["p"] for pair in pairs]), strict=True):
        pair[test]["p_holm"] = p_holm


# The verdict: from scores, costs and pairs to sentences.


@dataclass(frozen=True, slots=True)
class Entry:
    """What the verdict needs to know of one method."""

    name: str
    rows: int
    confidence: float
    accuracy: float
    low: float
    high: float
    train_seconds: float | None
    seconds_per_1000: float | None


def verdict(methods: Sequence[Mapping[str, Any]], pairs: Sequence[Mapping[str, Any]]) -> str:
    """A few plain sentences: which method is best, what that is worth on so many rows, and what it costs.

    `methods` have `name`, `scores` (of `metrics.score`) and `costs` (`train_seconds`, `seconds_per_1000` rows
    predicted; either may be missing); `pairs` are those of `compare`. The most accurate method, the cheapest of
    equals, is held against each other one. Every p is McNemar's, Holm-adjusted over all pairs.
    """
    entries = [_entry(method) for method in methods]
    highest = max(entry.accuracy for entry in entries)
    leaders = sorted((entry for entry in entries if entry.accuracy == highest), key=_by_training)
    best = leaders[0]
    beaten, equals = _against(best, pairs)
    rivals = [entry for entry in entries if entry.name in equals]
    sentences = [
        _lead(leaders, alone=len(entries) == 1),
        f"{best.name} beats {_with_p(beaten, 'largest', max)}." if beaten else "",
        _undecided(best, rivals, equals) if rivals else "",
        _majority(best, methods[0]["scores"]["per_class"], alone=len(entries) == 1),
    ]
    return " ".join(filter(None, sentences))


def _entry(method: Mapping[str, Any]) -> Entry:
    scores, costs = method["scores"], method.get("costs") or {}
    found = scores["headline"]["accuracy"]
    return Entry(
        name=method["name"],
        rows=scores["rows"],
        confidence=scores["confidence"],
        accuracy=found["value"],
        low=found["low"],
        high=found["high"],
        train_seconds=costs.get("train_seconds"),
        seconds_per_1000=costs.get("seconds_per_1000"),
    )


def _by_training(entry: Entry) -> float:
    return float("inf") if entry.train_seconds is None else entry.train_seconds


def _against(best: Entry, pairs: Sequence[Mapping[str, Any]]) -> tuple[dict[str, float], dict[str, float]]:
    """{name: p} of the methods that `best` beats, and of those it cannot be told from."""
    beaten: dict[str, float] = {}
    equals: dict[str, float] = {}
    for pair in pairs:
        if best.name in (pair["a"], pair["b"]):
            other = pair["b"] if pair["a"] == best.name else pair["a"]
            (beaten if pair["distinguishable"] else equals)[other] = pair["mcnemar"]["p_holm"]
    return beaten, equals


def _lead(leaders: Sequence[Entry], *, alone: bool) -> str:
    best = leaders[0]
    interval = f"{100 * best.confidence:g}% interval {_percent(best.low)} to {_percent(best.high)}"
    share = f"{_percent(best.accuracy)} of {best.rows:,} test rows right ({interval})"
    if len(leaders) > 1:
        return f"{_join([entry.name for entry in leaders])} share the highest accuracy: each gets {share}."
    return f"{best.name} gets {share}{'' if alone else ', the highest accuracy'}."


def _undecided(best: Entry, rivals: Sequence[Entry], p_values: Mapping[str, float]) -> str:
    where = f"on these {best.rows:,} test rows"
    if len(rivals) == 1:
        told = f"{rivals[0].name} and {best.name} cannot be told apart {where} ({_p(p_values[rivals[0].name])})"
    else:
        told = f"{best.name} cannot be told from {_with_p(p_values, 'smallest', min)} {where}"
    clause, advice = _saving(best, rivals)
    return "; ".join(filter(None, [told, clause])) + "." + advice


def _saving(best: Entry, rivals: Sequence[Entry]) -> tuple[str, str]:
    """What the cheapest of methods that cannot be told apart saves, as a clause, and advice that follows from it."""
    cheap = min([best, *rivals], key=_by_training)
    if cheap is best and len(rivals) > 1:
        fastest = all(_is_more(rival.train_seconds, best.train_seconds) for rival in rivals)
        return (f"{best.name} trained fastest of them" if fastest else ""), ""
    dear = rivals[0] if cheap is best else best
    if not _is_more(dear.train_seconds, cheap.train_seconds):
        return "", ""
    than = "" if len(rivals) == 1 else f" than {dear.name}"
    clause = f"{cheap.name} {_training(cheap, dear, than)}{_predicting(cheap, dear)}"
    if _is_more(cheap.seconds_per_1000, dear.seconds_per_1000):
        return clause, ""
    return clause, f" Nothing here shows that {dear.name} is worth its cost."


def _is_more(cost: float | None, other: float | None) -> bool:
    """Notably more; False where either is not known."""
    return cost is not None and other is not None and cost > NOTABLE * other


def _training(cheap: Entry, dear: Entry, than: str) -> str:
    if not cheap.train_seconds or not dear.train_seconds:
        return "needed no training"
    return f"trained {_times(dear.train_seconds / cheap.train_seconds)} faster{than}"


def _predicting(cheap: Entry, dear: Entry) -> str:
    ours, theirs = cheap.seconds_per_1000, dear.seconds_per_1000
    if not ours or not theirs:
        return ""
    if _is_more(theirs, ours):
        return f" and predicts {_times(theirs / ours)} faster"
    return f" but predicts {_times(ours / theirs)} slower" if _is_more(ours, theirs) else ""


def _majority(best: Entry, per_class: Mapping[str, Mapping[str, Any]], *, alone: bool) -> str:
    """The share of the most common label; with several methods only where the best is not clearly above it."""
    label = max(per_class, key=lambda name: per_class[name]["support"])
    share = per_class[label]["support"] / best.rows
    if best.low > share:
        return f"Always answering {label!r} would get {_percent(share)}." if alone else ""
    does_better = f"{best.name} does" if alone else "any method does"
    return f"Always answering {label!r} would get {_percent(share)}: nothing here shows that {does_better} better."


def _with_p(p_values: Mapping[str, float], which: str, outermost: Callable[[Iterable[float]], float]) -> str:
    """Names, each with its p; beyond three names only the p that bounds them all."""
    if len(p_values) <= 3:
        return _join([f"{name} ({_p(p)})" for name, p in p_values.items()])
    return f"{_join(list(p_values))} ({which} {_p(outermost(p_values.values()))})"


def _p(p: float) -> str:
    if p < 0.001:
        return "p < 0.001"
    if p >= 0.995:
        return "p = 1"
    return f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _times(ratio: float) -> str:
    return f"{ratio:,.0f} times" if ratio >= 10 else f"{ratio:.1f} times"


def _join(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
