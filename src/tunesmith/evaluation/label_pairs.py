"""Several classifiers on the same rows: a paired test for every pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations

from tunesmith.evaluation.intervals import Confidence, Estimate, Floats, Index, bootstrap, mcnemar_exact
from tunesmith.evaluation.metrics import PredictionTable, accuracy, count, every_row, macro_f1, tabulate
from tunesmith.evaluation.paired_tests import (
    AccuracyTest,
    PairedDifference,
    adjusted,
    check_same_rows,
    difference,
)
from tunesmith.types import Prediction


@dataclass(frozen=True, slots=True)
class LabelPair:
    """Two classifiers on the same rows; every difference is a - b."""

    a: str
    b: str
    rows: int
    mcnemar: AccuracyTest
    accuracy_difference: Estimate
    macro_f1_difference: PairedDifference
    distinguishable: bool = False
    """The accuracies differ significantly: `mcnemar.p_holm` is below 1 - confidence level."""


def compare(
    gold: Sequence[str], methods: Mapping[str, Sequence[Prediction]], labels: Sequence[str], confidence: Confidence
) -> list[LabelPair]:
    """Return the test of every pair of methods, in the mapping's order.

    The one criterion, fixed beforehand: a pair is `distinguishable` where McNemar's exact p, Holm-adjusted over all
    pairs, is below 1 - confidence. The macro F1 difference has a paired bootstrap test of its own,
    likewise adjusted, but decides nothing: two looks would err more often than the level says.
    """
    check_same_rows({name: [prediction.id for prediction in rows] for name, rows in methods.items()})
    tables = {name: tabulate(gold, predictions, labels) for name, predictions in methods.items()}
    measured = {name: _measure(table, every_row(table)) for name, table in tables.items()}
    # One seed draws the same rows for every method: that is what makes the differences paired.
    resampled = {
        name: bootstrap(partial(_measure, table), len(gold), confidence.resamples, confidence.seed)
        for name, table in tables.items()
    }
    pairs = []
    for a, b in combinations(methods, 2):
        right_a, right_b = tables[a].right, tables[b].right
        only_a, only_b = int((right_a > right_b).sum()), int((right_b > right_a).sum())
        accuracies, f1s = (
            (float((measured[a][name] - measured[b][name])[0]), resampled[a][name] - resampled[b][name])
            for name in ("accuracy", "macro_f1")
        )
        test = AccuracyTest(only_a, only_b, mcnemar_exact(only_a, only_b))
        gap = difference(*f1s, confidence.level)
        pairs.append(LabelPair(a, b, len(gold), test, Estimate.of(*accuracies, confidence.level), gap))
    tests = adjusted([pair.mcnemar for pair in pairs])
    gaps = adjusted([pair.macro_f1_difference for pair in pairs])
    return [
        replace(pair, mcnemar=test, macro_f1_difference=gap, distinguishable=test.p_holm < 1 - confidence.level)
        for pair, test, gap in zip(pairs, tests, gaps, strict=True)
    ]


def _measure(table: PredictionTable, draws_BN: Index) -> dict[str, Floats]:
    counts = count(table, draws_BN)
    return {"accuracy": accuracy(counts), "macro_f1": macro_f1(counts)}
