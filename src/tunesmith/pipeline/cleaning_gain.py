"""What leaving out suspect training rows would gain: trained with and without them, tested on the same rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from tunesmith.auditing.label_errors import CleaningGain
from tunesmith.console import say
from tunesmith.evaluation import label_pairs, multilabel_scores, value_scores
from tunesmith.evaluation.intervals import Confidence, Estimate
from tunesmith.evaluation.paired_tests import PairedDifference
from tunesmith.pipeline.out_of_fold import OutOfFold
from tunesmith.tasks.multilabel import MultiLabel
from tunesmith.tasks.regression import Number
from tunesmith.types import Example, Splits

BEFORE, AFTER = "all rows", "without suspect rows"


def measure(
    splits: Splits, predicted: OutOfFold, suspects: Collection[int], test_suspects: int, confidence: Confidence
) -> CleaningGain | None:
    """Train without the suspect training rows, and test the difference on the test rows, which stay as they are.

    suspects: places of training rows; of a label that would lose all its rows they stay. None without suspect rows or
    without test rows.
    """
    kept = _kept(splits.train, suspects)
    removed = len(splits.train) - len(kept)
    if not removed or not splits.test:
        return None
    say(f"cleaning gain: training without {removed:,} of {len(splits.train):,} rows")
    target, test = predicted.target, splits.test
    before = target.rows(test, predicted.held_out[len(splits.validation) :])
    places = np.arange(len(test)) + len(splits.train) + len(splits.validation)
    after = target.rows(test, predicted.fit(np.array(kept), places))
    metric, higher, compare = _test_of(target)
    values, difference, certain = compare(before, after, splits, confidence)
    better = (difference.value > 0) == higher
    return CleaningGain(metric, removed, *values, difference, better if certain else None, test_suspects)


def _kept(train: Sequence[Example], suspects: Collection[int]) -> list[int]:
    left = Counter(label for n, row in enumerate(train) if n not in suspects for label in row.all_labels)
    return [n for n, row in enumerate(train) if n not in suspects or any(not left[label] for label in row.all_labels)]


Compared = tuple[tuple[float, float], PairedDifference, bool]
"""The metric before and after, after minus before, and whether they differ significantly."""


def _test_of(target: Any) -> tuple[str, bool, Callable[[Any, Any, Splits, Confidence], Compared]]:
    """Return the metric of a target, whether more of it is better, and its paired test."""
    if isinstance(target, Number):
        return "rmse", False, _values
    return ("macro_f1", True, _label_sets) if isinstance(target, MultiLabel) else ("accuracy", True, _labels)


def _labels(before: Any, after: Any, splits: Splits, confidence: Confidence) -> Compared:
    gold = [row.gold for row in before]
    (pair,) = label_pairs.compare(gold, {AFTER: after, BEFORE: before}, splits.labels, confidence)
    gap: Estimate = pair.accuracy_difference
    shares = [sum(row.label == row.gold for row in rows) / len(rows) for rows in (before, after)]
    difference = PairedDifference(gap.value, gap.low, gap.high, pair.mcnemar.p, pair.mcnemar.p_holm)
    return (shares[0], shares[1]), difference, pair.distinguishable


def _label_sets(before: Any, after: Any, splits: Splits, confidence: Confidence) -> Compared:
    (pair,) = multilabel_scores.compare({AFTER: after, BEFORE: before}, splits.labels, confidence)
    scores = [multilabel_scores.headline(rows, splits.labels)["macro_f1"] for rows in (before, after)]
    return (scores[0], scores[1]), pair.differences["macro_f1"], pair.distinguishable


def _values(before: Any, after: Any, splits: Splits, confidence: Confidence) -> Compared:
    (pair,) = value_scores.compare({AFTER: after, BEFORE: before}, confidence)
    scores = [value_scores.headline(rows)["rmse"] for rows in (before, after)]
    return (scores[0], scores[1]), pair.differences["rmse"], pair.distinguishable
