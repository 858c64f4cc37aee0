"""What judges' verdicts say: means with intervals, whether the judge can be trusted, what answers differ. Pure.

A verdict is a row: id, model, turn, control (empty for an answer), judge, seed, score (None where unscored), reason,
reply, length (words of the answer). Nothing unscored ever counts as a number.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from statistics import fmean, median, pstdev
from typing import Any

import numpy as np

from tunesmith.evaluation.correlation import agreement
from tunesmith.evaluation.intervals import Confidence, bootstrap, bootstrap_p, holm, percentile

Verdict = Mapping[str, Any]
Place = tuple[str, int]
"""Row and turn: what one model is judged on once."""
UNSCORED = 0.02
"""With a larger share of unscored verdicts than this there is no headline."""
HIGH, LOW = 50, 50
"""Nonsense is rated high at or above the one, a reference low below the other."""
WRONG = 0.1
"""A judge that rates more of the nonsense high than this, or more of the references low, is not to be trusted."""
BINS = 20
SHOWN = 5
"""Best and worst answers that a report shows."""


def summarize(verdicts: Sequence[Verdict], confidence: Confidence) -> dict[str, Any]:
    """Everything that a report says of single scores, ready for JSON; equal inputs give equal bits.

    A row's score is the mean over judges and seeds of those verdicts that are scored. Intervals are percentile
    bootstrap over questions, whose turns stay together; differences between models are paired by row and turn.
    """
    answers = [one for one in verdicts if not one["control"]]
    scores = {model: _means(rows) for model, rows in _by(answers, "model").items()}
    missed = unscored(answers)
    models = [
        _model(model, [one for one in answers if one["model"] == model], found, confidence)
        for model, found in scores.items()
    ]
    if missed["withheld"]:
        for model in models:
            model["headline"] = None
    return {
        "mode": "score",
        "confidence": confidence.level,
        "models": models,
        "pairs": _differences(scores, confidence),
        "agreement": between_judges(answers, confidence),
        "reliability": reliability([one for one in verdicts if one["control"]], confidence),
        "unscored": missed,
    }


def unscored(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """How many verdicts are none, why, and whether that is too many for a headline."""
    reasons = Counter(one["reason"] for one in verdicts if not _scored(one))
    count = sum(reasons.values())
    share = count / len(verdicts) if verdicts else 0.0
    return {
        "verdicts": len(verdicts),
        "count": count,
        "share": share,
        "limit": UNSCORED,
        "withheld": share > UNSCORED,
        "reasons": dict(reasons.most_common()),
    }


def reliability(verdicts: Sequence[Verdict], confidence: Confidence) -> dict[str, Any]:
    """What the controls say of the judge: `trusted` is True, False, or None where nothing speaks for it or against it.

    Nonsense must be rated below HIGH and references at least LOW, in all but a share WRONG of the verdicts each; a
    control without a verdict counts as one that the judge got wrong.
    """
    kinds = [_control(name, rows, confidence) for name, rows in _by(verdicts, "control").items()]
    groups = {
        "answers that answer nothing": [one for one in kinds if one["control"] != "reference"],
        "reference answers": [one for one in kinds if one["control"] == "reference"],
    }
    reasons = []
    for what, found in groups.items():
        rows, wrong = (sum(one[name] for one in found) for name in ("verdicts", "wrong"))
        missing = sum(one["unscored"] for one in found)
        if rows and wrong + missing > WRONG * rows:
            side = f"{HIGH} or more" if what.startswith("answers") else f"less than {LOW}"
            counts = {side: wrong, "no score": missing}
            reasons += [f"it gave {given} to {count} of {rows} {what}" for given, count in counts.items() if count]
    known = all(any(one["verdicts"] for one in found) for found in groups.values())
    return {"trusted": False if reasons else True if known else None, "reasons": reasons, "controls": kinds}


def between_judges(verdicts: Sequence[Verdict], confidence: Confidence) -> list[dict[str, Any]]:
    """The agreement of each two judges over the answers that both scored."""
    found = []
    judges = {judge: _means(rows, "model") for judge, rows in _by(verdicts, "judge").items()}
    for (a, first), (b, second) in combinations(judges.items(), 2):
        shared = sorted(first.keys() & second.keys())
        ours, theirs = ([side[place] for place in shared] for side in (first, second))
        one = agreement(ours, theirs, confidence)
        found.append({"a": a, "b": b, **one})
    return found


def shown(verdicts: Sequence[Verdict], number: int = SHOWN) -> dict[str, list[dict[str, Any]]]:
    """The places of the best and the worst answers, by the mean over models, with each model's score."""
    answers = [one for one in verdicts if not one["control"]]
    by_place: dict[Place, dict[str, float]] = defaultdict(dict)
    for model, rows in _by(answers, "model").items():
        for place, score in _means(rows).items():
            by_place[place][model] = score
    ranked = sorted(by_place, key=lambda place: (-fmean(by_place[place].values()), place))
    most = min(number, (len(ranked) + 1) // 2)
    worst = ranked[::-1][: min(number, len(ranked) // 2)]
    return {
        name: [{"id": place[0], "turn": place[1], "scores": by_place[place]} for place in places]
        for name, places in (("best", ranked[:most]), ("worst", worst))
    }


def mean(values: Sequence[float], groups: Sequence[str], confidence: Confidence) -> dict[str, float]:
    """A mean with its interval; values of one group (the turns of a question) are drawn together."""
    names = sorted(set(groups))
    index = {name: place for place, name in enumerate(names)}
    sums_G, counts_G = np.zeros(len(names)), np.zeros(len(names))
    for value, group in zip(values, groups, strict=True):
        sums_G[index[group]] += value
        counts_G[index[group]] += 1
    drawn = bootstrap(
        lambda draws_BG: {"mean": sums_G[draws_BG].sum(1) / counts_G[draws_BG].sum(1)},
        len(names),
        confidence.resamples,
        confidence.seed,
    )["mean"]
    value = fmean(values)
    low, high = percentile(value, drawn, confidence.level)
    return {"value": value, "low": low, "high": high, "p": bootstrap_p(drawn)}


def _model(name: str, rows: Sequence[Verdict], scores: Mapping[Place, float], confidence: Confidence) -> dict[str, Any]:
    values = list(scores.values())
    several = defaultdict(list)
    lengths = {}
    for one in rows:
        lengths[one["id"], one["turn"]] = one["length"]
        if _scored(one):
            several[one["id"], one["turn"]].append(one["score"])
    spreads = [pstdev(found) for found in several.values() if len(found) > 1]
    by_length = agreement(
        [lengths[place] for place in scores],
        values,
        confidence,
        ["spearman"],
    )
    turns = sorted({turn for _, turn in lengths})
    return {
        "name": name,
        "rows": len(lengths),
        "scored": len(values),
        "headline": _estimate(scores, confidence),
        "median": median(values) if values else None,
        "spread": fmean(spreads) if spreads else None,
        "histogram": _histogram(values),
        "length": {"rows": by_length["rows"], "spearman": by_length["spearman"]},
        "turns": {
            turn: _estimate({place: score for place, score in scores.items() if place[1] == turn}, confidence)
            for turn in turns
        }
        if len(turns) > 1
        else {},
    }


def _estimate(scores: Mapping[Place, float], confidence: Confidence) -> dict[str, float] | None:
    if not scores:
        return None
    found = mean(list(scores.values()), [name for name, _ in scores], confidence)
    found.pop("p")
    return found


def _differences(scores: Mapping[str, Mapping[Place, float]], confidence: Confidence) -> list[dict[str, Any]]:
    """First minus second, over the places that both were scored on, with p by bootstrap and Holm's correction."""
    pairs: list[dict[str, Any]] = []
    for (a, first), (b, second) in combinations(scores.items(), 2):
        shared = [place for place in first if place in second]
        if shared:
            gaps = [first[place] - second[place] for place in shared]
            better = sum(gap > 0 for gap in gaps), sum(gap < 0 for gap in gaps)
            found = mean(gaps, [name for name, _ in shared], confidence)
            pairs.append({"a": a, "b": b, "rows": len(shared), "higher": better[0], "lower": better[1], **found})
    for pair, corrected in zip(pairs, holm([pair["p"] for pair in pairs]), strict=True):
        pair["p_holm"] = corrected
        pair["distinguishable"] = corrected < 1 - confidence.level
    return pairs


def _control(name: str, rows: Sequence[Verdict], confidence: Confidence) -> dict[str, Any]:
    scored = [one for one in rows if _scored(one)]
    wrong = [one for one in scored if (one["score"] < LOW if name == "reference" else one["score"] >= HIGH)]
    estimate = mean([one["score"] for one in scored], [one["id"] for one in scored], confidence) if scored else None
    return {
        "control": name,
        "verdicts": len(rows),
        "unscored": len(rows) - len(scored),
        "wrong": len(wrong),
        "mean": estimate and {end: estimate[end] for end in ("value", "low", "high")},
    }


def _histogram(values: Iterable[float]) -> list[int]:
    """Counts in BINS bins of equal width from 0 to 100; 100 lies in the last."""
    counts = [0] * BINS
    for value in values:
        counts[min(BINS - 1, int(value * BINS / 100))] += 1
    return counts


def _means(rows: Iterable[Verdict], *also: str) -> dict[Any, float]:
    """Per row and turn the mean of its scored verdicts, in the order of first appearance. also: further keys."""
    found = defaultdict(list)
    for one in rows:
        if _scored(one):
            found[one["id"], one["turn"], *(one[name] for name in also)].append(one["score"])
    return {place: fmean(values) for place, values in found.items()}


def _by(rows: Iterable[Verdict], name: str) -> dict[str, list[Verdict]]:
    found: dict[str, list[Verdict]] = defaultdict(list)
    for one in rows:
        found[one[name]].append(one)
    return dict(found)


def _scored(one: Verdict) -> bool:
    return one["score"] is not None or one.get("choice") is not None
