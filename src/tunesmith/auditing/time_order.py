"""Whether test rows are later than the rows that are learned from, where a column says when a row is from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from tunesmith.auditing import drift
from tunesmith.auditing.drift import Drift
from tunesmith.records import omitted_if_none
from tunesmith.types import DuplicateIndex, Example

MIXED = 0.1
"""Share of test rows older than the middle training row, from which on the test split is not later than train."""


@dataclass(frozen=True, slots=True)
class TimeColumn:
    """What a column of times says of the splits."""

    column: str
    spans: dict[str, tuple[str, str]]
    """The first and the last day of each split, as ISO dates."""
    older: float
    """Share of the test rows that are older than the middle training row: a half in a random split."""
    made: bool
    """Whether the test split was cut at random."""
    drift: Drift | None = omitted_if_none()
    """Whether the older and the newer half of train can be told apart."""

    @property
    def mixed(self) -> bool:
        """Whether the test split is not later than train."""
        return self.older >= MIXED


def compare(
    column: str,
    times: Mapping[str, datetime],
    rows_by_split: Mapping[str, Sequence[Example]],
    made: bool,
    seed: int,
    index: DuplicateIndex | None = None,
) -> TimeColumn | None:
    """Return what a column of times says of train and test; None where one of them has none.

    rows_by_split: has `train` and `test`. made: whether test was cut from train at random. index: of
    rows that include these.
    """
    known = {name: [(times[row.id], row) for row in rows if row.id in times] for name, rows in rows_by_split.items()}
    if not (known.get("train") and known.get("test")):
        return None
    seconds = {name: np.array([time.timestamp() for time, _ in rows]) for name, rows in known.items()}
    middle = float(np.median(seconds["train"]))
    ordered = [row for _, row in sorted(known["train"], key=lambda pair: pair[0])]
    half = len(ordered) // 2
    return TimeColumn(
        column=column,
        spans={name: _span([time for time, _ in rows]) for name, rows in known.items() if rows},
        older=float((seconds["test"] < middle).mean()),
        made=made,
        drift=drift.compare(("older half", "newer half"), ordered[:half], ordered[half:], seed, index),
    )


def _span(times: Sequence[datetime]) -> tuple[str, str]:
    return min(times).date().isoformat(), max(times).date().isoformat()
