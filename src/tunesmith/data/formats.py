"""Tables from files: csv, tsv, json, jsonl, parquet, xlsx. A format is one function and one row in `FORMATS`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from tunesmith.data.delimited import read_csv, read_tsv
from tunesmith.data.files import COMPRESSIONS, PIECE, File, Text, check_expansion, decode, without_compression
from tunesmith.data.rows import Item, RejectedRow, Row, Table, listed, no_rows, refuse_repeated
from tunesmith.data.workbooks import read_xlsx, split_sheet
from tunesmith.errors import DataError
from tunesmith.types import DataNote

AS_TEXT = "write the rows again as CSV or JSON Lines, if you do want to read them"
BATCH = 4096
"""Rows of a Parquet file that are in memory at a time, at most."""
UNPACKED_BATCH = 64 * 2**20
"""Bytes that repeated texts in them may take."""


def table(path: Path, name: str, encodings: str, wanted: Iterable[str] | None, delimiter: str = "auto") -> Table:
    """Return the rows of one file. name: what ids and messages call the file. delimiter: of fields in a CSV file."""
    suffix = format_of(path)
    if suffix is None:
        raise DataError(
            f"{name}: unknown file format",
            found=f"the name {path.name}",
            expected=f"{listed(FORMATS)}, each also with {listed(COMPRESSIONS)}",
            do="convert the file (unpack archives, save other spreadsheets as CSV), or rename it if the name misleads",
        )
    columns = None if wanted is None else frozenset(wanted)
    path, sheet = split_sheet(path)
    return FORMATS[suffix](File(path, name, encodings, columns, delimiter, sheet))


def format_of(path: Path) -> str | None:
    """Return `.csv` for `reviews.csv.gz`; None for a format that cannot be read."""
    name = without_compression(split_sheet(path)[0].name)
    return next((suffix for suffix in FORMATS if name.endswith(suffix)), None)


def stem_of(path: Path) -> str:
    """Return `train` for `train.csv.gz`, and for a folder of that name."""
    suffix = None if path.is_dir() else format_of(path)
    return path.name if suffix is None else without_compression(path.name).removesuffix(suffix)


def read_json(file: File) -> Table:
    """An array of objects, or an object whose only list of objects is the table, as in `{"data": [...]}`."""
    text = decode(file)
    content = text.decoded()
    if not content.strip():
        raise no_rows(file.name)
    try:
        parsed = DECODER.decode(content)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and content.lstrip().startswith("{"):
            return read_jsonl(file)  # one object a line, under the wrong name
        found = f"{error.msg} (line {error.lineno}, column {error.colno})"
        raise _broken_json(f"{file.name}:{error.lineno}:{error.colno}", found) from error
    except (ValueError, RecursionError) as error:
        raise _broken_json(file.name, str(error)) from error
    lists = [parsed]
    if not isinstance(parsed, list):
        values = parsed.values() if isinstance(parsed, dict) else ()
        lists = [value for value in values if isinstance(value, list)]
        lists = [rows for rows in lists if not rows or any(isinstance(row, dict) for row in rows)]
    if len(lists) != 1:
        raise DataError(
            f"{file.name}: no table in this JSON",
            expected="an array of objects, or an object with exactly one such array",
            found=f"an object with {len(lists)} such arrays" if isinstance(parsed, dict) else type(parsed).__name__,
            do="write the rows as JSON Lines, one object a line, or leave the other arrays out",
        )
    rows = lists[0]
    columns = dict.fromkeys(key for row in rows if isinstance(row, dict) for key in row)
    items = (
        Row(f"{file.name}:row {number}", row)
        if isinstance(row, dict)
        else RejectedRow("row that is not an object", f"{file.name}:row {number}", type(row).__name__)
        for number, row in enumerate(rows, 1)
    )
    return Table(file.name, tuple(columns), chain(text.notes, items))


def read_jsonl(file: File) -> Table:
    """One JSON object a line. The lines are read twice: any of them may bring a column."""
    text = decode(file)
    columns: dict[str, None] = {}
    first_rejected: RejectedRow | None = None
    for item in _json_lines(text):
        if isinstance(item, Row):
            if not item.values.keys() <= columns.keys():
                columns |= dict.fromkeys(item.values)
        elif isinstance(item, RejectedRow) and first_rejected is None:
            first_rejected = item
    if not columns and first_rejected is not None:
        raise _broken_json(first_rejected.id, f"{first_rejected.note}; no line holds a JSON object")
    return Table(file.name, tuple(columns), chain(text.notes, _json_lines(text)))


def _json_lines(text: Text) -> Iterator[Item]:
    return (_json_line(line, f"{text.name}:{number}") for number, line in enumerate(text.lines(), 1))


def _broken_json(where: str, found: str) -> DataError:
    return DataError(
        f"{where}: broken JSON", expected="JSON objects", found=found, do="correct the file, or write it again"
    )


def _json_line(line: str, where: str) -> Item:
    if not line.strip():
        return DataNote("skipped: blank line", 1, (where,))
    try:
        row = DECODER.decode(line)
    except json.JSONDecodeError as error:
        return RejectedRow("broken JSON line", where, f"{error.msg}, column {error.colno}")
    except (ValueError, RecursionError) as error:
        return RejectedRow("broken JSON line", where, str(error))
    return Row(where, row) if isinstance(row, dict) else RejectedRow("broken JSON line", where, "not an object")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice!r} is there more than once")
    return values


DECODER = json.JSONDecoder(object_pairs_hook=_object)


def read_parquet(file: File) -> Table:
    """Parquet, column by column; rows count from 1."""
    with _parquet(file) as (parquet, _):
        columns = tuple(parquet.schema_arrow.names)
        rows = parquet.metadata.num_rows
    refuse_repeated(file.name, columns)
    used = [column for column in columns if file.wanted is None or column in file.wanted]
    check_expansion(file.name, file.size, rows * len(used), rows, AS_TEXT)
    return Table(file.name, columns, _parquet_rows(file, used) if used else ())


@contextmanager
def _parquet(file: File) -> Iterator[tuple[Any, Any]]:
    """Open a Parquet file, and once more so that its texts come as dictionaries where they are stored so."""
    import pyarrow
    import pyarrow.parquet

    try:
        with file.open_seekable() as stream:
            plain = pyarrow.parquet.ParquetFile(stream, pre_buffer=False, buffer_size=PIECE)
            texts = [field.name for field in plain.schema_arrow if pyarrow.types.is_string(field.type)]
            yield plain, pyarrow.parquet.ParquetFile(stream, read_dictionary=texts, pre_buffer=False, buffer_size=PIECE)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _broken_parquet(file.name, error) from error


def _parquet_rows(file: File, used: list[str]) -> Iterator[Item]:
    import pyarrow

    unpacked, number = 0, 0
    with _parquet(file) as (parquet, dictionaries):
        rows = parquet.metadata.num_rows
        batches = _batches(parquet, dictionaries, used)
        while True:
            try:
                if (batch := next(batches, None)) is None:
                    break
                unpacked += sum(_text_bytes(column, "sum") for column in batch.columns)
                check_expansion(file.name, file.size, unpacked, rows, AS_TEXT)
                columns = [column.to_pylist() for column in batch.columns]
            except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
                raise _broken_parquet(f"{file.name}: after row {number}", error) from error
            for number, cells in enumerate(zip(*columns, strict=True), number + 1):  # noqa: B020 - the count continues
                yield Row(f"{file.name}:row {number}", dict(zip(batch.schema.names, cells, strict=True)))


def _batches(parquet: Any, dictionaries: Any, used: list[str]) -> Iterator[Any]:
    """Iterate over parts of the row groups, of fewer rows where one long text may be repeated many times.

    A text takes a few bytes of the file for each repetition, but all of its own in memory.
    """
    for group in range(parquet.num_row_groups):
        first = next(dictionaries.iter_batches(batch_size=1, row_groups=[group], columns=used), None)
        longest = max((_text_bytes(column, "max") for column in first.columns), default=0) if first else 0
        size = min(BATCH, max(1, UNPACKED_BATCH // (longest + 1)))
        yield from parquet.iter_batches(batch_size=size, row_groups=[group], columns=used)


def _text_bytes(column: Any, aggregate: str) -> int:
    """Return the `sum` or `max` of the bytes of a column's texts, or of its dictionary's; 0 of other columns."""
    import pyarrow
    import pyarrow.compute

    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary
    if not pyarrow.types.is_string(column.type):
        return 0
    return getattr(pyarrow.compute, aggregate)(pyarrow.compute.binary_length(column)).as_py() or 0


def _broken_parquet(name: str, error: Exception) -> DataError:
    found = str(error).split("\n")[0]
    return DataError(f"{name}: broken Parquet file", expected="Parquet", found=found, do="fetch or write it again")


FORMATS = {
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".jsonl": read_jsonl,
    ".json": read_json,
    ".parquet": read_parquet,
    ".xlsx": read_xlsx,
}
