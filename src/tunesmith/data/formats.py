"""Tables from files: csv, tsv, json, jsonl, parquet. A format is one function and one row in `FORMATS`."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from tunesmith.data.files import File, Text, check_expansion, decode, load
from tunesmith.data.rows import Item, RejectedRow, Row, Table, listed, no_rows, refuse_repeated
from tunesmith.errors import DataError
from tunesmith.types import DataNote

MANY_LINES = 20
"""Lines of a CSV file from which a row is named, as its quotes may be a mistake."""
LARGEST_FIELD = 2**31 - 1
DOUBLED_QUOTE = re.compile(r'(?:^|\t)"[^"\t\r\n]*""', re.MULTILINE)
Record = tuple[int, int, list[str]]
"""First line, last line and fields of a row; lines count from 1."""


def table(path: Path, name: str, encodings: str, wanted: Iterable[str] | None) -> Table:
    """Return the rows of one file. name: what ids and messages call the file."""
    suffix = format_of(path)
    if suffix is None:
        raise DataError(
            f"{name}: unknown file format",
            found=f"the name {path.name}",
            expected=f"{listed(FORMATS)}, each also with .gz",
            do="convert the file (unpack archives, save spreadsheets as CSV), or rename it if the name misleads",
        )
    columns = None if wanted is None else frozenset(wanted)
    return FORMATS[suffix](File(name, load(path, name), encodings, columns))


def format_of(path: Path) -> str | None:
    """Return `.csv` for `reviews.csv.gz`; None for a format that cannot be read."""
    name = path.name.lower().removesuffix(".gz")
    return next((suffix for suffix in FORMATS if name.endswith(suffix)), None)


def read_csv(file: File) -> Table:
    """Comma-separated values as RFC 4180 has them: quotes around a field, doubled quotes inside.

    Where the header has no comma but semicolons, tabs or bars, as spreadsheets of some languages write it, these
    separate the fields, with a note.
    """
    text = decode(file)
    header = next((line for line in text.lines() if line.strip()), "")
    delimiter = next((mark for mark in ",;\t|" if mark in header), ",")
    table = _table(text, _records(text, delimiter=delimiter, quoted=True))
    if delimiter == ",":
        return table
    note = DataNote(f"fields are separated by {delimiter!r} instead of commas", 1, (file.name,))
    return replace(table, items=chain([note], table.items))


def read_tsv(file: File) -> Table:
    """Tab-separated values. Quotes are plain characters unless the file is evidently quoted.

    GLUE's TSVs hold bare, unbalanced quotes that belong to the text; pandas quotes fields with tabs, line breaks or
    quotes in them. Quotes are markup if the header has them, or if the file is well-formed when read with quotes
    and either has fewer ragged rows that way, or doubles quotes within a quoted field.
    """
    text = decode(file)
    header = next((line for line in text.lines() if line.strip()), "")
    quoted = header.startswith('"') or '\t"' in header
    if not quoted and b'"' in text.content:
        try:
            ragged = _count_ragged(_records(text, delimiter="\t", quoted=True))
            plain = _count_ragged(_records(text, delimiter="\t", quoted=False))
            quoted = ragged < plain or DOUBLED_QUOTE.search(text.decoded()) is not None
        except DataError:  # broken when read with quotes
            quoted = False
    return _table(text, _records(text, delimiter="\t", quoted=quoted))


def _count_ragged(records: Iterator[Record]) -> int:
    widths = [len(fields) for _, _, fields in records if not _is_blank(fields)]
    return sum(width != widths[0] for width in widths)


def _records(text: Text, *, delimiter: str, quoted: bool) -> Iterator[Record]:
    csv.field_size_limit(LARGEST_FIELD)
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    reader = csv.reader(text.lines(), delimiter=delimiter, quoting=quoting, strict=True)
    start = 1
    try:
        for fields in reader:
            yield start, reader.line_num, fields
            start = reader.line_num + 1
    except csv.Error as error:
        unclosed = "end of data" in str(error)
        raise DataError(
            f"{text.name}:{start}: {'a quote is opened and never closed' if unclosed else 'broken quotes'}",
            expected="quotes around a whole field, doubled inside it",
            found=f"{error}, up to line {reader.line_num}",
            do="correct the line, or write the file again with a library such as pandas",
        ) from error


def _is_blank(fields: list[str]) -> bool:
    return not fields or (len(fields) == 1 and not fields[0].strip())


def _table(text: Text, records: Iterator[Record]) -> Table:
    start, header = next(((start, fields) for start, _, fields in records if not _is_blank(fields)), (1, []))
    if not header:
        raise no_rows(text.name)
    refuse_repeated(f"{text.name}:{start}", header)
    return Table(text.name, tuple(header), chain(text.notes, _rows(text.name, header, records)))


def _rows(name: str, header: list[str], records: Iterator[Record]) -> Iterator[Item]:
    width = len(header)
    unnamed = [place for place, column in enumerate(header) if not column][1:]
    for start, end, fields in records:
        if len(fields) == width and fields:
            yield Row(f"{name}:{start}", dict(zip(header, fields, strict=True)))
            if any(fields[place] for place in unnamed):
                yield DataNote("ignored: cells of a further column without a name", 1, (f"{name}:{start}",))
            if end - start >= MANY_LINES:
                what = f"rows of more than {MANY_LINES} lines; a stray pair of quotes joins lines to such a row"
                yield DataNote(what, 1, (f"{name}:{start}-{end}",))
        elif _is_blank(fields):
            yield DataNote("skipped: blank line", 1, (f"{name}:{start}",))
        else:
            note = f"{len(fields)} fields instead of {width}"
            yield RejectedRow("ragged row", f"{name}:{start}", note + (f", up to line {end}" if end > start else ""))


def read_json(file: File) -> Table:
    """An array of objects, or an object whose only list of objects is the table, as in `{"data": [...]}`."""
    text = decode(file)
    content = text.decoded()
    if not content.strip():
        raise no_rows(file.name)
    try:
        parsed = json.loads(content, object_pairs_hook=_object)
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
    """One JSON object a line."""
    text = decode(file)
    items = [_json_line(line, f"{file.name}:{number}") for number, line in enumerate(text.lines(), 1)]
    columns = dict.fromkeys(key for item in items if isinstance(item, Row) for key in item.values)
    if not columns and any(isinstance(item, RejectedRow) for item in items):
        first = next(item for item in items if isinstance(item, RejectedRow))
        raise _broken_json(first.id, f"{first.note}; no line holds a JSON object")
    return Table(file.name, tuple(columns), chain(text.notes, items))


def _broken_json(where: str, found: str) -> DataError:
    return DataError(
        f"{where}: broken JSON", expected="JSON objects", found=found, do="correct the file, or write it again"
    )


def _json_line(line: str, where: str) -> Item:
    if not line.strip():
        return DataNote("skipped: blank line", 1, (where,))
    try:
        row = json.loads(line, object_pairs_hook=_object)
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


def read_parquet(file: File) -> Table:
    """Parquet, column by column; rows count from 1."""
    import pyarrow
    import pyarrow.parquet

    try:
        schema = pyarrow.parquet.read_schema(pyarrow.BufferReader(file.content))
        # as a dictionary, a text takes memory once however many rows repeat it
        texts = [field.name for field in schema if pyarrow.types.is_string(field.type)]
        parquet = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(file.content), read_dictionary=texts)
        columns = tuple(schema.names)
    except (pyarrow.ArrowException, OSError) as error:
        raise _broken_parquet(file.name, error) from error
    refuse_repeated(file.name, columns)
    used = [column for column in columns if file.wanted is None or column in file.wanted]
    return Table(file.name, columns, _parquet_rows(file, parquet, used) if used else ())


def _parquet_rows(file: File, parquet: Any, used: list[str]) -> Iterator[Item]:
    import pyarrow
    import pyarrow.compute

    name, packed, unpacked, number = file.name, len(file.content), 0, 0
    rows = parquet.metadata.num_rows
    do = "write the rows again as CSV or JSON Lines, if you do want to read them"
    check_expansion(name, packed, rows * len(used), rows, do)
    try:
        for batch in parquet.iter_batches(batch_size=4096, columns=used):
            for place, column in enumerate(batch.columns):
                if pyarrow.types.is_dictionary(column.type) and pyarrow.types.is_string(column.dictionary.type):
                    lengths = pyarrow.compute.binary_length(column.dictionary).take(column.indices)
                    unpacked += pyarrow.compute.sum(lengths).as_py() or 0
                    check_expansion(name, packed, unpacked, rows, do)
                    batch = batch.set_column(place, batch.schema.names[place], column.dictionary_decode())
            for number, values in enumerate(batch.to_pylist(), number + 1):  # noqa: B020 - the count continues
                yield Row(f"{name}:row {number}", values)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _broken_parquet(f"{name}: after row {number}", error) from error


def _broken_parquet(name: str, error: Exception) -> DataError:
    found = str(error).split("\n")[0]
    return DataError(f"{name}: broken Parquet file", expected="Parquet", found=found, do="fetch or write it again")


FORMATS = {".csv": read_csv, ".tsv": read_tsv, ".jsonl": read_jsonl, ".json": read_json, ".parquet": read_parquet}
