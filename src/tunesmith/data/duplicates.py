"""Rows that stand more than once: within a split, in two splits, or with two labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations
from typing import Literal

from tunesmith.data.rows import FIRST, PARTS, Given
from tunesmith.types import DataNote, Example

Key = tuple[str, str | None]


def text_key(row: Example) -> Key:
    """What makes two rows the same text."""
    return row.text, row.text_pair


def resolve(given: Given, policy: Literal["report", "remove"]) -> tuple[Given, list[DataNote]]:
    """Tell of duplicates; `remove` takes those in two splits out of the split that is learned from."""
    changes = [*_repeated(given), *_contradictions(given)]
    for earlier, later in combinations([part for part in PARTS if part in given], 2):
        shared = _shared(given[earlier], given[later], text_key)
        if shared and policy == "remove":
            gone = {row.id for row in shared}
            given = {**given, earlier: tuple(row for row in given[earlier] if row.id not in gone)}
            changes.append(_change(f"removed from {earlier}: same text in {later}", shared))
        elif shared:
            changes.append(_change(f"same text in {earlier} and {later}", shared))
        grouped = [row for row in given[earlier] if row.group is not None]
        if shared := _shared(grouped, given[later], lambda row: row.group):
            changes.append(_change(f"same group in {earlier} and {later}", shared))
    return given, changes


def _shared(rows: Sequence[Example], others: Iterable[Example], key: Callable[[Example], object]) -> list[Example]:
    known = {key(row) for row in others}
    return [row for row in rows if key(row) in known]


def _repeated(given: Given) -> Iterator[DataNote]:
    for part, rows in given.items():
        first = {text_key(row): row.id for row in reversed(rows)}
        again = [row for row in rows if first[text_key(row)] != row.id]
        if again:
            yield _change(f"exact duplicates within {part}", again)


def _contradictions(given: Given) -> Iterator[DataNote]:
    first: dict[Key, str | None] = {}
    torn: set[Key] = set()
    for part in given.values():
        torn.update(key for row in part if first.setdefault(key := text_key(row), row.label) != row.label)
    rows = [row for part in given.values() for row in part if text_key(row) in torn] if torn else []
    if rows:
        yield _change("same text with contradicting labels", rows)


def _change(what: str, rows: Sequence[Example]) -> DataNote:
    return DataNote(what, len(rows), tuple(row.id for row in rows[:FIRST]))
