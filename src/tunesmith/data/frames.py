"""Tables in memory: pandas and polars frames, Arrow tables, `datasets.Dataset`, a list of dicts, a dict of lists.

They become a JSON Lines file, which every command reads: trainings are processes of their own, and a run that is
resumed needs its data again. Of these libraries none is imported that the user's data is not from.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunesmith import runs
from tunesmith.data.cells import PANDAS_MISSING, Values
from tunesmith.data.rows import refuse_repeated
from tunesmith.errors import DataError

TABLES = (
    "a pandas or polars DataFrame, an Arrow table, a datasets.Dataset, a list of rows (dicts), or a dict of columns "
    "(lists)"
)


def rows(table: Any) -> list[Values] | None:
    """Return the rows of a table in memory; None where it is no table."""
    if isinstance(table, Sequence) and not isinstance(table, str) and table:
        return list(table) if all(isinstance(row, Mapping) for row in table) else None
    if isinstance(table, Mapping):
        columns = {
            name: list(column)
            for name, column in table.items()
            if isinstance(column, (list, tuple)) or hasattr(column, "tolist")
        }
        if not columns or len(columns) < len(table) or len(set(map(len, columns.values()))) > 1:
            return None
        return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    libraries = _libraries(table)
    if "pandas" in libraries and hasattr(table, "iterrows"):
        refuse_repeated("the DataFrame", map(str, table.columns))
        return list(table.to_dict("records"))
    if "polars" in libraries:
        table = table.collect() if hasattr(table, "collect") else table  # a lazy one
        return list(table.to_dicts()) if hasattr(table, "to_dicts") else None
    if "pyarrow" in libraries and hasattr(table, "schema") and hasattr(table, "to_pylist"):
        refuse_repeated("the Arrow table", table.schema.names)
        return list(table.to_pylist())
    if "datasets" in libraries and hasattr(table, "features"):
        features = table.features or {}  # of data that is streamed, they may be unknown
        names = {column: feature.names for column, feature in features.items() if hasattr(feature, "names")}
        listed = list(table)
        for row in listed:
            for column, known in names.items():
                index = row[column]  # -1 is how the hub writes a missing label
                row[column] = None if index is None or index < 0 else known[index]
        return listed
    return None


def texts(values: Any) -> list[Any]:
    """Return one text, or pair of texts, for each row of a list, a series, an array or a table; a string is one text.

    Raises TypeError for anything else.
    """
    if isinstance(values, str):
        return [values]
    if (table := rows(values)) is not None:
        return [tuple(row.values()) for row in table]
    if isinstance(values, (bytes, Mapping)) or not isinstance(values, Iterable):
        raise TypeError(
            f"cannot read texts from {_described(values)}: expected a string, a list of strings, or {TABLES}"
        )
    return list(values.to_pylist() if hasattr(values, "to_pylist") else values)


def columns(table: Sequence[Values]) -> dict[str, list[Any]]:
    """Return rows as columns, with None where a row has no such cell."""
    return {name: [row.get(name) for row in table] for name in dict.fromkeys(name for row in table for name in row)}


def library_of(data: object) -> str:
    """Return which library's DataFrame answers data: `polars` for polars' own, else `pandas`."""
    return "polars" if "polars" in _libraries(data) else "pandas"


def index_of(data: Any, places: Sequence[int]) -> Any:
    """Return the index of these rows of a pandas DataFrame or Series; None for other data."""
    return data.index[list(places)] if "pandas" in _libraries(data) and hasattr(data, "index") else None


def data_frame(columns: Mapping[str, Sequence[Any]], library: str = "pandas", index: Any = None) -> Any:
    """Return columns as a DataFrame of `pandas`, with an index if that is given, or of `polars`.

    Raises DataError where the library is not installed.
    """
    try:
        frame = table_of(library, columns)
    except ModuleNotFoundError as error:
        do = f"pip install {library}"
        raise DataError("cannot make a DataFrame", expected=library, found="not installed", do=do) from error
    if index is not None:
        frame.index = index
    return frame


def _libraries(data: object) -> set[str]:
    """Return the libraries that the classes of an object are from."""
    return {kind.__module__.partition(".")[0] for kind in type(data).__mro__}


def table_of(library: str, columns: Mapping[str, Any]) -> Any:
    """Return columns as a DataFrame of `pandas` or `polars`."""
    return importlib.import_module(library).DataFrame(dict(columns))


def store(table: Iterable[Values], folder: Path) -> Path:
    """Write rows to `folder` as JSON Lines under a name that follows from their content; return the path."""
    lines = (json.dumps({str(key): _plain(cell) for key, cell in row.items()}, default=_plain) for row in table)
    content = "".join(f"{line}\n" for line in lines).encode()
    path = folder / f"frame-{hashlib.sha256(content).hexdigest()[:12]}.jsonl"
    return path if path.exists() else runs.write_whole(path, content)


def refuse(source: object) -> TypeError:
    """Return the error for what can be no data source."""
    return TypeError(f"cannot read data from {_described(source)}: expected a path, {TABLES}")


def _plain(cell: Any) -> Any:
    """Return a cell as JSON has it: numbers of numpy as Python's, missing values as null, dates as text."""
    if type(cell).__name__ in PANDAS_MISSING:
        return None
    if hasattr(cell, "tolist"):
        return cell.tolist()
    if isinstance(cell, bytes):
        do = "decode the column, as in `frame[column].str.decode('utf-8')`"
        raise DataError("a cell of the table holds bytes", expected="text", found=repr(cell[:40]), do=do)
    return cell if isinstance(cell, (str, int, float, bool, list, tuple, dict, type(None))) else str(cell)


def _described(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
