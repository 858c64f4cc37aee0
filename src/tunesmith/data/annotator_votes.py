"""The labels that several annotators gave to rows: a list in one column, a column an annotator, or votes by label."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from tunesmith.data import cells, sources
from tunesmith.data.cells import InvalidRow, Values
from tunesmith.data.examples import TRUTH, WHOLE
from tunesmith.data.rows import SHOWN, Columns, Row, listed, quoted
from tunesmith.errors import DataError
from tunesmith.recipe import Data, Split
from tunesmith.tasks.classification import SEPARATORS
from tunesmith.types import Example

Setting = str | Sequence[str] | Mapping[str, str] | None
"""`data.votes`."""
Votes = Mapping[str, int]
"""How many annotators gave each label; no label has 0."""


@dataclass(frozen=True)
class Annotations:
    """The votes on some rows."""

    votes: tuple[Votes | None, ...]
    """Of each row; None where nobody voted."""
    described: str
    """How the columns were read, for people."""


def columns(setting: Setting) -> tuple[str, ...]:
    """Return the columns that `data.votes` names."""
    if setting is None:
        return ()
    if isinstance(setting, str):
        return (setting,)
    return tuple(setting.values() if isinstance(setting, Mapping) else setting)


def read(data: Data, split: Split, rows: Sequence[Example], labels: Sequence[str]) -> Annotations:
    """Read the votes on rows that were read before, from the same source.

    Raises DataError for a column that is not there, and for a cell that holds neither labels nor a number of votes.
    """
    setting, wanted = data.votes, columns(data.votes)
    values = _values(data, split, wanted, {row.id for row in rows})
    if isinstance(setting, str):
        return Annotations(_each(rows, values, lambda row: _listed(row[setting], labels, data)), f"labels in {setting}")
    if isinstance(setting, Mapping):
        if unknown := [label for label in setting if label not in labels]:
            do = f"correct data.votes: {_near(unknown[0], labels)}"
            found = listed(map(quoted, unknown))
            raise DataError("labels in data.votes that the data lacks", expected=listed(labels), found=found, do=do)
        by_label = dict(setting)
    elif _are_counts(rows, values, wanted, labels):
        by_label = dict(zip(labels, wanted, strict=True))
    else:
        votes = _each(rows, values, lambda row: Counter(filter(None, (_label(row[c], labels, data) for c in wanted))))
        return Annotations(votes, f"a label by each annotator in {listed(wanted)}")
    votes = _each(rows, values, lambda row: {label: _count(row[column], column) for label, column in by_label.items()})
    pairs = (f"{column} for {label}" for label, column in by_label.items())
    return Annotations(votes, f"votes: {listed(pairs)}")


def _values(data: Data, split: Split, wanted: Sequence[str], ids: set[str]) -> dict[str, Values]:
    used = [*Columns.of(data, split).settings().values(), *wanted]
    values: dict[str, Values] = {}
    for table in sources.tables(data, split, used).values():
        rows = [item for item in table.items if isinstance(item, Row) and item.id in ids]
        if rows and (missing := [column for column in wanted if column not in table.columns]):
            raise DataError(
                f"{table.name}: no column {' and no column '.join(map(quoted, missing))}, which data.votes names",
                expected="columns of the data",
                found=f"the columns {listed(table.columns)}",
                do=f"correct data.votes: {_near(missing[0], table.columns)}",
            )
        values |= {row.id: row.values for row in rows}
    return values


def _near(name: str, known: Sequence[str]) -> str:
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else "see the names in the data"


def _each(
    rows: Sequence[Example], values: Mapping[str, Values], parse: Callable[[Values], Votes]
) -> tuple[Votes | None, ...]:
    votes: list[Votes | None] = []
    problems: list[str] = []
    for row in rows:
        try:
            counts = {label: count for label, count in parse(values[row.id]).items() if count}
        except InvalidRow as invalid:
            counts = {}
            problems.append(f"{row.id}: {invalid.reason} {invalid.note}".rstrip())
        votes.append(counts or None)
    if problems:
        raise DataError(
            f"{len(problems):,} rows with votes that cannot be read",
            expected="labels of the data, or a number of votes for each label",
            found=listed(problems, SHOWN),
            do="correct the cells or data.votes; for votes by label give data.votes='{LABEL: COLUMN, ...}'",
        )
    return tuple(votes)


def _are_counts(
    rows: Sequence[Example], values: Mapping[str, Values], wanted: Sequence[str], labels: Sequence[str]
) -> bool:
    """Return whether columns, as many as there are labels, hold the number of votes for each rather than labels.

    Labels that are numbers can be mistaken for counts. Counts they are where most rows have most votes for their label.
    """
    if len(wanted) != len(labels):
        return False
    place, agreeing = {label: k for k, label in enumerate(labels)}, 0
    for row in rows:
        try:
            counts = [_count(values[row.id][column], column) for column in wanted]
        except InvalidRow:
            return False
        agreeing += counts[place[row.label or labels[0]]] == max(counts) > 0
    return 2 * agreeing > len(rows)


def _count(value: object, column: str) -> int:
    if cells.is_null(value):
        return 0
    number = cells.number(value)
    if number < 0 or not number.is_integer():
        raise InvalidRow(f"no number of votes in column {column}", repr(str(value)[:40]))
    return int(number)


def _listed(value: object, labels: Sequence[str], data: Data) -> Votes:
    """Return the votes in a list, in JSON, or in a text around a separator."""
    if cells.is_null(value):
        return {}
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        value = _parsed(value)
    if isinstance(value, Mapping):
        return {_known(label, labels, data): _count(count, str(label)) for label, count in value.items()}
    if isinstance(value, str):
        separator = data.label_separator or next((mark for mark in SEPARATORS if mark in value), None)
        value = [part for part in value.split(separator) if part.strip()] if value not in labels else [value]
    items = value if isinstance(value, list | tuple) else [value]
    return Counter(filter(None, (_label(item, labels, data) for item in items)))


def _parsed(text: str) -> object:
    for written in (text, text.replace("'", '"')):  # as JSON, or as Python has it
        try:
            return json.loads(written)
        except ValueError:
            continue
    raise InvalidRow("a list that is not JSON", repr(text[:40]))


def _label(value: object, labels: Sequence[str], data: Data) -> str | None:
    return None if cells.is_null(value) else _known(value, labels, data)


def _known(value: object, labels: Sequence[str], data: Data) -> str:
    """Return the name of a label, of an index where the data has names. Raises InvalidRow for no label of the data."""
    name = cells.label(value)
    name = name if name in labels else name.strip()
    if name in labels:
        return name
    index = int(whole[1]) if (whole := WHOLE.fullmatch(name)) else TRUTH.get(name, -1)
    if data.label_names and 0 <= index < len(data.label_names):
        return data.label_names[index]
    raise InvalidRow("not a label of the data:", quoted(name))
