"""Scores of predicted labels, defined as in scikit-learn (zero_division=0), each headline with its interval.

Every metric is made of sums over rows. The sums are taken over a matrix of row numbers, so that the rows as they
are and thousands of resamples go through the same few lines. Shapes: N rows, K labels, B resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from tunesmith.errors import RunError
from tunesmith.evaluation import intervals, ordered_labels, probability_scores
from tunesmith.evaluation.decision_scores import DecisionScores
from tunesmith.evaluation.intervals import Confidence, Estimate, Floats, Index
from tunesmith.evaluation.ordered_labels import OrderedColumns
from tunesmith.evaluation.probability_scores import ProbabilityColumns
from tunesmith.records import omitted_if_none
from tunesmith.tasks import calibration
from tunesmith.tasks.calibration import CalibrationBin
from tunesmith.types import NO_LABEL, Prediction

HIGHER_IS_BETTER = {
    "accuracy": True,
    "balanced_accuracy": True,
    "macro_f1": True,
    "mcc": True,
    **probability_scores.HIGHER_IS_BETTER,
    **ordered_labels.HIGHER_IS_BETTER,
}
"""The headline metrics, in the order of a report, and which way is better; the last are of ordered labels."""

FULL_CONFUSION = 500
"""With more labels almost every cell of the confusion matrix is 0: only the mistakes are stored."""


@dataclass(frozen=True, slots=True)
class PredictionTable:
    """Predictions against gold labels as columns of length N; labels are places in `labels`, K for no label."""

    labels: tuple[str, ...]
    gold: Index
    predicted: Index
    hit: Index
    """The gold label where the prediction is right, else K: counting it counts the diagonal of the confusion."""
    probabilities: ProbabilityColumns | None = None
    """Set where every prediction has probabilities."""
    ordered: OrderedColumns | None = None
    """Set where the labels have an order."""

    @property
    def right(self) -> Index:
        """1 where the prediction is right, else 0."""
        right: Index = (self.gold == self.predicted).astype(np.intp)
        return right

    def confusion(self) -> tuple[tuple[int, ...], ...]:
        """Return the confusion matrix, K x K."""
        K = len(self.labels)
        cells = np.bincount(self.gold * (K + 1) + self.predicted, minlength=K * (K + 1)).reshape(K, K + 1)
        return tuple(tuple(row[:K]) for row in cells.tolist())

    def confusions(self) -> tuple[Confusion, ...]:
        """Return the cells of the confusion matrix off its diagonal that are not 0, largest first."""
        K, answered = len(self.labels), self.predicted < len(self.labels)
        rows_K, wrong = np.bincount(self.gold[answered], minlength=K), answered & (self.gold != self.predicted)
        cells, counts = np.unique(self.gold[wrong] * K + self.predicted[wrong], return_counts=True)
        order = np.argsort(-counts, kind="stable")
        return tuple(
            Confusion(self.labels[cell // K], self.labels[cell % K], int(count), float(count / rows_K[cell // K]))
            for cell, count in zip(cells[order], counts[order], strict=True)
        )


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows per label, B x K: the margins and the diagonal of B confusion matrices, enough for every metric here."""

    gold: Floats
    predicted: Floats
    right: Floats


@dataclass(frozen=True, slots=True)
class Average:
    """A score per label, averaged over the labels."""

    macro: float
    micro: float
    """The accuracy, where every row is given a label."""
    weighted: float


@dataclass(frozen=True, slots=True)
class ClassScores:
    """The scores of one label."""

    precision: float
    recall: float
    f1: float
    support: int
    """Rows of this label in gold."""
    predicted: int
    """Rows that were predicted to have it."""


@dataclass(frozen=True, slots=True)
class Confusion:
    """A kind of mistake, and how often it is made."""

    gold: str
    predicted: str
    count: int
    share: float
    """Of the gold label's rows that were given a label."""


@dataclass(frozen=True, slots=True)
class ClassificationScores:
    """scores.json: everything a report says about one classifier's predictions."""

    rows: int
    invalid: int
    """Rows that were given no label."""
    labels: tuple[str, ...]
    confidence: float
    """Level of the intervals."""
    headline: dict[str, Estimate]
    """By metric, in the order of HIGHER_IS_BETTER; without probabilities, not those that need them."""
    averages: dict[str, Average]
    """Of precision, recall and F1."""
    per_class: dict[str, ClassScores]
    confusion: tuple[tuple[int, ...], ...]
    """K x K row counts: gold down, predictions across; rows that were given no label are not in it. Empty above
    FULL_CONFUSION labels."""
    calibration: tuple[CalibrationBin, ...]
    """Empty without probabilities."""
    without_probabilities: int | None = omitted_if_none()
    """Rows whose prediction has no probabilities, where there are some."""
    decisions: DecisionScores | None = omitted_if_none()
    """What costs, thresholds, abstentions and sets came to, where the recipe asks for them."""
    confusions: tuple[Confusion, ...] | None = omitted_if_none()
    """Above FULL_CONFUSION labels: the mistakes, most frequent first."""


def score(
    gold: Sequence[str],
    predictions: Sequence[Prediction],
    labels: Sequence[str],
    confidence: Confidence,
    values: Sequence[float] | None = None,
) -> ClassificationScores:
    """Return all scores of one method's predictions; equal inputs give equal bits.

    values: the number of each label, where they have an order.

    `headline` has a Wilson interval for accuracy and percentile bootstrap intervals over rows for the others.
    Macro averages go over the labels that occur in gold or predictions, balanced accuracy over those in gold.
    """
    table = tabulate(gold, predictions, labels, values)
    counts, N = count(table, every_row(table)), len(table.gold)
    headline = intervals.estimates(partial(measure, table), N, confidence, "bootstrap")
    headline["accuracy"] = replace(Estimate.share(int(table.right.sum()), N, confidence.level), interval="wilson")
    precision, recall = _ratio(counts.right, counts.predicted)[0], _ratio(counts.right, counts.gold)[0]
    f1, many, probabilities = _f1(counts)[0], len(labels) > FULL_CONFUSION, table.probabilities
    return ClassificationScores(
        rows=N,
        invalid=int((table.predicted == len(table.labels)).sum()),
        labels=table.labels,
        confidence=confidence.level,
        headline=headline,
        averages=_averages(counts),
        per_class={
            label: ClassScores(
                precision=float(precision[k]),
                recall=float(recall[k]),
                f1=float(f1[k]),
                support=int(counts.gold[0, k]),
                predicted=int(counts.predicted[0, k]),
            )
            for k, label in enumerate(table.labels)
        },
        confusion=() if many else table.confusion(),
        calibration=calibration.bins(probabilities.confidence, probabilities.top_right) if probabilities else (),
        without_probabilities=sum(not prediction.probabilities for prediction in predictions) or None,
        confusions=table.confusions() if many else None,
    )


def headline(
    gold: Sequence[str],
    predictions: Sequence[Prediction],
    labels: Sequence[str],
    values: Sequence[float] | None = None,
) -> dict[str, float]:
    """Return the headline metrics without intervals: cheap enough for every evaluation during training."""
    table = tabulate(gold, predictions, labels, values)
    return {name: float(values[0]) for name, values in measure(table, every_row(table)).items()}


def tabulate(
    gold: Sequence[str],
    predictions: Sequence[Prediction],
    labels: Sequence[str],
    values: Sequence[float] | None = None,
) -> PredictionTable:
    """Return the columns that all metrics are computed from. RunError where predictions, gold and labels do not fit."""
    if not gold or len(gold) != len(predictions):
        raise RunError(
            "the predictions do not fit the rows",
            expected="at least one row, and one prediction per row",
            found=f"{len(gold)} rows and {len(predictions)} predictions",
            do="predict the split again with this run's model",
        )
    truth = _places(gold, labels, "gold label")
    predicted = _places([prediction.label for prediction in predictions], [*labels, NO_LABEL], "predicted label")
    return PredictionTable(
        labels=tuple(labels),
        gold=truth,
        predicted=predicted,
        hit=np.where(truth == predicted, truth, len(labels)),
        probabilities=probability_scores.columns(predictions, truth, predicted, labels),
        ordered=None if values is None else ordered_labels.columns(truth, predicted, values),
    )


def _places(names: Sequence[str], labels: Sequence[str], what: str) -> Index:
    place = {label: number for number, label in enumerate(labels)}
    unknown = sorted(set(names) - place.keys())
    if unknown:
        raise RunError(
            f"{what} {unknown[0]!r} is not among the labels",
            expected=", ".join(labels[:10]) + (", ..." if len(labels) > 10 else ""),
            found=", ".join(unknown[:10]),
            do="score predictions with the labels of the run that made them",
        )
    return np.array([place[name] for name in names], dtype=np.intp)


# Sums over drawn rows, and the metrics made of them.


def count(table: PredictionTable, draws_BN: Index) -> Counts:
    """Return the rows per label in each line of `draws_BN` (row numbers, repeats allowed)."""
    K = len(table.labels)
    return Counts(
        gold=intervals.counts(table.gold[draws_BN], K),
        predicted=intervals.counts(table.predicted[draws_BN], K + 1)[:, :K],
        right=intervals.counts(table.hit[draws_BN], K + 1)[:, :K],
    )


def _ratio(part: Floats, whole: Floats) -> Floats:
    """Return part / whole, and 0 where the whole is 0."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _total(values_BK: Floats | npt.NDArray[np.bool_]) -> Floats:
    total: Floats = values_BK.sum(axis=1)
    return total


def _f1(counts: Counts) -> Floats:
    return _ratio(2 * counts.right, counts.gold + counts.predicted)


def accuracy(counts: Counts) -> Floats:
    """Share of rows that are right."""
    return _total(counts.right) / _total(counts.gold)


def balanced_accuracy(counts: Counts) -> Floats:
    """Mean recall of the labels that occur in gold."""
    return _total(_ratio(counts.right, counts.gold)) / _total(counts.gold > 0)


def macro_f1(counts: Counts) -> Floats:
    """Mean F1 of the labels that occur in gold or predictions, as f1_score(average="macro") without `labels`."""
    return _total(_f1(counts)) / _total(counts.gold + counts.predicted > 0)


def mcc(counts: Counts) -> Floats:
    """Matthews' correlation for K labels (Gorodkin 2004); 0 where gold or predictions are constant."""
    rows = _total(counts.gold)
    shared = _total(counts.right) * rows - _total(counts.gold * counts.predicted)
    spread_gold = rows**2 - _total(counts.gold**2)
    unlabelled = rows - _total(counts.predicted)  # a class of its own, as in scikit-learn
    spread_predicted = rows**2 - _total(counts.predicted**2) - unlabelled**2
    return _ratio(shared, np.sqrt(spread_gold * spread_predicted))


COUNTED: dict[str, Callable[[Counts], Floats]] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "macro_f1": macro_f1,
    "mcc": mcc,
}
"""The metrics that need only counts."""


def measure(table: PredictionTable, draws_BN: Index) -> dict[str, Floats]:
    """Return the headline metrics of each line of `draws_BN`: {name: B}, in the order of HIGHER_IS_BETTER.

    Without probabilities, those that need them are left out.
    """
    counts = count(table, draws_BN)
    measured = {name: metric(counts) for name, metric in COUNTED.items()}
    if table.probabilities is not None:
        measured |= probability_scores.measure(table.probabilities, draws_BN)
    return measured if table.ordered is None else measured | ordered_labels.measure(table.ordered, draws_BN)


def every_row(table: PredictionTable) -> Index:
    """Return the numbers of all rows, each once: 1 x N."""
    return np.arange(len(table.gold), dtype=np.intp)[None, :]


# The parts of scores.json.


def _averages(counts: Counts) -> dict[str, Average]:
    present = counts.gold + counts.predicted > 0
    whole = Counts(*(_total(part)[:, None] for part in (counts.gold, counts.predicted, counts.right)))
    columns = {
        "precision": (_ratio(counts.right, counts.predicted), _ratio(whole.right, whole.predicted)),
        "recall": (_ratio(counts.right, counts.gold), _ratio(whole.right, whole.gold)),
        "f1": (_f1(counts), _f1(whole)),
    }
    return {
        name: Average(
            macro=float(values[present].mean()),
            micro=float(micro[0, 0]),
            weighted=float((values * counts.gold).sum() / counts.gold.sum()),
        )
        for name, (values, micro) in columns.items()
    }
