"""What the decisions of a classifier came to: costs, a threshold, abstentions and predicted sets.

Everything was chosen on validation rows (`tasks.decisions`); these are the rows of another split. Shapes: N rows, K
labels, B resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tunesmith.evaluation.intervals import Confidence, Estimate, Floats, Index, bootstrap
from tunesmith.evaluation.paired_tests import PairedDifference, difference
from tunesmith.records import omitted_if_none
from tunesmith.tasks.decisions import Decision, with_threshold
from tunesmith.types import PredictionRow

PER = 1000
"""Rows that a cost is stated for."""
HIGHER_IS_BETTER = {"cost": False}
POINTS = 200
"""Points of a curve, at most; they are spread evenly over the rows."""


@dataclass(frozen=True, slots=True)
class CostScores:
    """What the mistakes cost per 1,000 rows."""

    cost: Estimate
    of_most_probable: Estimate
    """What the most probable labels would cost (of two labels those of a threshold of 0.5)."""
    saved: PairedDifference
    """The second minus the first; p is that of the paired bootstrap."""


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """What a threshold for one label would come to."""

    threshold: float
    precision: float
    recall: float
    false_positive_rate: float
    cost: float | None = omitted_if_none()
    """Per 1,000 rows."""


@dataclass(frozen=True, slots=True)
class ThresholdScores:
    """The label that has a threshold, against all others."""

    label: str
    threshold: float
    precision: Estimate | None
    """None where no row is predicted to have the label."""
    recall: Estimate | None
    average_precision: float
    """Area under the precision-recall curve, as scikit-learn's average_precision_score."""
    roc_auc: float | None
    """None where all rows have the label, or none has."""
    curve: tuple[OperatingPoint, ...]
    """By rising recall."""


@dataclass(frozen=True, slots=True)
class RiskPoint:
    """The share of wrong labels among the most confident rows."""

    coverage: float
    risk: float


@dataclass(frozen=True, slots=True)
class AbstentionScores:
    """Rows that are answered, and how often that is right."""

    least_confidence: float
    coverage: Estimate
    """Share of the rows that are answered."""
    accuracy: Estimate | None
    """Of these; None where no row is answered."""
    aurc: float
    """Area under the risk-coverage curve (Geifman & El-Yaniv 2017): the mean risk over all coverages."""
    curve: tuple[RiskPoint, ...]


@dataclass(frozen=True, slots=True)
class SetScores:
    """Predicted sets of labels (split conformal prediction)."""

    wanted: float
    coverage: Estimate
    """Share of the rows whose set has the right label."""
    mean_size: float
    sizes: dict[str, int]
    """Rows by the number of labels in their set."""


@dataclass(frozen=True, slots=True)
class DecisionScores:
    """What all decisions came to; None where one was not asked for."""

    costs: CostScores | None = omitted_if_none()
    threshold: ThresholdScores | None = omitted_if_none()
    abstention: AbstentionScores | None = omitted_if_none()
    sets: SetScores | None = omitted_if_none()


def score(
    rows: Sequence[PredictionRow],
    labels: Sequence[str],
    decision: Decision,
    costs_KK: Floats | None,
    conformal: float | None,
    confidence: Confidence,
) -> DecisionScores:
    """Return what the decisions came to on these rows. costs: of predicting a label (column) for a label (row)."""
    places = {label: k for k, label in enumerate(labels)}
    p_NK, gold_N = np.array([row.probabilities for row in rows]), np.array([places[row.gold] for row in rows])
    costs = None if costs_KK is None else _costs(rows, labels, costs_KK, confidence)
    threshold = abstention = sets = None
    if decision.threshold is not None:
        k = places[decision.threshold.label]
        threshold = _threshold(p_NK, gold_N, k, decision.threshold.probability, costs_KK, confidence, labels[k])
    if decision.abstain_below is not None:
        right_N = np.array([row.label == row.gold for row in rows])
        abstention = _abstention(p_NK.max(axis=1), right_N, decision.abstain_below, confidence)
    if conformal is not None:
        sets = _sets(rows, conformal, confidence)
    return DecisionScores(costs, threshold, abstention, sets)


def row_costs(rows: Sequence[PredictionRow], labels: Sequence[str], costs_KK: Floats) -> Floats:
    """Return what the prediction of each row costs, N. A prediction that is no label costs the most that one can."""
    places = {label: k for k, label in enumerate(labels)}
    gold_N = np.array([places[row.gold] for row in rows])
    with_none_KL = np.hstack([costs_KK, costs_KK.max(axis=1, keepdims=True)])
    return np.asarray(with_none_KL[gold_N, [places.get(row.label, len(labels)) for row in rows]], dtype=np.float64)


def _costs(
    rows: Sequence[PredictionRow], labels: Sequence[str], costs_KK: Floats, confidence: Confidence
) -> CostScores:
    top = [replace(row, label=labels[int(np.argmax(row.probabilities))]) for row in rows]
    ours_N, theirs_N = (PER * row_costs(each, labels, costs_KK) for each in (rows, top))

    def measure(draws_BN: Index) -> dict[str, Floats]:
        return {"ours": ours_N[draws_BN].mean(axis=1), "theirs": theirs_N[draws_BN].mean(axis=1)}

    drawn = bootstrap(measure, len(rows), confidence.resamples, confidence.seed)
    ours, theirs = float(ours_N.mean()), float(theirs_N.mean())
    return CostScores(
        Estimate.of(ours, drawn["ours"], confidence.level),
        Estimate.of(theirs, drawn["theirs"], confidence.level),
        difference(theirs - ours, drawn["theirs"] - drawn["ours"], confidence.level),
    )


def _threshold(
    p_NK: Floats,
    gold_N: Index,
    k: int,
    chosen: float,
    costs_KK: Floats | None,
    confidence: Confidence,
    label: str,
) -> ThresholdScores:
    known_N, given_N = gold_N == k, with_threshold(p_NK, k, chosen) == k
    hits, given, known = int((known_N & given_N).sum()), int(given_N.sum()), int(known_N.sum())
    order = np.argsort(-p_NK[:, k], kind="stable")
    sorted_N, hits_N = p_NK[order, k], np.cumsum(known_N[order])
    ends = np.flatnonzero(np.append(sorted_N[:-1] > sorted_N[1:], True))  # rows of one probability go together
    precision_E, recall_E = hits_N[ends] / (ends + 1), hits_N[ends] / max(1, known)
    false_E = (ends + 1 - hits_N[ends]) / max(1, len(gold_N) - known)
    steps_E = np.diff(recall_E, prepend=0.0)
    auc = float(np.trapezoid(np.append(0.0, recall_E), np.append(0.0, false_E))) if 0 < known < len(gold_N) else None
    shown = np.unique(np.linspace(0, len(ends) - 1, min(POINTS, len(ends))).round().astype(int)).tolist()
    cost = None
    if costs_KK is not None:
        cost = [_mean_cost(p_NK, gold_N, k, float(sorted_N[ends[place]]), costs_KK) for place in shown]
    return ThresholdScores(
        label=label,
        threshold=chosen,
        precision=Estimate.share(hits, given, confidence.level) if given else None,
        recall=Estimate.share(hits, known, confidence.level) if known else None,
        average_precision=float((precision_E * steps_E).sum()),
        roc_auc=auc,
        curve=tuple(
            OperatingPoint(
                float(sorted_N[ends[place]]),
                float(precision_E[place]),
                float(recall_E[place]),
                float(false_E[place]),
                None if cost is None else cost[n],
            )
            for n, place in enumerate(shown)
        ),
    )


def _mean_cost(p_NK: Floats, gold_N: Index, k: int, threshold: float, costs_KK: Floats) -> float:
    return float(PER * costs_KK[gold_N, with_threshold(p_NK, k, threshold)].mean())


def _abstention(top_N: Floats, right_N: NDArray[np.bool_], least: float, confidence: Confidence) -> AbstentionScores:
    answered_N = top_N >= least
    answered, right = int(answered_N.sum()), int((right_N & answered_N).sum())
    order = np.argsort(-top_N, kind="stable")
    risk_N = np.cumsum(~right_N[order]) / np.arange(1, len(order) + 1)
    shown = np.unique(np.linspace(0, len(order) - 1, min(POINTS, len(order))).round().astype(int)).tolist()
    return AbstentionScores(
        least_confidence=least,
        coverage=Estimate.share(answered, len(top_N), confidence.level),
        accuracy=Estimate.share(right, answered, confidence.level) if answered else None,
        aurc=float(risk_N.mean()),
        curve=tuple(RiskPoint((place + 1) / len(order), float(risk_N[place])) for place in shown),
    )


def _sets(rows: Sequence[PredictionRow], wanted: float, confidence: Confidence) -> SetScores:
    sizes = [len(row.label_set or ()) for row in rows]
    covered = sum(row.gold in (row.label_set or ()) for row in rows)
    by_size = {str(size): sizes.count(size) for size in sorted({*sizes})}
    return SetScores(wanted, Estimate.share(covered, len(rows), confidence.level), float(np.mean(sizes)), by_size)
