"""Scores of predicted numbers, defined as in scikit-learn and scipy, each with its bootstrap interval over rows.

Shapes: N rows, B resamples. The errors are in the unit of the data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from tunesmith.errors import RunError
from tunesmith.evaluation import intervals, metric_pairs
from tunesmith.evaluation.intervals import Confidence, Estimate, Floats, Index
from tunesmith.evaluation.metric_pairs import MetricPair
from tunesmith.types import ValuePredictionRow

HIGHER_IS_BETTER = {"rmse": False, "mae": False, "r2": True, "pearson": True, "spearman": True}
"""The headline metrics, in the order of a report, and which way is better."""


@dataclass(frozen=True, slots=True)
class RegressionScores:
    """scores.json: everything a report says about predicted numbers."""

    rows: int
    confidence: float
    """Level of the intervals."""
    headline: dict[str, Estimate]
    """By metric, in the order of HIGHER_IS_BETTER."""
    mean_error: float
    """Mean of prediction minus gold: not 0 where predictions are too high or too low throughout."""
    baseline_rmse: float
    """Of always answering the mean of these rows: their standard deviation."""


def score(rows: Sequence[ValuePredictionRow], confidence: Confidence) -> RegressionScores:
    """Return all scores of one method's predictions; equal inputs give equal bits."""
    gold_N, predicted_N = _columns(rows)
    return RegressionScores(
        rows=len(rows),
        confidence=confidence.level,
        headline=intervals.estimates(partial(measure, gold_N, predicted_N), len(rows), confidence, "bootstrap"),
        mean_error=float((predicted_N - gold_N).mean()),
        baseline_rmse=float(gold_N.std()),
    )


def headline(rows: Sequence[ValuePredictionRow]) -> dict[str, float]:
    """Return the headline metrics without intervals."""
    values = measure(*_columns(rows), np.arange(len(rows), dtype=np.intp)[None])
    return {name: float(value_1[0]) for name, value_1 in values.items()}


def compare(methods: Mapping[str, Sequence[ValuePredictionRow]], confidence: Confidence) -> list[MetricPair]:
    """Return the paired tests of every pair of methods, in the mapping's order; the RMSE decides."""
    ids = {name: [row.id for row in rows] for name, rows in methods.items()}
    measures = {name: partial(measure, *_columns(rows)) for name, rows in methods.items()}
    return metric_pairs.compare(ids, measures, confidence)


def measure(gold_N: Floats, predicted_N: Floats, draws_BN: Index) -> dict[str, Floats]:
    """Return the headline metrics of each line of `draws_BN` (row numbers): {name: B}.

    R² and the correlations are NaN where the drawn numbers are all equal; a correlation with equal predictions is 0.
    """
    gold_BN, predicted_BN = gold_N[draws_BN], predicted_N[draws_BN]
    errors_BN = predicted_BN - gold_BN
    squared_B = (errors_BN**2).mean(axis=1)
    variance_B = gold_BN.var(axis=1)
    varies_B = variance_B > 0
    return {
        "rmse": np.sqrt(squared_B),
        "mae": np.abs(errors_BN).mean(axis=1),
        "r2": 1 - np.divide(squared_B, variance_B, out=np.full_like(squared_B, np.nan), where=varies_B),
        "pearson": _correlation(gold_BN, predicted_BN),
        "spearman": _correlation(_ranks(gold_BN), _ranks(predicted_BN)),
    }


def _correlation(a_BN: Floats, b_BN: Floats) -> Floats:
    a_BN, b_BN = a_BN - a_BN.mean(axis=1, keepdims=True), b_BN - b_BN.mean(axis=1, keepdims=True)
    scale_B = np.sqrt((a_BN**2).sum(axis=1) * (b_BN**2).sum(axis=1))
    none_B = np.where((a_BN**2).sum(axis=1) > 0, 0.0, np.nan)
    correlation: Floats = np.divide((a_BN * b_BN).sum(axis=1), scale_B, out=none_B, where=scale_B > 0)
    return np.clip(correlation, -1, 1)


def _ranks(values_BN: Floats) -> Floats:
    from scipy.stats import rankdata

    return np.asarray(rankdata(values_BN, axis=1), dtype=np.float64)


def _columns(rows: Sequence[ValuePredictionRow]) -> tuple[Floats, Floats]:
    """Return gold and predicted numbers. Raises RunError where there are no rows, or a number is not finite."""
    if not rows:
        raise RunError("there are no predictions to score", do="predict the split again with this run's model")
    gold_N, predicted_N = (np.array([getattr(row, name) for row in rows], np.float64) for name in ("gold", "value"))
    if not (finite_N := np.isfinite(gold_N) & np.isfinite(predicted_N)).all():
        row = rows[int(np.argmin(finite_N))]
        raise RunError(
            f"{row.id}: a number is not finite",
            found=f"gold {row.gold}, predicted {row.value}",
            do="look for non-finite values in the model, or for damage in the predictions file",
        )
    return gold_N, predicted_N
