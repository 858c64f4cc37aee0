"""What every comparison of two methods on the same rows is made of; `label_pairs` and `response_pairs` build on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from tunesmith.errors import RunError
from tunesmith.evaluation.intervals import Floats, bootstrap_p, holm, percentile

UNADJUSTED = 1.0
"""`p_holm` of a test that is not yet part of a family of tests: claims nothing."""


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """A difference a - b with its interval, tested by the paired bootstrap."""

    value: float
    low: float
    high: float
    p: float
    p_holm: float = UNADJUSTED


@dataclass(frozen=True, slots=True)
class McNemarTest:
    """McNemar's exact test of a share of rows, from the rows where only one of two methods has it."""

    rows: int
    only_a: int
    only_b: int
    p: float
    p_holm: float = UNADJUSTED


@dataclass(frozen=True, slots=True)
class AccuracyTest:
    """McNemar's exact test of which of two classifiers is right more often."""

    only_a_right: int
    only_b_right: int
    p: float
    p_holm: float = UNADJUSTED


Test = TypeVar("Test", PairedDifference, McNemarTest, AccuracyTest)


def difference(value: float, resampled: Floats, confidence: float, least_p: float = 0.0) -> PairedDifference:
    """Return a difference with its percentile interval and p. least_p: the smallest p that so few rows allow."""
    low, high = percentile(value, resampled, confidence)
    return PairedDifference(value, low, high, min(1.0, max(bootstrap_p(resampled), least_p)))


def adjusted(tests: Sequence[Test]) -> list[Test]:
    """Return the tests with `p_holm`: their p, Holm-adjusted for being several."""
    return [replace(test, p_holm=p) for test, p in zip(tests, holm([test.p for test in tests]), strict=True)]


def check_same_rows(ids: Mapping[str, Sequence[str]]) -> None:
    """Raise RunError unless all methods, {name: row ids}, have the same rows in the same order."""
    (first, reference), *others = ids.items()
    for name, rows in others:
        if rows == reference:
            continue
        place = next((i for i, (a, b) in enumerate(zip(reference, rows, strict=False)) if a != b), None)
        raise RunError(
            f"{first} and {name} were not evaluated on the same rows",
            expected=f"{len(reference):,} rows" if place is None else f"{reference[place]} in row {place + 1:,}",
            found=f"{len(rows):,} rows" if place is None else rows[place],
            do="give both runs the same data, split settings and seed, and train or evaluate them again",
        )
