"""Data in memory where a command expects a recipe or a path."""

from __future__ import annotations

import codecs
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunesmith import disk, recipe as recipes
from tunesmith.data import files, frames
from tunesmith.data.cells import Values
from tunesmith.data.rows import SPLITS
from tunesmith.recipe import Recipe, Source
from tunesmith.recipe.aliases import ALIASES
from tunesmith.runs import Run

STDIN = "-"
LOOKED_AT = 1 << 20
SUFFIXES = {b"{": ".jsonl", b"[": ".json", b"PAR1": ".parquet"}
"""How files begin that are no CSV."""
FOLDER = "data"
"""Where tables lie that runs were trained on, in `output_dir`."""


def rows(value: Any) -> list[Values] | None:
    """Return the rows of a table; None where it is none, or a list of recipes."""
    listed = value if isinstance(value, Sequence) and not isinstance(value, str) else ()
    if any(isinstance(row, Mapping) and not row.keys().isdisjoint([*Recipe.model_fields, *ALIASES]) for row in listed):
        return None
    return frames.rows(value)


def data_folder(settings: Mapping[str, Any], overrides: Sequence[str]) -> Path:
    """Return the folder in `output_dir` where the tables of runs with these settings lie."""
    chosen = [override for override in overrides if override.startswith("output_dir=")]
    return Path(recipes.load({"output_dir": settings.get("output_dir", "runs")}, chosen).output_dir) / FOLDER


def recipe_source(source: Any, overrides: Sequence[str] = ()) -> Source:
    """Return a recipe, with the tables in it written to `output_dir`, where they stay for as long as the run.

    source: a recipe or a path, which are returned as they are; a run, for its path; a table; a `datasets.DatasetDict`;
    or settings with a table in `data`, `data.path`, `data.train`, `data.validation` or `data.test`. Raises TypeError
    for anything else.
    """
    if isinstance(source, Run):
        return source.path
    if isinstance(source, (str, Path, Recipe)):
        return source
    settings = source if isinstance(source, Mapping) else {}
    folder = data_folder(settings, overrides)

    def stored(value: Any) -> Any:
        table = frames.rows(value)
        return value if table is None else str(frames.store(table, folder))

    if (table := rows(source)) is not None:
        return {"data": {"path": str(frames.store(table, folder))}}
    if not isinstance(source, Mapping):
        raise frames.refuse(source)
    if source and source.keys() <= set(SPLITS):
        return {"data": {name: stored(table) for name, table in source.items()}}
    data = source.get("data")
    if isinstance(data, Mapping):
        data = {name: stored(value) for name, value in data.items()}
    elif frames.rows(data) is not None:
        data = {"path": stored(data)}
    return {**source, **({} if data is None else {"data": data})}


def kept_source(source: Any) -> str:
    """Return a path, name or address as it is, and of a run its path; tables are written beside those of trainings.

    Raises TypeError for anything else.
    """
    if isinstance(source, (str, Path, Run)):
        return str(source.path if isinstance(source, Run) else source)
    table = frames.rows(source)
    if table is None:
        raise frames.refuse(source)
    return str(frames.store(table, Path("runs") / FOLDER))


def kept_path(source: Any) -> Path:
    """Return the path of a file, or of a table that is written as by `kept_source`. Raises TypeError."""
    return Path(kept_source(source)).expanduser()


def _stored_stdin(folder: Path) -> Path:
    """Write what comes through stdin to a file, whose name says what the content begins like."""
    path = folder / "stdin"
    with disk.explained("store the rows of stdin in", folder), path.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file, LOOKED_AT)
    with files.File(path, "stdin").open() as stream:
        begin = stream.read(LOOKED_AT).removeprefix(codecs.BOM_UTF8).lstrip()
    suffix = next((suffix for mark, suffix in SUFFIXES.items() if begin.startswith(mark)), ".csv")
    return path.rename(path.with_suffix(suffix))


@contextmanager
def as_path(source: Any) -> Iterator[str]:
    """Give a source as a path; a table, or what comes through stdin for `-`, is written to a temporary file.

    Raises TypeError for anything else.
    """
    if isinstance(source, str) and source == STDIN:
        with tempfile.TemporaryDirectory() as folder:
            yield str(_stored_stdin(Path(folder)))
        return
    if isinstance(source, (str, Path)):
        yield str(source)
        return
    table = frames.rows(source)
    if table is None:
        raise frames.refuse(source)
    with tempfile.TemporaryDirectory() as folder:
        yield str(frames.store(table, Path(folder)))
