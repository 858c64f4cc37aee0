"""Scores of slices: the rows that share a value of a column, each with its interval and a test against all rows.

Shapes: N rows, C values of each row, S slices, B resamples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tunesmith.evaluation import intervals
from tunesmith.evaluation.intervals import Confidence, Estimate, Floats, Index
from tunesmith.types import MultilabelPredictionRow, PredictionRow, ValuePredictionRow

FEWEST = 20
"""Smaller slices are scored and not tested: they say little."""
MOST_VALUES = 50
"""Of a column with more values the rarest are one slice."""
EMPTY = "(empty)"
CELLS_AT_ONCE = 1 << 20
"""Values of shuffled rows in memory at once: 8 MB."""


@dataclass(frozen=True)
class SliceMetric:
    """A metric that is made of means over rows."""

    name: str
    values: Floats
    """N x C: what it needs of each row."""
    of_means: Callable[[Floats], Floats]
    """From means over rows, B x C, to the metric, B."""
    is_share: bool = False
    """Whether it is a share of rows: the mean of a single value of 0 or 1."""
    higher_is_better: bool = True

    def of_rows(self, places_N: Index) -> float:
        """Return the metric on these rows."""
        return float(self.of_means(self.values[places_N].mean(axis=0, keepdims=True))[0])


@dataclass(frozen=True, slots=True)
class SliceScore:
    """The metric on one slice."""

    column: str
    value: str
    rows: int
    estimate: Estimate
    rest: float | None
    """The metric on all other rows; None where there are none."""
    p: float | None = None
    """That as many rows drawn at random score as far from the whole; None where the slice is not tested."""
    p_holm: float | None = None
    """The same, Holm-adjusted for all slices that are tested."""


@dataclass(frozen=True, slots=True)
class SliceScores:
    """slices.json: the metric on every slice, worst first, those of fewer than FEWEST rows last."""

    metric: str
    rows: int
    confidence: float
    """Level of the intervals."""
    slices: tuple[SliceScore, ...]

    @property
    def tested(self) -> int:
        """How many slices are tested, for which p-values are adjusted."""
        return sum(each.p is not None for each in self.slices)


def accuracy(rows: Sequence[PredictionRow]) -> SliceMetric:
    """Return the share of rows whose label is right."""
    right_N1 = np.array([[row.label == row.gold] for row in rows], dtype=np.float64)
    return SliceMetric("accuracy", right_N1, lambda means_BC: means_BC[:, 0], is_share=True)


def micro_f1(rows: Sequence[MultilabelPredictionRow]) -> SliceMetric:
    """Return the F1 over all labels of all rows; macro F1 would count a label that a slice lacks as 0."""
    counts_N3 = np.array([[len(row.gold), len(row.labels), len({*row.gold} & {*row.labels})] for row in rows], float)

    def of_means(means_BC: Floats) -> Floats:
        whole_B = means_BC[:, 0] + means_BC[:, 1]
        return np.divide(2 * means_BC[:, 2], whole_B, out=np.zeros_like(whole_B), where=whole_B > 0)

    return SliceMetric("micro_f1", counts_N3, of_means)


def rmse(rows: Sequence[ValuePredictionRow]) -> SliceMetric:
    """Return the root of the mean squared error."""
    squared_N1 = np.array([[(row.value - row.gold) ** 2] for row in rows])
    return SliceMetric("rmse", squared_N1, lambda means_BC: np.sqrt(means_BC[:, 0]), higher_is_better=False)


def score(metric: SliceMetric, columns: Mapping[str, Sequence[str]], confidence: Confidence) -> SliceScores:
    """Return the scores of all slices; equal inputs give equal bits. columns: a value for each row.

    p is exact for shares of rows (hypergeometric, as in Fisher's test), else by permutation: the slice against slices
    of its size made of shuffled rows. Two-sided, as twice the smaller tail.
    """
    N = len(metric.values)
    slices: list[SliceScore] = []
    for column, values in columns.items():
        groups = _groups(values)
        chances = _exact_p(metric, groups) if metric.is_share else _permutation_p(metric, groups, confidence)
        for (value, places), p in zip(groups.items(), chances, strict=True):
            rest = np.setdiff1d(np.arange(N), places)
            is_tested = len(places) >= FEWEST and len(rest) > 0
            slices.append(
                SliceScore(
                    column=column,
                    value=value,
                    rows=len(places),
                    estimate=_estimate(metric, places, confidence),
                    rest=metric.of_rows(rest) if len(rest) else None,
                    p=p if is_tested else None,
                )
            )
    adjusted = iter(intervals.holm([each.p for each in slices if each.p is not None]))
    slices = [each if each.p is None else replace(each, p_holm=next(adjusted)) for each in slices]
    sign = 1 if metric.higher_is_better else -1
    slices.sort(key=lambda each: (each.rows < FEWEST, sign * each.estimate.value, each.column, each.value))
    return SliceScores(metric.name, N, confidence.level, tuple(slices))


def quartiles(lengths: Sequence[int]) -> list[str]:
    """Return the quartile of each text's length, as `35 to 80 characters`; equal lengths share one."""
    lengths_N = np.array(lengths)
    places_N = np.searchsorted(np.quantile(lengths_N, [0.25, 0.5, 0.75]), lengths_N)
    names = {}
    for place in np.unique(places_N):
        inside = lengths_N[places_N == place]
        names[place] = f"{inside.min():,} to {inside.max():,} characters"
    return [names[place] for place in places_N]


def _groups(values: Sequence[str]) -> dict[str, Index]:
    """Return the rows of each value; of many values the rarest share a group."""
    counts = Counter(values)
    kept = {value for value, _ in counts.most_common(MOST_VALUES)}
    others = f"{len(counts) - len(kept):,} other values"
    groups: dict[str, list[int]] = {}
    for place, value in enumerate(values):
        groups.setdefault((value or EMPTY) if value in kept else others, []).append(place)
    return {value: np.array(places, dtype=np.intp) for value, places in groups.items()}


def _estimate(metric: SliceMetric, places: Index, confidence: Confidence) -> Estimate:
    values_nC = metric.values[places]
    if metric.is_share:
        return Estimate.share(int(values_nC.sum()), len(places), confidence.level)

    def measure(draws_Bn: Index) -> dict[str, Floats]:
        return {metric.name: metric.of_means(intervals.sums(values_nC, draws_Bn) / len(places))}

    return intervals.estimates(measure, len(places), confidence)[metric.name]


def _exact_p(metric: SliceMetric, groups: Mapping[str, Index]) -> list[float]:
    from scipy.stats import hypergeom

    chances = []
    for places in groups.values():
        right = int(metric.values[places].sum())
        drawn = hypergeom(len(metric.values), int(metric.values.sum()), len(places))
        chances.append(min(1.0, 2 * float(min(drawn.cdf(right), drawn.sf(right - 1)))))
    return chances


def _permutation_p(metric: SliceMetric, groups: Mapping[str, Index], confidence: Confidence) -> list[float]:
    N, C = metric.values.shape
    sizes_S = np.array([len(places) for places in groups.values()])
    starts_S = np.concatenate([[0], sizes_S.cumsum()[:-1]])
    measured_S = np.array([metric.of_rows(places) for places in groups.values()])
    lower_S, higher_S = np.zeros((2, len(sizes_S)))
    generator = np.random.Generator(np.random.PCG64(confidence.seed))
    step = max(1, CELLS_AT_ONCE // (N * C))
    for start in range(0, confidence.resamples, step):
        rows_BN = np.tile(np.arange(N), (min(step, confidence.resamples - start), 1))
        shuffled_BNC = metric.values[generator.permuted(rows_BN, axis=1)]
        means_BSC = np.add.reduceat(shuffled_BNC, starts_S, axis=1) / sizes_S[:, None]
        drawn_BS = metric.of_means(means_BSC.reshape(-1, C)).reshape(-1, len(sizes_S))
        lower_S += (drawn_BS <= measured_S).sum(axis=0)
        higher_S += (drawn_BS >= measured_S).sum(axis=0)
    tails_S = np.minimum(lower_S, higher_S)
    return [min(1.0, 2 * (float(tail) + 1) / (confidence.resamples + 1)) for tail in tails_S]
