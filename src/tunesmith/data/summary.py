"""What the data looks like, for the manifest, `check` and the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from tunesmith.types import DataNote, Example, Splits


def summarize(splits: Splits, source: str) -> dict[str, Any]:
    """Rows, labels and lengths of each split, fingerprints, and everything that reading changed. Ready for JSON."""
    named = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    return {
        "source": source,
        "labels": list(splits.labels),
        "fingerprint": splits.fingerprints["data"],
        "made": list(splits.made),
        "splits": {
            name: {"rows": len(rows), "fingerprint": splits.fingerprints[name], **_figures(rows, splits.labels)}
            for name, rows in named.items()
        },
        "changes": [asdict(change) for change in splits.changes],
    }


def _figures(rows: Sequence[Example], labels: Sequence[str]) -> dict[str, Any]:
    counts = Counter(row.label for row in rows)
    return {
        "per_label": {label: counts[label] for label in labels},
        "characters": quantiles([_length(r) for r in rows]),
    }


def _length(row: Example) -> int:
    if row.messages:
        return sum(len(turn.content) + len(turn.input) for turn in row.messages)
    return len(row.text) + len(row.text_pair or "")


def quantiles(lengths: Sequence[int]) -> dict[str, int]:
    """Median, 95% quantile and maximum; zeros where there is nothing."""
    if not lengths:
        return {"median": 0, "p95": 0, "max": 0}
    median, p95 = np.quantile(lengths, [0.5, 0.95])
    return {"median": round(median), "p95": round(p95), "max": max(lengths)}


def lines(changes: Sequence[DataNote]) -> list[str]:
    """The changes as sentences: nothing that happened to the data goes unsaid."""
    return [f"{change.count:,} x {change.what}" + _where(change) for change in changes]


def _where(change: DataNote) -> str:
    more = " ..." if change.count > len(change.where) else ""
    return f" ({', '.join(change.where)}{more})" if change.where else ""
