"""What the data looks like, for the manifest, `check` and the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from tunesmith.types import DataNote, DataSummary, Quantiles, Splits, SplitSummary


def summarize(splits: Splits, source: str) -> DataSummary:
    """Rows, labels and lengths of each split, fingerprints, and everything that reading changed."""
    summaries = {}
    for name, rows in {"train": splits.train, "validation": splits.validation, "test": splits.test}.items():
        counts = Counter(row.label for row in rows)
        per_label = {label: counts[label] for label in splits.labels}
        lengths = [
            sum(len(message.content) + len(message.input) for message in row.messages)
            if row.messages
            else len(row.text) + len(row.text_pair or "")
            for row in rows
        ]
        summaries[name] = SplitSummary(len(rows), splits.fingerprints[name], per_label, quantiles(lengths))
    return DataSummary(
        source=source,
        labels=splits.labels,
        fingerprint=splits.fingerprints["data"],
        made=splits.made,
        splits=summaries,
        changes=splits.notes,
    )


def quantiles(lengths: Sequence[int]) -> Quantiles:
    """Return the median, the 95% quantile and the maximum; zeros for no lengths."""
    if not lengths:
        return Quantiles(0, 0, 0)
    median, p95 = np.quantile(lengths, [0.5, 0.95])
    return Quantiles(round(median), round(p95), max(lengths))


def lines(notes: Sequence[DataNote]) -> list[str]:
    """Return each note as a line for people: `2 x dropped: empty text (a.csv:3, a.csv:7)`."""
    texts = []
    for note in notes:
        more = " ..." if note.count > len(note.where) else ""
        texts.append(f"{note.count:,} x {note.what}" + (f" ({', '.join(note.where)}{more})" if note.where else ""))
    return texts
