"""Raw rows, before anything is known of what they mean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tunesmith.data.cells import Values
from tunesmith.errors import DataError
from tunesmith.recipe import Data, Split
from tunesmith.types import DataNote, Example

SPLITS = ("train", "validation", "test")
OTHER_NAMES = {"validation": ("val", "valid", "dev")}
"""Other common names of a split; tried where the recipe keeps the default name."""
RowsBySplit = dict[str, Sequence[Example]]
"""Examples by the name of their split; a split that the data lacks has no entry."""
SHOWN = 5
"""How many ids a message or a note names."""
LONGEST_NAME = 200
"""Characters of a name that a message shows."""


@dataclass(frozen=True, slots=True)
class Row:
    """The values of one row by column name. id: where the row is, as in `reviews.csv:18`."""

    id: str
    values: Values


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that cannot be used. `note` adds a number or a label, never the row's contents."""

    reason: str
    id: str
    note: str = ""


Item = Row | RejectedRow | DataNote


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of one file, folder or hub split, with notes on how they were read. `items` can be iterated once."""

    name: str
    columns: tuple[str, ...]
    items: Iterable[Item]
    label_names: tuple[str, ...] | None = None
    implied: bool = False
    """The columns are `text` and `label`, whatever the recipe says: a folder has no header."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns that the recipe names."""

    text: str
    text_pair: str | None
    label: str | None
    """None where `indicators` name the labels."""
    indicators: tuple[str, ...]
    """Columns of 0 and 1, one for each label."""
    group: str | None
    split: str | None

    @classmethod
    def of(cls, data: Data, split: Split) -> Columns:
        """Return the columns of a recipe."""
        label, indicators = (data.label, ()) if isinstance(data.label, str) else (None, data.label)
        return cls(data.text, data.text_pair, label, indicators, split.group, split.column)

    def within(self, table: Table) -> Columns:
        """Return the columns for one table: a folder of classes has its own names for text and label."""
        return replace(self, text="text", label="label", indicators=()) if table.implied else self

    @property
    def labelled(self) -> tuple[str, ...]:
        """The columns that say what is learned of a row."""
        return self.indicators if self.label is None else (self.label,)

    def settings(self) -> dict[str, str]:
        """Return each column by the name of its setting."""
        columns = {
            "data.text": self.text,
            "data.text_pair": self.text_pair,
            "data.label": self.label,
            "split.group": self.group,
            "split.column": self.split,
        }
        columns |= {f"data.label[{place}]": column for place, column in enumerate(self.indicators)}
        return {setting: column for setting, column in columns.items() if column is not None}


def split_names(split: Split) -> dict[str, tuple[str, ...]]:
    """Return the names that each split may have in the data; none where the recipe says `none`."""
    names = {}
    for split_name in SPLITS:
        name: str = getattr(split, split_name)
        others = OTHER_NAMES.get(split_name, ()) if name == split_name else ()
        names[split_name] = () if name == "none" else (name, *others)
    return names


def note(what: str, ids: Iterable[str]) -> DataNote:
    """Return a note on these rows; it counts all of them and names the first few."""
    ids = tuple(ids)
    return DataNote(what, len(ids), ids[:SHOWN])


def merge(notes: Iterable[DataNote]) -> tuple[DataNote, ...]:
    """Add up the notes of one kind, in the order of their first appearance."""
    counts: dict[str, int] = {}
    where: dict[str, list[str]] = {}
    for note in notes:
        counts[note.what] = counts.get(note.what, 0) + note.count
        ids = where.setdefault(note.what, [])
        if len(ids) < SHOWN:
            ids.extend(note.where[: SHOWN - len(ids)])
    return tuple(DataNote(what, count, tuple(where[what])) for what, count in counts.items())


def no_rows(name: str) -> DataError:
    """Return the error for a file, or a table of another source, without any row."""
    return DataError(
        f"{name}: no rows", expected="column names and rows", found="nothing", do="check that this is the right file"
    )


def refuse_repeated(where: str, columns: Iterable[str]) -> None:
    """Raise DataError where two columns have one name."""
    repeated = [column for column, count in Counter(columns).items() if count > 1 and column]
    if repeated:
        raise DataError(
            f"{where}: duplicate column names",
            expected="a name of its own for each column",
            found=f"{listed(map(quoted, repeated))} more than once",
            do="rename them",
        )


def listed(names: Iterable[str], most: int = 12) -> str:
    """Return `a, b, c and 4 more`; very long names are cut."""
    names = list(names)
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    shown = (name if len(name) <= LONGEST_NAME else name[:LONGEST_NAME] + "..." for name in names[:most])
    return (", ".join(shown) + more) or "nothing"


def quoted(label: str, most: int = 40) -> str:
    """Return a label in quotes; cut, as it is a whole text where the wrong column was named."""
    return repr(label if len(label) <= most else label[:most] + "...")
