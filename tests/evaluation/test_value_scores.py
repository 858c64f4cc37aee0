"""Scores of numbers against scikit-learn and scipy, and what paired tests find where they must, and where not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from tunesmith.errors import RunError
from tunesmith.evaluation import value_scores
from tunesmith.evaluation.intervals import Confidence
from tunesmith.types import ValuePredictionRow

DRAW = np.random.default_rng(0)
GOLD = np.round(DRAW.normal(50, 20, 300))  # with ties
CLOSE = GOLD + DRAW.normal(0, 5, 300)
FAR = GOLD + DRAW.normal(0, 15, 300)
CONFIDENCE = Confidence(resamples=500, seed=1)


def rows(gold: Sequence[float], predicted: Sequence[float]) -> list[ValuePredictionRow]:
    return [
        ValuePredictionRow(str(i), float(value), float(true))
        for i, (true, value) in enumerate(zip(gold, predicted, strict=True))
    ]


def test_metrics_are_those_of_scikit_learn_and_scipy() -> None:
    scores = value_scores.headline(rows(GOLD, FAR))
    assert scores == pytest.approx(
        {
            "rmse": sklearn_metrics.root_mean_squared_error(GOLD, FAR),
            "mae": sklearn_metrics.mean_absolute_error(GOLD, FAR),
            "r2": sklearn_metrics.r2_score(GOLD, FAR),
            "pearson": stats.pearsonr(GOLD, FAR).statistic,
            "spearman": stats.spearmanr(GOLD, FAR).statistic,
        }
    )
    scored = value_scores.score(rows(GOLD, FAR), CONFIDENCE)
    assert {name: estimate.value for name, estimate in scored.headline.items()} == scores
    assert all(estimate.low < estimate.value < estimate.high for estimate in scored.headline.values())
    assert scored.baseline_rmse == pytest.approx(GOLD.std())
    assert scored.mean_error == pytest.approx((FAR - GOLD).mean())


def test_intervals_hold_the_true_correlation_as_often_as_they_say() -> None:
    draw, held = np.random.default_rng(2), 0
    for _ in range(100):
        gold = draw.normal(size=150)
        noisy = gold + draw.normal(size=150)  # a correlation of sqrt(1/2)
        estimate = value_scores.score(rows(gold, noisy), Confidence(0.9, 300, 0)).headline["pearson"]
        held += estimate.low <= 0.5**0.5 <= estimate.high
    assert 80 <= held <= 98


def test_constant_predictions_and_constant_truth() -> None:
    constant = value_scores.headline(rows([1, 2, 3], [2, 2, 2]))
    assert (constant["pearson"], constant["spearman"], constant["r2"]) == (0, 0, 0)
    equal = value_scores.headline(rows([2, 2], [1, 3]))
    assert np.isnan(equal["r2"])
    assert np.isnan(equal["pearson"])
    assert equal["rmse"] == 1


def test_pairs() -> None:
    methods = {"close": rows(GOLD, CLOSE), "far": rows(GOLD, FAR), "again": rows(GOLD, CLOSE)}
    better, same, worse = value_scores.compare(methods, CONFIDENCE)
    assert better.distinguishable
    assert better.differences["rmse"].value < 0 < better.differences["spearman"].value
    assert better.differences["rmse"].p_holm == pytest.approx(3 * better.differences["rmse"].p)
    assert not same.distinguishable
    assert (same.differences["rmse"].value, same.differences["rmse"].p) == (0, 1)
    assert worse.differences["rmse"].value == -better.differences["rmse"].value
    with pytest.raises(RunError, match="not evaluated on the same rows"):
        value_scores.compare({"a": rows(GOLD, CLOSE), "b": rows(GOLD[1:], CLOSE[1:])}, CONFIDENCE)


def test_what_cannot_be_scored() -> None:
    with pytest.raises(RunError, match="no predictions"):
        value_scores.headline([])
    with pytest.raises(RunError, match=r"1: a number is not finite"):
        value_scores.headline(rows([1, 2], [1, float("nan")]))
