"""What the data looks like, for the manifest, `check` and the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from tunesmith.types import DataNote, DataSummary, Example, Quantiles, Splits, SplitSummary


def summarize(splits: Splits, source: str) -> DataSummary:
    """Rows, labels and lengths of each split, fingerprints, and everything that reading changed."""
    rows_by_split = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    return DataSummary(
        source=source,
        labels=splits.labels,
        fingerprint=splits.fingerprints["data"],
        made=splits.made,
        splits={name: _split(rows, splits.labels, splits.fingerprints[name]) for name, rows in rows_by_split.items()},
        changes=splits.notes,
    )


def _split(rows: Sequence[Example], labels: Sequence[str], fingerprint: str) -> SplitSummary:
    counts = Counter(row.label for row in rows)
    per_label = {label: counts[label] for label in labels}
    return SplitSummary(len(rows), fingerprint, per_label, quantiles([_characters(row) for row in rows]))


def _characters(row: Example) -> int:
    if row.messages:
        return sum(len(message.content) + len(message.input) for message in row.messages)
    return len(row.text) + len(row.text_pair or "")


def quantiles(lengths: Sequence[int]) -> Quantiles:
    """Return the median, the 95% quantile and the maximum; zeros for no lengths."""
    if not lengths:
        return Quantiles(0, 0, 0)
    median, p95 = np.quantile(lengths, [0.5, 0.95])
    return Quantiles(round(median), round(p95), max(lengths))


def lines(notes: Sequence[DataNote]) -> list[str]:
    """Return each note as a line for people: `2 x dropped: empty text (a.csv:3, a.csv:7)`."""
    return [f"{note.count:,} x {note.what}" + _where(note) for note in notes]


def _where(note: DataNote) -> str:
    more = " ..." if note.count > len(note.where) else ""
    return f" ({', '.join(note.where)}{more})" if note.where else ""
