"""How far two sets of scores of the same rows agree: Pearson, Spearman and Kendall, with bootstrap intervals."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from tunesmith.evaluation.intervals import Floats, percentile, resamples

NAMES = {"pearson": "Pearson", "spearman": "Spearman", "kendall": "Kendall (tau-b)"}


def agreement(
    a: Sequence[float | None], b: Sequence[float | None], confidence: float, samples: int, seed: int
) -> dict[str, Any]:
    """Three correlations over the rows that both scored: `{"rows", "pearson": {"value", "low", "high"}, ...}`.

    A correlation is None where fewer than three rows are left, or one side gave them all the same score. Intervals
    are percentile bootstrap over rows; resamples in which one side is constant have no correlation and are left out.
    """
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    a_N, b_N = np.array(pairs, np.float64).reshape(-1, 2).T
    found: dict[str, Any] = {"rows": len(pairs)}
    values = _correlations(a_N, b_N) if len(pairs) >= 3 else None
    if values is None:
        return found | dict.fromkeys(NAMES)
    drawn = [_correlations(a_N[one], b_N[one]) for chunk in resamples(len(pairs), samples, seed) for one in chunk]
    for name in NAMES:
        spread = np.array([one[name] for one in drawn if one is not None])
        low, high = percentile(values[name], spread, confidence)
        found[name] = {"value": values[name], "low": low, "high": high}
    return found


def _correlations(a_N: Floats, b_N: Floats) -> dict[str, float] | None:
    from scipy import stats

    if np.ptp(a_N) == 0 or np.ptp(b_N) == 0:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.NearConstantInputWarning)
        return {
            "pearson": float(np.corrcoef(a_N, b_N)[0, 1]),
            "spearman": float(np.corrcoef(stats.rankdata(a_N), stats.rankdata(b_N))[0, 1]),
            "kendall": float(stats.kendalltau(a_N, b_N, method="asymptotic").statistic),
        }
