"""What the data looks like, for the manifest, `check` and the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from tunesmith.types import DataNote, DataSummary, Example, Quantiles, Splits, SplitSummary


def summarize(splits: Splits, source: str) -> DataSummary:
    """Return rows, labels and lengths of each split, fingerprints, and everything that reading changed."""
    rows_by_split = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    return DataSummary(
        source=source,
        labels=splits.labels,
        fingerprint=splits.fingerprints["data"],
        made=splits.made,
        splits={name: _summary(rows, splits.fingerprints[name], splits.labels) for name, rows in rows_by_split.items()},
        changes=splits.changes,
    )


def _summary(rows: Sequence[Example], fingerprint: str, labels: Sequence[str]) -> SplitSummary:
    counts = Counter(row.label for row in rows)
    per_label = {label: counts[label] for label in labels}
    return SplitSummary(len(rows), fingerprint, per_label, quantiles([_characters(row) for row in rows]))


def _characters(row: Example) -> int:
    if row.messages:
        return sum(len(turn.content) + len(turn.input) for turn in row.messages)
    return len(row.text) + len(row.text_pair or "")


def quantiles(lengths: Sequence[int]) -> Quantiles:
    """Return median, 95% quantile and maximum; zeros where there is nothing."""
    if not lengths:
        return Quantiles()
    median, p95 = np.quantile(lengths, [0.5, 0.95])
    return Quantiles(round(median), round(p95), max(lengths))


def lines(changes: Sequence[DataNote]) -> list[str]:
    """The changes as sentences: nothing that happened to the data goes unsaid."""
    return [f"{change.count:,} x {change.what}" + _where(change) for change in changes]


def _where(change: DataNote) -> str:
    more = " ..." if change.count > len(change.where) else ""
    return f" ({', '.join(change.where)}{more})" if change.where else ""
