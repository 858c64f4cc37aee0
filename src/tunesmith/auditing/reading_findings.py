"""What reading the data dropped, altered or noticed, where something should be done about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tunesmith.auditing.findings import Finding, Severity
from tunesmith.types import DataNote

WORTH_SAYING: dict[str, tuple[Severity, str]] = {
    "dropped: ": (
        "warning",
        "Training stops at these rows: fix them, or leave them out with data.on_bad_rows=drop.",
    ),
    "labels that differ only by case or spaces": ("warning", "Write them in one way: they are learned as two labels."),
    "label with a single example": ("note", "Collect more of them, or merge the label with another."),
    "read as ": ("note", "See that the texts are right, and set data.encoding."),
    "ignored: cells of a further column": ("warning", "Look for unquoted separators in these rows."),
    "skipped: blank line": ("note", "Nothing, unless they should hold something."),
}
"""Beginnings of the notes that become findings; duplicates and leaks have a part of their own."""


def of(notes: Sequence[DataNote]) -> Iterator[Finding]:
    """Yield the findings that notes of reading come to."""
    for note in notes:
        for beginning, (severity, do) in WORTH_SAYING.items():
            if note.what.startswith(beginning):
                rows = "row" if note.count == 1 else "rows"
                what = note.what.removeprefix("dropped: ")
                headline = f"{note.count:,} {rows} cannot be used: {what}." if what != note.what else f"{what}."
                yield Finding(
                    headline=headline[0].upper() + headline[1:],
                    severity=severity,
                    rows=note.count,
                    where=note.where,
                    do=do,
                )
