"""From the columns of a table to examples: what a row must have, what labels are called, what is done with bad rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal, Protocol

from tunesmith.data import cells
from tunesmith.data.cells import InvalidRow
from tunesmith.data.rows import (
    FIRST,
    OTHER_NAMES,
    PARTS,
    Bad,
    Columns,
    Given,
    Row,
    Table,
    listed,
    part_names,
    shortened,
)
from tunesmith.errors import DataError
from tunesmith.recipe import Split
from tunesmith.types import DataNote, Example

WHOLE = re.compile(r"(-?\d{1,18})(\.0+)?")
INTEGER = re.compile(r"-?\d{1,18}")
TRUTH = {"False": 0, "True": 1}


@dataclass(frozen=True, slots=True)
class ParsedRows:
    """Examples as the tables have them, and everything that reading met on the way."""

    given: Given
    bad: list[Bad]
    changes: list[DataNote]
    label_names: tuple[str, ...] | None = None


class Reading(Protocol):
    """How the rows of a task become examples."""

    def columns(self, table: Table) -> Columns:
        """The columns to read of a table. Raises DataError where it lacks one."""
        ...

    def example(self, row: Row, columns: Columns) -> Example:
        """The example of one row. Raises Unfit where it is none."""
        ...

    def remarks(self, row: Row, columns: Columns) -> Iterable[DataNote]:
        """What was read otherwise than it stands there."""
        ...


@dataclass(frozen=True, slots=True)
class LabelledReading:
    """Texts, or pairs of texts, with labels; without one too where `required` is false."""

    wanted: Columns
    required: bool = True

    def columns(self, table: Table) -> Columns:
        columns = self.wanted.within(table)
        settings = columns.settings()
        if not self.required:
            del settings["data.label"]
        check_columns(table, settings)
        return columns

    def example(self, row: Row, columns: Columns) -> Example:
        values = row.values
        text = cells.text(values.get(columns.text), "text")
        pair = None if columns.text_pair is None else cells.text(values.get(columns.text_pair), "text_pair")
        value = values.get(columns.label)
        label = cells.label(value) if self.required or not cells.is_null(value) else None
        return Example(row.id, text, pair, label, cells.group(values, columns.group))

    def remarks(self, row: Row, columns: Columns) -> Iterator[DataNote]:
        for column in (columns.text, columns.text_pair):
            if column is not None and not isinstance(row.values[column], str):
                yield DataNote(f"numbers read as text in column {column}", 1, (row.id,))


def collect(tables: Mapping[str, Table], split: Split, reading: Reading) -> ParsedRows:
    """Read all tables to their ends."""
    columns = _columns(tables, reading)
    drafts: dict[str, list[Example]] = {part: [] for part in PARTS if part in tables or split.column}
    bad: list[Bad] = []
    changes: list[DataNote] = []
    for part, table in tables.items():
        before = sum(map(len, drafts.values())), len(bad)
        for item in _items(table, part, columns[part], split, reading):
            if isinstance(item, Bad):
                bad.append(item)
            elif isinstance(item, DataNote):
                changes.append(item)
            else:
                drafts[item[0]].append(item[1])
        _check_rows(table, sum(map(len, drafts.values())) - before[0], bad[before[1] :], part)
    names = next((table.label_names for table in tables.values() if table.label_names), None)
    given = {part: tuple(examples) for part, examples in drafts.items() if examples or part in tables}
    return ParsedRows(given, bad, changes, names)


def _columns(tables: Mapping[str, Table], reading: Reading) -> dict[str, Columns]:
    """The columns of every table; those that are missing are told of all tables at once."""
    found: dict[str, Columns] = {}
    problems: list[str] = []
    for part, table in tables.items():
        try:
            found[part] = reading.columns(table)
        except DataError as error:
            if not table.columns:
                raise
            problems.append(str(error))
    if problems:
        raise DataError("columns are missing\n  " + "\n  ".join(problems))
    return found


def check_columns(table: Table, asked: Mapping[str, str]) -> None:
    """Refuse a table without a column that a setting asks for (column by setting)."""
    missing = {setting: column for setting, column in asked.items() if column not in table.columns}
    if missing and not table.columns:
        raise DataError(f"{table.name}: no rows")
    if missing:
        raise DataError(f"{table.name} has the columns {listed(table.columns)}; {_advice(missing, table.columns)}")


def _advice(missing: Mapping[str, str], columns: Sequence[str]) -> str:
    if len(columns) == 1 and (mark := next((mark for mark in ";\t|" if mark in columns[0]), None)):
        return f"the fields seem to be separated by {mark!r}: write the file with commas, or as .tsv with tabs"
    lower = {column.lower(): column for column in columns}
    parts = []
    for setting, column in missing.items():
        close = get_close_matches(column.lower(), lower, n=1, cutoff=0.5)
        do = f"did you mean {setting}={lower[close[0]]}?" if close else f"set {setting}"
        parts.append(f"no {column!r}: {do}")
    return "; ".join(parts)


def _check_rows(table: Table, good: int, bad: Sequence[Bad], part: str) -> None:
    if not good and not bad:
        raise DataError(f"{table.name}: no rows")
    if not good and all(row.reason == "missing label" for row in bad):
        do = "" if part == "train" else f"give a labelled {part} split, or set split.{part}=none to make one from train"
        raise DataError(f"{table.name}: no row has a label", found=f"{len(bad)} rows", do=do)


def _items(
    table: Table, part: str, columns: Columns, split: Split, reading: Reading
) -> Iterator[tuple[str, Example] | Bad | DataNote]:
    parts = _parts_by_name(split) if columns.split else {}
    for item in table.items:
        if not isinstance(item, Row):
            yield item
            continue
        try:
            where = _part(item.values.get(columns.split), parts) if columns.split else part
            example = reading.example(item, columns)
        except InvalidRow as unfit:
            yield Bad(unfit.reason, item.id, unfit.note)
            continue
        yield from reading.remarks(item, columns)
        if columns.group is not None and example.group is None:
            yield DataNote("no group: the row stands alone", 1, (item.id,))
        if where:
            yield where, example
        else:
            yield DataNote("ignored: rows of a split that the recipe calls `none`", 1, (item.id,))


def _parts_by_name(split: Split) -> dict[str, str]:
    """Part by lower-case name; an empty part for names that the recipe turned off."""
    names = {name.lower(): part for part, names in part_names(split).items() for name in names}
    off = [part for part, accepted in part_names(split).items() if not accepted]
    return {name: "" for part in off for name in (part, *OTHER_NAMES.get(part, ()))} | names


def _part(value: Any, parts: Mapping[str, str]) -> str:
    name = "" if value is None else str(value).strip()
    part = parts.get(name.lower())
    if part is None:
        raise InvalidRow("unknown name in split.column", shortened(name))
    return part


def name_labels(drafts: ParsedRows, *, strict: bool = True) -> Given:
    """Turn integer labels into names where names are known. `strict`: a label without a name is an error."""
    names = drafts.label_names
    if names is None:
        return drafts.given
    if len(set(names)) < len(names):
        raise DataError("data.label_names has a name twice", found=listed(names))
    rows = [row for part in drafts.given.values() for row in part]
    renamed = _names_by_label({row.label for row in rows if row.label is not None}, names)
    if strict:
        _refuse_unnamed([row for row in rows if row.label not in renamed], names)
    return {
        part: tuple(replace(row, label=renamed.get(row.label or "", row.label)) for row in part_rows)
        for part, part_rows in drafts.given.items()
    }


def _names_by_label(labels: set[str], names: tuple[str, ...]) -> dict[str, str]:
    """Labels are taken for names if all of them are, for indices if all of them are whole numbers."""
    indices = {label: _index(label) for label in labels}
    if labels <= set(names) or None in indices.values():
        return {label: label for label in labels if label in names}
    return {label: names[i] for label, i in indices.items() if i is not None and 0 <= i < len(names)}


def _index(label: str) -> int | None:
    whole = WHOLE.fullmatch(label)
    return int(whole[1]) if whole else TRUTH.get(label)


def _refuse_unnamed(rows: Sequence[Example], names: tuple[str, ...]) -> None:
    if rows:
        labels = dict.fromkeys(row.label or "" for row in rows)
        raise DataError(
            f"labels that data.label_names does not cover: {listed(map(shortened, labels))} "
            f"({len(rows)} rows: {listed((row.id for row in rows), FIRST)})",
            expected=f"{listed(names)}, or whole numbers from 0 to {len(names) - 1}",
            do="correct data.label_names or the labels",
        )


def check_labels(given: Given, *, making: bool) -> tuple[Given, list[Bad], list[DataNote]]:
    """Take out rows whose label cannot be learned: unseen in train, or on a single row where splits are to be made."""
    counts = Counter(row.label for row in given["train"])
    single = {label for label, count in counts.items() if count == 1 and label is not None}
    changes = []
    if single and not making:
        ids = tuple(row.id for row in given["train"] if row.label in single)
        changes.append(DataNote("label with a single example in train", len(single), ids[:FIRST]))
    known = set(counts) - single if making else set(counts)
    bad = [
        Bad(_unlearnable(part), row.id, shortened(row.label or ""))
        for part, rows in given.items()
        for row in rows
        if row.label not in known
    ]
    kept = {part: tuple(row for row in rows if row.label in known) for part, rows in given.items()}
    return kept, bad, [*changes, *_alike(known)]


def _unlearnable(part: str) -> str:
    return "label with a single example" if part == "train" else "label unseen in train"


def _alike(labels: Iterable[str | None]) -> Iterator[DataNote]:
    folded: dict[str, list[str]] = {}
    for label in sorted(label for label in labels if label is not None):
        folded.setdefault(" ".join(label.split()).casefold(), []).append(label)
    alike = [label for same in folded.values() if len(same) > 1 for label in same]
    if alike:
        yield DataNote(f"labels that differ only by case or spaces: {listed(map(shortened, alike))}", len(alike))


def label_order(rows: Iterable[Example], names: tuple[str, ...] | None) -> tuple[str, ...]:
    """Every label once: as label_names has them, else numbers by value, else in the order of the alphabet."""
    labels = {row.label for row in rows if row.label is not None}
    if names is not None:
        return tuple(name for name in names if name in labels)
    if all(INTEGER.fullmatch(label) for label in labels):
        return tuple(sorted(labels, key=lambda label: (int(label), label)))
    return tuple(sorted(labels))


def settle(bad: Sequence[Bad], policy: Literal["error", "drop"], total: int) -> list[DataNote]:
    """Stop and name the bad rows, or tell how many were left out."""
    reasons: dict[str, list[Bad]] = {}
    for row in bad:
        reasons.setdefault(row.reason, []).append(row)
    if policy == "drop" or not bad:
        return [DataNote(f"dropped: {reason}", len(rows), _ids(rows)) for reason, rows in reasons.items()]
    lines = [f"{reason}: {len(rows)} ({_places(rows)})" for reason, rows in reasons.items()]
    rows_of = f"{len(bad)} bad row{'s' if len(bad) > 1 else ''} of {total}"
    do = "mend these rows, or leave them out with data.on_bad_rows=drop"
    raise DataError("\n    ".join([rows_of, *lines]), do=do)


def _ids(rows: Sequence[Bad]) -> tuple[str, ...]:
    return tuple(row.id for row in rows[:FIRST])


def _places(rows: Sequence[Bad]) -> str:
    return listed((f"{row.id}: {row.note}" if row.note else row.id for row in rows), FIRST)
