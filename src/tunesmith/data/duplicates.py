"""Duplicate rows: within a split, in two splits, or with contradicting labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain, combinations
from typing import Literal

from tunesmith.data.rows import SPLITS, RowsBySplit, note
from tunesmith.types import DataNote, Example

Key = tuple[str, str | None]


def text_key(row: Example) -> Key:
    """Return what two rows with the same text have in common."""
    return row.text, row.text_pair


def resolve(rows_by_split: RowsBySplit, policy: Literal["report", "remove"]) -> tuple[RowsBySplit, list[DataNote]]:
    """Report duplicates; `remove` also takes texts of a later split out of the earlier one, which is learned from."""
    notes = []
    for name, rows in rows_by_split.items():
        first = {text_key(row): row.id for row in reversed(rows)}
        if repeated := [row for row in rows if first[text_key(row)] != row.id]:
            notes.append(_note(f"exact duplicates within {name}", repeated))
    labels: dict[Key, object] = {}
    every_row = list(chain.from_iterable(rows_by_split.values()))
    contradicting = {key for row in every_row if labels.setdefault(key := text_key(row), row.gold) != row.gold}
    if contradicting:
        conflicts = [row for row in every_row if text_key(row) in contradicting]
        notes.append(_note("same text with contradicting labels", conflicts))
    for earlier, later in combinations([name for name in SPLITS if name in rows_by_split], 2):
        shared = _shared(rows_by_split[earlier], rows_by_split[later], text_key)
        if shared and policy == "remove":
            removed = {row.id for row in shared}
            kept = tuple(row for row in rows_by_split[earlier] if row.id not in removed)
            rows_by_split = {**rows_by_split, earlier: kept}
            notes.append(_note(f"removed from {earlier}: same text in {later}", shared))
        elif shared:
            notes.append(_note(f"same text in {earlier} and {later}", shared))
        grouped = [row for row in rows_by_split[earlier] if row.group is not None]
        if shared := _shared(grouped, rows_by_split[later], lambda row: row.group):
            notes.append(_note(f"same group in {earlier} and {later}", shared))
    return rows_by_split, notes


def _shared(rows: Sequence[Example], others: Iterable[Example], key: Callable[[Example], object]) -> list[Example]:
    keys = {key(row) for row in others}
    return [row for row in rows if key(row) in keys]


def _note(what: str, rows: Iterable[Example]) -> DataNote:
    return note(what, (row.id for row in rows))
