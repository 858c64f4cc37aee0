"""Rows as the bytes of CSV, JSON Lines and Parquet files, a chunk at a time. A format is one class and one row here."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tunesmith.console import printable
from tunesmith.data import spreadsheets
from tunesmith.data.cells import Values
from tunesmith.data.rows import listed, quoted
from tunesmith.errors import DataError

encode_json = json.JSONEncoder(ensure_ascii=False, default=str).encode
ColumnTypes = Mapping[str, Any]
"""The type of a column by its name: that of pyarrow, or one of Python's."""


class RowEncoder(Protocol):
    """Turns the rows of a file into its bytes."""

    formulas: int
    """Cells so far that were marked because a spreadsheet would run them."""

    def encode(self, rows: Sequence[Values]) -> bytes:
        """Return the next bytes of the file. Raises DataError for rows that do not fit the file's columns."""

    def finish(self) -> bytes:
        """Return the last bytes of the file."""


class JsonLinesEncoder:
    """One object a line, with the columns that the row has."""

    formulas = 0

    def encode(self, rows: Sequence[Values]) -> bytes:
        return printable("".join([f"{encode_json(row)}\n" for row in rows])).encode()

    def finish(self) -> bytes:
        return b""


class CsvEncoder:
    """A header and a line for each row; lists and objects are JSON.

    A cell that a spreadsheet would run as a formula gets a `'` before it, unless keep_formulas leaves it as it is.
    Numbers such as -1.5 are none.
    """

    def __init__(self, columns: Sequence[str], keep_formulas: bool = False) -> None:
        self._columns, self._keep_formulas = columns, keep_formulas
        self._begun = False
        self.formulas = 0

    def encode(self, rows: Sequence[Values]) -> bytes:
        check_columns(rows, self._columns)
        lines: list[list[Any]] = [] if self._begun else [list(self._columns)]
        lines += [[_cell(row.get(name)) for name in self._columns] for row in rows]
        self._begun = True
        if not self._keep_formulas:
            formulas = [
                (line, place) for line in lines for place, cell in enumerate(line) if spreadsheets.is_formula(cell)
            ]
            self.formulas += len(formulas)
            for line, place in formulas:
                line[place] = spreadsheets.escape(line[place])
        out = io.StringIO()
        csv.writer(out).writerows(lines)
        return out.getvalue().encode(errors="backslashreplace")

    def finish(self) -> bytes:
        return b"" if self._begun else self.encode([])


def _cell(value: object) -> object:
    return encode_json(value) if isinstance(value, (list, dict)) else value


class ParquetEncoder:
    """Typed columns, one row group for each chunk. Where the column is text, other values become JSON."""

    formulas = 0

    def __init__(self, types: ColumnTypes) -> None:
        import pyarrow
        import pyarrow.parquet

        self._schema = pyarrow.schema(list(types.items()))
        self._bytes = _Sink()
        self._writer = pyarrow.parquet.ParquetWriter(pyarrow.PythonFile(self._bytes, mode="w"), self._schema)

    def encode(self, rows: Sequence[Values]) -> bytes:
        import pyarrow

        check_columns(rows, self._schema.names)
        arrays = [_array([row.get(field.name) for row in rows], field.name, field.type) for field in self._schema]
        self._writer.write_table(pyarrow.table(arrays, schema=self._schema))
        return self._bytes.take()

    def finish(self) -> bytes:
        self._writer.close()
        return self._bytes.take()


class _Sink(io.RawIOBase):
    """A file of which the bytes are taken as they come."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []
        self._place = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self._pieces.append(piece)
        self._place += len(piece)
        return len(piece)

    def tell(self) -> int:
        return self._place

    def take(self) -> bytes:
        taken, self._pieces = b"".join(self._pieces), []
        return taken


def column_types(columns: Sequence[str], rows: Sequence[Values], declared: ColumnTypes) -> dict[str, Any]:
    """Return pyarrow's type of each column: the declared one, else that of its values in these rows.

    Columns of mixed values, of objects or lists, and without any value are text.
    """
    import pyarrow

    named = {str: pyarrow.string(), float: pyarrow.float64(), int: pyarrow.int64(), bool: pyarrow.bool_()}
    named[list] = pyarrow.list_(pyarrow.string())
    types = {}
    for name in columns:
        if name in declared:
            types[name] = named.get(declared[name], declared[name])
            continue
        try:
            kind = pyarrow.array([row.get(name) for row in rows]).type
        except (pyarrow.ArrowException, OverflowError, UnicodeEncodeError):
            kind = pyarrow.string()
        is_text = pyarrow.types.is_nested(kind) or pyarrow.types.is_null(kind)
        types[name] = pyarrow.string() if is_text else kind
    return types


def parquet_types(path: Path) -> dict[str, Any]:
    """Return the types of the columns of a Parquet file; none of any other source."""
    if not (path.is_file() and path.name.lower().endswith(".parquet")):
        return {}
    import pyarrow.parquet

    schema = pyarrow.parquet.read_schema(path)
    return dict(zip(schema.names, schema.types, strict=True))


def _array(values: list[Any], name: str, kind: Any) -> Any:
    """Return values as an array of a type. Raises DataError for the first that does not fit."""
    import pyarrow

    failures = (pyarrow.ArrowException, OverflowError, UnicodeEncodeError)
    try:
        return pyarrow.array(values, kind)
    except failures:
        if pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind):
            return pyarrow.array([None if value is None else _text(value) for value in values], kind)
    for value in values:
        try:
            pyarrow.array([value], kind)
        except failures as error:
            raise DataError(
                f"cannot write column {quoted(name)} as Parquet",
                expected=f"{kind} in every row, as in the first ones",
                found=quoted(str(value)),
                do="write .csv or .jsonl, which hold any values, or make the column uniform",
            ) from error
    return pyarrow.array(values, kind)


def _text(value: object) -> str:
    return (value if isinstance(value, str) else encode_json(value)).encode(errors="backslashreplace").decode()


def check_columns(rows: Sequence[Values], columns: Sequence[str]) -> None:
    """Raise DataError for a row with a column that the file does not have."""
    known = {*columns}
    if all(row.keys() <= known for row in rows):
        return
    row = next(row for row in rows if not row.keys() <= known)
    raise DataError(
        f"row {row.get('id')} has columns that the first rows lack",
        expected=listed(columns),
        found=listed(sorted({*map(str, row)} - known)),
        do="write .jsonl, where every row has its own columns",
    )


FORMATS: dict[str, Callable[[Sequence[str], ColumnTypes, bool], RowEncoder]] = {
    "parquet": lambda columns, types, keep_formulas: ParquetEncoder(types),
    "csv": lambda columns, types, keep_formulas: CsvEncoder(columns, keep_formulas),
    "jsonl": lambda columns, types, keep_formulas: JsonLinesEncoder(),
}
"""What makes the encoder of a format, from the columns, their types (of Parquet), and whether formulas are kept."""
