"""Correlations of two sets of numbers about the same rows: Pearson, Spearman and Kendall, with intervals.

Shapes: N rows, B resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tunesmith.evaluation.intervals import Confidence, Estimate, Floats, Index, counts, estimates

NAMES = {"pearson": "Pearson", "spearman": "Spearman", "kendall": "Kendall (tau-b)"}


@dataclass(frozen=True, slots=True)
class Correlations:
    """Correlations of two sets of numbers; None where one is not asked for, or not defined."""

    rows: int
    """Rows that both sides have a number for."""
    pearson: Estimate | None = None
    spearman: Estimate | None = None
    kendall: Estimate | None = None


def correlate(
    a: Sequence[float | None] | Floats,
    b: Sequence[float | None] | Floats,
    confidence: Confidence,
    names: Sequence[str] = tuple(NAMES),
) -> Correlations:
    """Return the correlations `names` over the rows that both sides have.

    With fewer than three rows, or a constant side, there are none. Intervals are percentile bootstrap over rows;
    resamples in which one side is constant have no correlation and are left out.
    """
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    a_N, b_N = np.array(pairs, np.float64).reshape(-1, 2).T
    if len(pairs) < 3 or np.ptp(a_N) == 0 or np.ptp(b_N) == 0:
        return Correlations(len(pairs))
    (_, rank_a_N), (_, rank_b_N) = (np.unique(side_N, return_inverse=True) for side_N in (a_N, b_N))
    measures: dict[str, Callable[[Index], Floats]] = {
        "pearson": lambda draws_BN: _pearson(a_N[draws_BN], b_N[draws_BN]),
        "spearman": lambda draws_BN: _pearson(_ranks(rank_a_N[draws_BN]), _ranks(rank_b_N[draws_BN])),
        "kendall": lambda draws_BN: np.array([_kendall(a_N[draw_N], b_N[draw_N]) for draw_N in draws_BN]),
    }

    def measure(draws_BN: Index) -> dict[str, Floats]:
        return {name: measures[name](draws_BN) for name in names}

    return Correlations(len(pairs), **estimates(measure, len(pairs), confidence))


def _pearson(x_BN: Floats, y_BN: Floats) -> Floats:
    """Return the correlation of each pair of lines; NaN where one of them is constant."""
    constant_B = (np.ptp(x_BN, axis=1) == 0) | (np.ptp(y_BN, axis=1) == 0)
    x_BN, y_BN = x_BN - x_BN.mean(1, keepdims=True), y_BN - y_BN.mean(1, keepdims=True)
    spread_B = np.sqrt((x_BN**2).sum(1) * (y_BN**2).sum(1))
    correlation_B: Floats = np.divide((x_BN * y_BN).sum(1), spread_B, out=np.full(len(x_BN), np.nan), where=~constant_B)
    return correlation_B


def _ranks(places_BN: Index) -> Floats:
    """Return ranks within each line, ties by their mean. places_BN: indices into the sorted distinct values."""
    times_BV = counts(places_BN, int(places_BN.max()) + 1)
    ranks_BV = times_BV.cumsum(1) - (times_BV - 1) / 2
    ranks_BN: Floats = np.take_along_axis(ranks_BV, places_BN, 1)
    return ranks_BN


def _kendall(a_N: Floats, b_N: Floats) -> float:
    from scipy import stats

    return float(stats.kendalltau(a_N, b_N, method="asymptotic").statistic)
