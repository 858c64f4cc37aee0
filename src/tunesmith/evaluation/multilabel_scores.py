"""Scores of predicted sets of labels, defined as in scikit-learn (zero_division=0), each with its bootstrap interval.

Every metric is made of sums over rows, except the average precision, which is taken from the sorted probabilities with
a weight for each drawn row. Shapes: N rows, K labels, B resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from tunesmith.errors import RunError
from tunesmith.evaluation import intervals, metric_pairs
from tunesmith.evaluation.intervals import Confidence, Estimate, Floats, Index
from tunesmith.evaluation.metric_pairs import MetricPair
from tunesmith.records import omitted_if_none
from tunesmith.tasks.multilabel import indicators
from tunesmith.types import MultilabelPredictionRow

Flags = npt.NDArray[np.bool_]
HIGHER_IS_BETTER = {
    "macro_f1": True,
    "micro_f1": True,
    "weighted_f1": True,
    "micro_precision": True,
    "micro_recall": True,
    "subset_accuracy": True,
    "hamming_loss": False,
    "label_ranking_ap": True,
    "mean_average_precision": True,
    "log_loss": False,
}
"""The headline metrics, in the order of a report, and which way is better."""
COMPARED = ("macro_f1", "micro_f1")
"""The metrics of paired tests; the first decides."""


@dataclass(frozen=True, slots=True)
class PerLabelScores:
    """The scores of one label."""

    precision: float
    recall: float
    f1: float
    average_precision: float | None
    """None for a label that no row has."""
    threshold: float | None
    """The probability from which it was predicted; like the average precision, None without probabilities."""
    support: int
    """Rows that have it."""
    predicted: int
    """Rows that were predicted to have it."""


@dataclass(frozen=True, slots=True)
class MultilabelScores:
    """scores.json: everything a report says about one method's predictions."""

    rows: int
    labels: tuple[str, ...]
    confidence: float
    """Level of the intervals."""
    headline: dict[str, Estimate]
    """By metric, in the order of HIGHER_IS_BETTER; without probabilities, not those that need them."""
    per_label: dict[str, PerLabelScores]
    labels_per_row: tuple[float, float]
    """Mean number of labels: that rows have, and that were predicted."""
    without_probabilities: int | None = omitted_if_none()
    """Rows whose prediction has no probabilities, where there are some."""


@dataclass(frozen=True, slots=True)
class LabelTable:
    """Predictions beside gold labels, as arrays of N x K."""

    known: Flags
    predicted: Flags
    probability: Floats | None
    """None unless every prediction has probabilities."""

    def counts(self) -> Floats:
        """Return N x 3K: for each label whether it is known, predicted, and both."""
        return np.hstack([self.known, self.predicted, self.known & self.predicted]).astype(np.float64)


def score(
    rows: Sequence[MultilabelPredictionRow],
    labels: Sequence[str],
    confidence: Confidence,
    thresholds: Sequence[float] = (),
) -> MultilabelScores:
    """Return all scores of one method's predictions; equal inputs give equal bits.

    thresholds: with which the labels were predicted, for the report; by default 0.5 each.
    """
    table = tabulate(rows, labels)
    known, predicted, both = np.split(table.counts().sum(axis=0), 3)
    precision, recall, f1 = _ratio(both, predicted), _ratio(both, known), _ratio(2 * both, known + predicted)
    average, chosen = np.full(len(labels), np.nan), dict.fromkeys(labels)
    if table.probability is not None:
        average = _average_precisions(table.known, table.probability, np.ones((1, len(rows))))[0]
        chosen = dict(zip(labels, thresholds or (0.5,) * len(labels), strict=True))
    return MultilabelScores(
        rows=len(rows),
        labels=tuple(labels),
        confidence=confidence.level,
        headline=intervals.estimates(partial(measure, table), len(rows), confidence, "bootstrap"),
        per_label={
            label: PerLabelScores(
                precision=float(precision[k]),
                recall=float(recall[k]),
                f1=float(f1[k]),
                average_precision=None if np.isnan(average[k]) else float(average[k]),
                threshold=chosen[label],
                support=int(known[k]),
                predicted=int(predicted[k]),
            )
            for k, label in enumerate(labels)
        },
        labels_per_row=(float(known.sum() / len(rows)), float(predicted.sum() / len(rows))),
        without_probabilities=sum(not row.probabilities for row in rows) or None,
    )


def headline(rows: Sequence[MultilabelPredictionRow], labels: Sequence[str]) -> dict[str, float]:
    """Return the headline metrics without intervals: cheap enough for every evaluation during training."""
    values = measure(tabulate(rows, labels), np.arange(len(rows), dtype=np.intp)[None])
    return {name: float(value_1[0]) for name, value_1 in values.items()}


def compare(
    methods: Mapping[str, Sequence[MultilabelPredictionRow]], labels: Sequence[str], confidence: Confidence
) -> list[MetricPair]:
    """Return the paired tests of every pair of methods, in the mapping's order; macro F1 decides."""
    ids = {name: [row.id for row in rows] for name, rows in methods.items()}
    measures = {name: partial(measure_f1, tabulate(rows, labels).counts()) for name, rows in methods.items()}
    return metric_pairs.compare(ids, measures, confidence)


def tabulate(rows: Sequence[MultilabelPredictionRow], labels: Sequence[str]) -> LabelTable:
    """Return the arrays that all metrics are computed from. RunError where rows and labels do not fit."""
    if not rows:
        raise RunError("there are no predictions to score", do="predict the split again with this run's model")
    names = set(labels)
    for row in rows:
        if unknown := {*row.gold, *row.labels} - names:
            raise RunError(
                f"{row.id}: {sorted(unknown)[0]!r} is not among the labels",
                expected=", ".join(labels[:10]),
                found=", ".join(sorted(unknown)[:10]),
                do="score predictions with the labels of the run that made them",
            )
    probability = None
    if given := [row for row in rows if row.probabilities]:
        probability = np.array([row.probabilities for row in given], dtype=np.float64).reshape(len(given), -1)
        good_N = (probability >= 0).all(axis=1) & (probability <= 1).all(axis=1)
        if probability.shape[1] != len(labels) or not good_N.all():
            raise RunError(
                f"{given[int(np.argmin(good_N))].id}: invalid probabilities",
                expected=f"{len(labels)} numbers from 0 to 1",
                found=f"{probability.shape[1]} numbers from {probability.min():.6g} to {probability.max():.6g}",
                do="look for non-finite values in the model, or for damage in the predictions file",
            )
    known, predicted = (indicators([getattr(row, name) for row in rows], labels) for name in ("gold", "labels"))
    return LabelTable(known, predicted, probability if len(given) == len(rows) else None)


def measure(table: LabelTable, draws_BN: Index) -> dict[str, Floats]:
    """Return the headline metrics of each line of `draws_BN` (row numbers): {name: B}.

    Macro averages go over all labels, as in scikit-learn: the F1 of a label that the drawn rows lack is 0. The mean
    average precision goes over the labels that occur. `log_loss` is the mean binary cross-entropy over rows and labels,
    in nats. Without probabilities, the three metrics that need them are left out.
    """
    sums_BC = intervals.sums(table.counts(), draws_BN)
    f1s = _f1s(sums_BC)
    known_BK, predicted_BK, both_BK = np.split(sums_BC, 3, axis=1)
    wrong_N = (table.known != table.predicted).mean(axis=1)
    measured = {
        **f1s,
        "micro_precision": _ratio(both_BK.sum(axis=1), predicted_BK.sum(axis=1)),
        "micro_recall": _ratio(both_BK.sum(axis=1), known_BK.sum(axis=1)),
        "subset_accuracy": (wrong_N == 0)[draws_BN].mean(axis=1),
        "hamming_loss": wrong_N[draws_BN].mean(axis=1),
    }
    if table.probability is None:
        return measured
    tiny = np.finfo(np.float64).eps
    truth_NK = np.where(table.known, table.probability, 1 - table.probability)
    losses_N = -np.log(np.clip(truth_NK, tiny, 1)).mean(axis=1)
    average_BK = _average_precisions(table.known, table.probability, intervals.counts(draws_BN, len(table.known)))
    occurs_BK = ~np.isnan(average_BK)
    return {
        **measured,
        "label_ranking_ap": _label_ranking(table.known, table.probability)[draws_BN].mean(axis=1),
        "mean_average_precision": _ratio(np.nansum(average_BK, axis=1), occurs_BK.sum(axis=1).astype(np.float64)),
        "log_loss": losses_N[draws_BN].mean(axis=1),
    }


def measure_f1(counts_NC: Floats, draws_BN: Index) -> dict[str, Floats]:
    """Return the metrics of COMPARED of each line of `draws_BN`, from `LabelTable.counts`: {name: B}."""
    f1s = _f1s(intervals.sums(counts_NC, draws_BN))
    return {name: f1s[name] for name in COMPARED}


def _f1s(sums_BC: Floats) -> dict[str, Floats]:
    """Return the averages of F1, from rows that have, are predicted to have, and have both of each label: B x 3K."""
    known_BK, predicted_BK, both_BK = np.split(sums_BC, 3, axis=1)
    f1_BK = _ratio(2 * both_BK, known_BK + predicted_BK)
    total_B = known_BK.sum(axis=1)
    return {
        "macro_f1": f1_BK.mean(axis=1),
        "micro_f1": _ratio(2 * both_BK.sum(axis=1), total_B + predicted_BK.sum(axis=1)),
        "weighted_f1": _ratio((f1_BK * known_BK).sum(axis=1), total_B),
    }


def _ratio(part: Floats, whole: Floats) -> Floats:
    """Return part / whole, and 0 where the whole is 0."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _average_precisions(known_NK: Flags, probability_NK: Floats, weights_BN: Floats) -> Floats:
    """Return the average precision of each label with weighted rows, B x K; NaN where no row has the label."""
    average_BK = np.full((len(weights_BN), known_NK.shape[1]), np.nan)
    for k in range(known_NK.shape[1]):
        order_N = np.argsort(-probability_NK[:, k], kind="stable")
        sorted_N = probability_NK[order_N, k]
        last_N = np.append(sorted_N[:-1] != sorted_N[1:], True)  # of the rows with one probability
        weights_BL = np.cumsum(weights_BN[:, order_N], axis=1)[:, last_N]
        hits_BL = np.cumsum(weights_BN[:, order_N] * known_NK[order_N, k], axis=1)[:, last_N]
        gained_BL = np.diff(hits_BL, axis=1, prepend=0)
        total_B = hits_BL[:, -1]
        sums_B = (gained_BL * _ratio(hits_BL, weights_BL)).sum(axis=1)
        np.divide(sums_B, total_B, out=average_BK[:, k], where=total_B > 0)
    return average_BK


def _label_ranking(known_NK: Flags, probability_NK: Floats) -> Floats:
    """Return the label-ranking average precision of each row; 1 where it has no label or all of them."""
    average_N = np.ones(len(known_NK))
    for n, (known_K, probability_K) in enumerate(zip(known_NK, probability_NK, strict=True)):
        if known_K.any() and not known_K.all():
            at = probability_K[known_K]
            above = (probability_K[None] >= at[:, None]).sum(axis=1)
            right = (at[None] >= at[:, None]).sum(axis=1)
            average_N[n] = (right / above).mean()
    return average_N
