"""Raw rows, before anybody has asked what they mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tunesmith.recipe import Data, Split
from tunesmith.types import DataNote, Example

PARTS = ("train", "validation", "test")
OTHER_NAMES = {"validation": ("val", "valid", "dev")}
"""What people also call a part; looked for where the recipe keeps the default name."""
Given = dict[str, tuple[Example, ...]]
"""Examples by part; a part that the data lacks is not in it."""
FIRST = 5
"""So many ids stand for all in a message or a change."""


@dataclass(frozen=True, slots=True)
class Row:
    """The values of one row by column name, and where it stands."""

    id: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Bad:
    """A row that cannot be used. `note` adds a number or a label, never the row's contents."""

    reason: str
    id: str
    note: str = ""


Item = Row | Bad | DataNote


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of one file, folder or hub split. `items` can be walked once; it also tells what reading met."""

    name: str
    columns: tuple[str, ...]
    items: Iterable[Item]
    label_names: tuple[str, ...] | None = None
    implied: bool = False
    """The columns are `text` and `label`, whatever the recipe says: a folder has no header."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns that the recipe asks for."""

    text: str
    text_pair: str | None
    label: str
    group: str | None
    split: str | None

    @classmethod
    def of(cls, data: Data, split: Split) -> Columns:
        """Those of a recipe."""
        return cls(data.text, data.text_pair, data.label, split.group, split.column)

    def within(self, table: Table) -> Columns:
        """The same for one table: a folder of classes has its own names for text and label."""
        return replace(self, text="text", label="label") if table.implied else self

    def settings(self) -> dict[str, str]:
        """Column by the name of the setting that asks for it."""
        names = {
            "data.text": self.text,
            "data.text_pair": self.text_pair,
            "data.label": self.label,
            "split.group": self.group,
            "split.column": self.split,
        }
        return {setting: column for setting, column in names.items() if column is not None}


def part_names(split: Split) -> dict[str, tuple[str, ...]]:
    """The names under which each part may stand; none where the recipe says `none`."""
    names = {}
    for part in PARTS:
        name: str = getattr(split, part)
        others = OTHER_NAMES.get(part, ()) if name == part else ()
        names[part] = () if name == "none" else (name, *others)
    return names


def merge(changes: Iterable[DataNote]) -> tuple[DataNote, ...]:
    """Add up the changes of one kind, in the order of their first appearance."""
    counts: dict[str, int] = {}
    where: dict[str, list[str]] = {}
    for change in changes:
        counts[change.what] = counts.get(change.what, 0) + change.count
        ids = where.setdefault(change.what, [])
        if len(ids) < FIRST:
            ids.extend(change.where[: FIRST - len(ids)])
    return tuple(DataNote(what, count, tuple(where[what])) for what, count in counts.items())


def listed(names: Iterable[str], most: int = 12) -> str:
    """`a, b, c and 4 more`."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) + more) or "nothing"


def shortened(label: str, most: int = 40) -> str:
    """A label in quotes, cut where somebody named the wrong column and it is a whole text."""
    return repr(label if len(label) <= most else label[:most] + "...")
