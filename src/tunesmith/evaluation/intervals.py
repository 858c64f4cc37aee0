"""Intervals and tests: how sure one may be of a number, or of a difference, from the rows at hand.

Shapes: N rows, B resamples. Everything random is drawn from PCG64(seed), so equal inputs give equal bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

from tunesmith.records import omitted_if_none

Floats = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Confidence:
    """How intervals and tests are computed."""

    level: float = 0.95
    """Coverage of every interval; tests reject below 1 - level."""
    resamples: int = 2000
    """Bootstrap resamples."""
    seed: int = 42


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and the ends of its confidence interval."""

    value: float
    low: float
    high: float
    interval: Literal["wilson", "bootstrap"] | None = omitted_if_none()
    """How the interval was computed, where files say it."""

    @classmethod
    def of(cls, value: float, resampled: Floats, confidence: float) -> Estimate:
        """Return a number with its percentile interval over resampled values."""
        return cls(value, *percentile(value, resampled, confidence))

    @classmethod
    def share(cls, count: int, of: int, confidence: float) -> Estimate:
        """Return `count` of `of` rows with Wilson's interval."""
        return cls(count / of, *wilson(count, of, confidence))


DRAWS_AT_ONCE = 1 << 19
"""Rows drawn in one chunk of resamples: 4 MB an array, which stays near the cache whatever N and B are."""
RESAMPLES_AT_ONCE = 512
"""At most, because statistics of many labels take memory for each label and resample."""


def wilson(successes: int, n: int, confidence: float) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927): holds its coverage near 0 and 1, where Wald's does not."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, shrink = successes / n, 1 + z * z / n
    middle = (share + z * z / (2 * n)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # The formula is exactly 0 and 1 at the ends; only rounding says otherwise.
    return (0.0 if successes == 0 else middle - half), (1.0 if successes == n else middle + half)


def resamples(rows: int, samples: int, seed: int) -> Iterator[Index]:
    """Yield row numbers drawn with replacement: chunks of shape B' x N, B in all. The same for equal arguments."""
    generator = np.random.Generator(np.random.PCG64(seed))
    step = max(1, min(DRAWS_AT_ONCE // rows, RESAMPLES_AT_ONCE))
    for start in range(0, samples, step):
        yield generator.integers(rows, size=(min(step, samples - start), rows), dtype=np.intp)


def bootstrap(measure: Callable[[Index], dict[str, Floats]], rows: int, samples: int, seed: int) -> dict[str, Floats]:
    """Return every statistic of `measure` (draws B' x N -> {name: B'}) on B resamples: {name: B values}.

    Equal `rows`, `samples` and `seed` mean equal resamples: values of two methods can be subtracted pair by pair.
    """
    chunks = [measure(draws) for draws in resamples(rows, samples, seed)]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def counts(places_BN: Index, width: int, weights_BN: Floats | None = None) -> Floats:
    """Return how often (or with what total weight) each number below `width` occurs in each line: B x width."""
    B = len(places_BN)
    cells = places_BN + np.arange(0, B * width, width, dtype=np.intp)[:, None]
    weights = None if weights_BN is None else weights_BN.ravel()
    return np.bincount(cells.ravel(), weights, minlength=B * width).reshape(B, width).astype(np.float64)


def sums(values_NC: Floats, draws_BN: Index) -> Floats:
    """Return the sums over each line of `draws_BN`: B x C. Sums of whole numbers are exact in any order."""
    return counts(draws_BN, len(values_NC)) @ values_NC


def percentile(value: float, resampled: Floats, confidence: float) -> tuple[float, float]:
    """Percentile interval of the bootstrap (Efron 1979), widened where needed to hold `value` itself.

    Resampling biases some statistics (ECE upwards, macro F1 of rare classes downwards), so that on few rows the
    plain percentiles can leave the measured value outside; the wider interval covers no less. Where no resample defines
    the statistic, which happens on a few rows, the interval is the value itself.
    """
    if not len(resampled):
        return value, value
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    return min(float(low), value), max(float(high), value)


def estimates(
    measure: Callable[[Index], dict[str, Floats]],
    rows: int,
    confidence: Confidence,
    interval: Literal["bootstrap"] | None = None,
) -> dict[str, Estimate]:
    """Return every statistic of `measure` on the rows as they are, with its percentile interval over resampled rows.

    NaN marks a resample in which a statistic is not defined; the interval leaves such resamples out, and is the value
    itself where none is left.
    """
    resampled = bootstrap(measure, rows, confidence.resamples, confidence.seed)
    by_name = {}
    for name, value_1 in measure(np.arange(rows, dtype=np.intp)[None]).items():
        value, drawn = float(value_1[0]), resampled[name]
        by_name[name] = replace(Estimate.of(value, drawn[~np.isnan(drawn)], confidence.level), interval=interval)
    return by_name


def bootstrap_p(differences: Floats) -> float:
    """Two-sided p that a difference is 0: 2 min(#(d <= 0) + 1, #(d >= 0) + 1) / (B + 1), at most 1 and never 0.

    The percentile interval turned round (Efron and Tibshirani 1993, section 15.4), so that p and interval tell the
    same story; the + 1 counts the rows as they are (Davison and Hinkley 1997, section 4.2).
    """
    tail = min(np.count_nonzero(differences <= 0), np.count_nonzero(differences >= 0))
    return min(1.0, 2 * (int(tail) + 1) / (len(differences) + 1))


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Two-sided exact p that A and B err equally often (McNemar 1947), from the rows that just one gets right.

    Those rows are coin tosses if nothing distinguishes the two: p = 2 P(X <= min), X ~ Binomial(n, 1/2), at most 1.
    """
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for being several (Holm 1979), in the order given."""
    count, adjusted, least = len(p_values), [1.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(count), key=p_values.__getitem__)):
        least = max(least, min(1.0, (count - rank) * p_values[place]))
        adjusted[place] = least
    return adjusted
