"""What the data looks like, for the manifest, `check` and the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tunesmith.data import example_table
from tunesmith.types import DataNote, DataSummary, NumberSummary, Quantiles, Splits, SplitSummary

MOST_LABELS = 12
"""Labels of a split that are shown, the most frequent ones."""


def summarize(splits: Splits, source: str, published: bool = False) -> DataSummary:
    """Rows, labels and lengths of each split, fingerprints, and everything that reading changed.

    published: whether others may have trained on the source, see `sources.is_published`.
    """
    summaries = {}
    for name, rows in {"train": splits.train, "validation": splits.validation, "test": splits.test}.items():
        targets = example_table.targets(rows)
        counts = Counter(label for row in targets for label in row.all_labels)
        per_label = {label: counts[label] for label in splits.labels}
        values = np.array([row.value for row in targets if row.value is not None])
        numbers = (
            NumberSummary(*map(float, (values.mean(), values.std(), values.min(), values.max())))
            if len(values)
            else None
        )
        is_stream = (splits.is_stream and name == "train") or None
        summaries[name] = SplitSummary(
            len(rows),
            splits.fingerprints[name],
            per_label,
            quantiles(example_table.characters(rows)),
            numbers,
            is_stream,
        )
    return DataSummary(
        source=source,
        labels=splits.labels,
        fingerprint=splits.fingerprints["data"],
        made=splits.made,
        splits=summaries,
        changes=splits.notes,
        label_values=splits.label_values,
        published=published or None,
    )


def describe(data: DataSummary, columns: Sequence[str] = ()) -> list[str]:
    """Return lines for people: source and columns, then rows, lengths and labels of each split.

    columns: those that were read, where they are known.
    """
    labels = f"{len(data.labels)} labels, " if data.labels else ""
    read = f"columns {', '.join(columns)}; " if columns else ""
    lines = [f"{data.source}: {read}{labels}fingerprint {data.fingerprint[:12]}"]
    for name, split in data.splits.items():
        made = " (made here)" if name in data.made else " (the first of a stream)" if split.is_stream else ""
        size = split.characters
        lines.append(f"{name:10} {split.rows:>8,} rows{made}; characters: median {size.median:,}, longest {size.max:,}")
        ranked = sorted(split.per_label.items(), key=lambda item: -item[1])
        more = f" and {len(ranked) - MOST_LABELS} more" if len(ranked) > MOST_LABELS else ""
        if split.numbers:
            n = split.numbers
            lines.append(f"{'':11}numbers: mean {n.mean:.4g}, standard deviation {n.std:.4g}, {n.min:g} to {n.max:g}")
        if ranked and split.rows:
            shown = (f"{label} {count:,} ({count / split.rows:.1%})" for label, count in ranked[:MOST_LABELS])
            lines.append(" " * 11 + ", ".join(shown) + more)
    return lines


def quantiles(lengths: Sequence[int] | npt.NDArray[np.int64]) -> Quantiles:
    """Return the median, the 95% quantile and the maximum; zeros for no lengths."""
    if not len(lengths):
        return Quantiles(0, 0, 0)
    median, p95 = np.quantile(lengths, [0.5, 0.95])
    return Quantiles(round(median), round(p95), int(max(lengths)))


def lines(notes: Sequence[DataNote]) -> list[str]:
    """Return each note as a line for people: `2 x dropped: empty text (a.csv:3, a.csv:7)`."""
    texts = []
    for note in notes:
        more = " ..." if note.count > len(note.where) else ""
        texts.append(f"{note.count:,} x {note.what}" + (f" ({', '.join(note.where)}{more})" if note.where else ""))
    return texts
