"""The rows of a source to predict, in their order and a chunk at a time: memory holds one chunk of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from tunesmith.data import conversations, example_table, examples, sources
from tunesmith.data.cells import InvalidRow
from tunesmith.data.dataset import LABELLED, TaskReader, naming
from tunesmith.data.rows import SPLITS, Columns, Item, RejectedRow, Row, Table, merge, no_rows
from tunesmith.errors import DataError
from tunesmith.recipe import Data, Split
from tunesmith.types import DataNote, Example

LocatedItem = tuple[Item, Columns]
"""What a table holds, and the columns of that table."""
AT_ONCE = 1 << 16
"""Rows of a chunk where a source is read as a whole; an error names all bad rows of a chunk."""


@dataclass(frozen=True, slots=True)
class RowChunk:
    """Neighbouring rows of a source."""

    number: int
    """Of the chunk, from 0."""
    rows: list[Row]
    """All rows but those that are dropped. A row that could not even be read has no values."""
    examples: list[Example]
    """Of the rows that can be predicted."""
    errors: dict[int, str]
    """Why the others cannot, by their place in `rows`."""
    notes: tuple[DataNote, ...]
    """What reading changed or noticed."""


class RowStream:
    """Reads a source once, from its test split where it has several. Labels and answers are kept and not required.

    wanted: the columns that will be read, None for all. Raises DataError where the source lacks one that it needs.
    """

    def __init__(self, data: Data, reader: TaskReader = LABELLED, wanted: Iterable[str] | None = None) -> None:
        self._data = data
        self._reader = reader.row_reader(data, Split(), False)
        tables = sources.tables(data, Split(), wanted)
        chosen = ["test"] if "test" in tables and len(tables) > 1 else [name for name in SPLITS if name in tables]
        self._tables = [(tables[name], self._reader.columns(tables[name])) for name in chosen]
        self._left_out = {name: table for name, table in tables.items() if name not in chosen}
        self.columns = tuple(dict.fromkeys(column for table, _ in self._tables for column in table.columns))
        """The columns of the source, as far as they are known before its rows are read."""
        self.count = 0
        """Rows read so far, rejected ones included."""
        names = data.label_names or Columns.of(data, Split()).indicators
        names = names or next((table.label_names for table in tables.values() if table.label_names), ())
        self._label_names = names if names and reader.names_labels else None

    def chunks(self, size: int, wanted: Callable[[int], bool] = lambda number: True) -> Iterator[RowChunk]:
        """Yield the chunks of `size` rows whose number is wanted; what the others hold is not looked at.

        Rows that cannot be predicted are handled by `data.on_bad_rows`. Raises DataError for them, for a source that is
        broken, and where all chunks are wanted and nothing can be predicted.
        """
        number = predicted = 0
        reasons: Counter[str] = Counter()
        for number, items in self._cut(size, wanted):
            chunk, rejected = self._chunk(number, items)
            reasons.update(row.reason for row in rejected)
            predicted += len(chunk.examples)
            yield chunk
        if not predicted and self._data.on_bad_rows == "drop" and all(map(wanted, range(number + 1))):
            found = ", ".join(f"dropped: {reason} {count}" for reason, count in reasons.items())
            do = "check the data and data.text"
            with naming(self._data):
                raise DataError("no rows are left to predict", expected="rows with a text", found=found, do=do)

    def with_label_names(self, read: Sequence[Example]) -> Sequence[Example]:
        """Return examples of the source with names instead of integer labels where names are known."""
        parsed = examples.ParsedRows({"test": read}, [], [], self._label_names)
        return examples.name_labels(parsed, strict=False)["test"]

    def _cut(self, size: int, wanted: Callable[[int], bool]) -> Iterator[tuple[int, list[LocatedItem]]]:
        """Yield number and items of each wanted chunk."""
        number = 0
        keep, items = wanted(0), list[LocatedItem]()
        for table, columns in self._tables:
            before = self.count
            for item in table.items:
                if keep:
                    items.append((item, columns))
                if isinstance(item, DataNote):
                    continue
                self.count += 1
                if self.count % size == 0:
                    if keep:
                        yield number, items
                    number += 1
                    keep, items = wanted(number), []
            if self.count == before:
                raise no_rows(table.name)
        if keep and self.count % size:
            yield number, items

    def _chunk(self, number: int, items: list[LocatedItem]) -> tuple[RowChunk, list[RejectedRow]]:
        """Return a chunk, and the rows in it that cannot be predicted."""
        rows: list[Row] = []
        read: list[Example] = []
        rejected: list[RejectedRow] = []
        errors: dict[int, str] = {}
        notes: list[DataNote] = []
        reader, policy = self._reader, self._data.on_bad_rows
        for item, columns in items:
            if isinstance(item, DataNote):
                notes.append(item)
                continue
            if isinstance(item, Row):
                try:
                    read.append(reader.example(item, columns))
                    notes.extend(reader.notes(item, columns))
                    rows.append(item)
                    continue
                except InvalidRow as invalid:
                    row, rejection = item, RejectedRow(invalid.reason, item.id, invalid.note)
            else:
                row, rejection = Row(item.id, {}), item
            rejected.append(rejection)
            if policy == "keep":
                errors[len(rows)] = ": ".join(filter(None, (rejection.reason, rejection.note)))
                rows.append(row)
        if policy == "keep":
            notes += [DataNote(f"not predicted: {row.reason}", 1, (row.id,)) for row in rejected]
        else:
            with naming(self._data):
                notes += examples.handle_rejected(rejected, policy, self.count)
        if number == 0:
            notes += [_left_out(name, table) for name, table in self._left_out.items()]
        return RowChunk(number, rows, read, errors, merge(notes)), rejected


def read_unlabelled(data: Data, reader: TaskReader = LABELLED) -> tuple[Sequence[Example], tuple[DataNote, ...]]:
    """Read all rows to predict from `data.path`. Labels and answers are kept where there are any."""
    stream = RowStream(data, reader, [*reader.columns(data, Split()), data.text, *conversations.COLUMNS])
    read, notes = example_table.Collector(), tuple[DataNote, ...]()
    for chunk in stream.chunks(AT_ONCE):
        for example in chunk.examples:
            read.append(example)
        notes = merge([*notes, *chunk.notes])
    return stream.with_label_names(read.rows()), notes


def _left_out(name: str, table: Table) -> DataNote:
    count = sum(isinstance(item, Row) for item in table.items)
    return DataNote(f"left out: rows of {name}, as the source has a test split", count)
