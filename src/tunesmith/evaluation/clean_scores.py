"""The scores of test rows that have no copy in train, beside those of all."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.evaluation.intervals import Estimate

FEWEST = 20
"""Fewer rows are not scored: they say little."""


@dataclass(frozen=True, slots=True)
class CleanScores:
    """clean.json: the headline metrics of the clean part of the test split, where the other part leaks.

    clean-NAME.json: those of the new data NAME.
    """

    rows: int
    """Test rows without a copy in train."""
    exact: int
    """Test rows whose text is in train."""
    normalised: int
    """Test rows that are equal to a row of train after all folds."""
    near: int
    """Test rows that are near-duplicates of a row of train."""
    confidence: float
    """Level of the intervals."""
    headline: dict[str, Estimate]
    """By metric, on the clean rows; empty where there are fewer than FEWEST."""

    @property
    def copies(self) -> int:
        """Test rows with a copy in train."""
        return self.exact + self.normalised + self.near
