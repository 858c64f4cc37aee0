"""Several methods on the same rows, by metrics of which one decides: a paired bootstrap test for every pair."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from tunesmith.evaluation.intervals import Confidence, Floats, Index, bootstrap
from tunesmith.evaluation.paired_tests import PairedDifference, adjusted, check_same_rows, difference


@dataclass(frozen=True, slots=True)
class MetricPair:
    """Two methods on the same rows; every difference is a - b."""

    a: str
    b: str
    rows: int
    differences: dict[str, PairedDifference]
    """By metric; the first decides."""
    distinguishable: bool = False
    """The methods differ significantly in the first metric: `p_holm` is below 1 - confidence level."""


def compare(
    ids: Mapping[str, Sequence[str]],
    measures: Mapping[str, Callable[[Index], dict[str, Floats]]],
    confidence: Confidence,
) -> list[MetricPair]:
    """Return the test of every pair of methods, in the mapping's order. Raises RunError where their rows differ.

    ids: of each method's rows. measures: of each method, drawn row numbers (B x N) -> metrics (B each). The one
    criterion, fixed beforehand: a pair is `distinguishable` where the p of the first metric's difference,
    Holm-adjusted over all pairs, is below 1 - confidence. The other metrics decide nothing.
    """
    check_same_rows(ids)
    rows = len(next(iter(ids.values())))
    every_row = np.arange(rows, dtype=np.intp)[None]
    measured = {name: measure(every_row) for name, measure in measures.items()}
    # One seed draws the same rows for every method: that is what makes the differences paired.
    drawn = {name: bootstrap(of, rows, confidence.resamples, confidence.seed) for name, of in measures.items()}
    names = list(next(iter(measured.values())))
    pairs = []
    for a, b in combinations(ids, 2):
        differences = {}
        for name in names:
            resampled = drawn[a][name] - drawn[b][name]
            value = float((measured[a][name] - measured[b][name])[0])
            differences[name] = difference(value, resampled[~np.isnan(resampled)], confidence.level)
        pairs.append(MetricPair(a, b, rows, differences))
    for name in names:
        tests = adjusted([pair.differences[name] for pair in pairs])
        pairs = [
            replace(pair, differences=pair.differences | {name: test}) for pair, test in zip(pairs, tests, strict=True)
        ]
    return [replace(pair, distinguishable=pair.differences[names[0]].p_holm < 1 - confidence.level) for pair in pairs]
