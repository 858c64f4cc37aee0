"""How far two sets of numbers about the same rows go together: Pearson, Spearman and Kendall, with intervals.

Shapes: N rows, B resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tunesmith.evaluation.intervals import Confidence, Floats, Index, bootstrap, counts, percentile

NAMES = {"pearson": "Pearson", "spearman": "Spearman", "kendall": "Kendall (tau-b)"}


def agreement(
    a: Sequence[float | None] | Floats,
    b: Sequence[float | None] | Floats,
    confidence: Confidence,
    names: Sequence[str] = tuple(NAMES),
) -> dict[str, Any]:
    """Correlations over the rows that both scored: `{"rows", "pearson": {"value", "low", "high"}, ...}`.

    A correlation is None where fewer than three rows are left, or one side gave them all the same score. Intervals
    are percentile bootstrap over rows; resamples in which one side is constant have no correlation and are left out.
    """
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    a_N, b_N = np.array(pairs, np.float64).reshape(-1, 2).T
    if len(pairs) < 3 or np.ptp(a_N) == 0 or np.ptp(b_N) == 0:
        return {"rows": len(pairs)} | dict.fromkeys(names)
    measure = _measure(a_N, b_N, names)
    values = measure(np.arange(len(pairs))[None])
    drawn = bootstrap(measure, len(pairs), confidence.resamples, confidence.seed)
    found: dict[str, Any] = {"rows": len(pairs)}
    for name in names:
        value = float(values[name][0])
        low, high = percentile(value, drawn[name][~np.isnan(drawn[name])], confidence.level)
        found[name] = {"value": value, "low": low, "high": high}
    return found


def _measure(a_N: Floats, b_N: Floats, names: Sequence[str]) -> Callable[[Index], dict[str, Floats]]:
    """What gives the correlations of resampled rows: NaN where one side is constant."""
    (_, place_a_N), (_, place_b_N) = (np.unique(side_N, return_inverse=True) for side_N in (a_N, b_N))
    ways: dict[str, Callable[[Index], Floats]] = {
        "pearson": lambda draws_BN: _pearson(a_N[draws_BN], b_N[draws_BN]),
        "spearman": lambda draws_BN: _pearson(_ranks(place_a_N[draws_BN]), _ranks(place_b_N[draws_BN])),
        "kendall": lambda draws_BN: np.array([_kendall(a_N[draw_N], b_N[draw_N]) for draw_N in draws_BN]),
    }
    return lambda draws_BN: {name: ways[name](draws_BN) for name in names}


def _pearson(x_BN: Floats, y_BN: Floats) -> Floats:
    constant_B = (np.ptp(x_BN, axis=1) == 0) | (np.ptp(y_BN, axis=1) == 0)
    x_BN, y_BN = x_BN - x_BN.mean(1, keepdims=True), y_BN - y_BN.mean(1, keepdims=True)
    spread_B = np.sqrt((x_BN**2).sum(1) * (y_BN**2).sum(1))
    found_B: Floats = np.divide((x_BN * y_BN).sum(1), spread_B, out=np.full(len(x_BN), np.nan), where=~constant_B)
    return found_B


def _ranks(places_BN: Index) -> Floats:
    """Ranks in each line; equal values share the mean of theirs. places: of the values among all distinct ones."""
    times_BV = counts(places_BN, int(places_BN.max()) + 1)
    ranks_BV = times_BV.cumsum(1) - (times_BV - 1) / 2
    ranks_BN: Floats = np.take_along_axis(ranks_BV, places_BN, 1)
    return ranks_BN


def _kendall(a_N: Floats, b_N: Floats) -> float:
    from scipy import stats

    if np.ptp(a_N) == 0 or np.ptp(b_N) == 0:
        return np.nan
    return float(stats.kendalltau(a_N, b_N, method="asymptotic").statistic)
