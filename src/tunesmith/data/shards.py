"""One table in several files: patterns such as `data/*.parquet`, and folders of shards."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tunesmith.data import formats
from tunesmith.data.rows import Item, Table, listed
from tunesmith.errors import DataError

WILDCARD = re.compile(r"[*?\[]")
WITHOUT_HEADER = (".json", ".jsonl")
"""Formats whose rows bring their columns, so that a shard may lack one."""
NUMBERED = re.compile(r"(.+?)[-_.]\d+([-_.]of[-_.]\d+)?(-[0-9a-f]{16})?")
"""The name of a shard without its suffix, as in `train-00000-of-00004`; `datasets` once added a hash."""


def is_pattern(path: str) -> bool:
    """Return whether a path is a pattern: it has wildcards, and no file has this name."""
    return WILDCARD.search(path) is not None and not Path(path).expanduser().exists()


def matches(pattern: str, setting: str) -> list[Path]:
    """Return the files that match a pattern, by name; `**` stands for any folders. Raises DataError for none."""
    paths = sorted(map(Path, glob.glob(str(Path(pattern).expanduser()), recursive=True)))
    files = [path for path in paths if path.is_file()]
    if not files:
        raise DataError(
            f"{setting}: no file matches {pattern}",
            expected="a pattern that at least one file matches",
            found=f"{len(paths)} folders" if paths else "nothing",
            do="check the pattern, and the folder that it begins with",
        )
    return files


def within(folder: Path) -> list[Path]:
    """Return the data files of a folder, by name; names that begin with a dot or `_` are not data, as in Spark."""
    entries = sorted(entry for entry in folder.iterdir() if entry.name[0] not in "._")
    return [entry for entry in entries if entry.is_file() and formats.format_of(entry)]


def split_of(stem: str) -> str:
    """Return `train` for the shard `train-00000-of-00004`, and for `train` itself."""
    numbered = NUMBERED.fullmatch(stem)
    return numbered[1] if numbered else stem


def table(
    paths: Sequence[Path], names: Sequence[str], encodings: str, wanted: Iterable[str] | None, delimiter: str
) -> Table:
    """Return the rows of all shards, in their order, as one table. names: what ids and messages call each.

    Raises DataError where they differ in format, or in columns.
    """
    if len(paths) == 1:
        return formats.table(paths[0], names[0], encodings, wanted, delimiter)
    kinds = [formats.format_of(path) for path in paths]
    if other := next((place for place, kind in enumerate(kinds) if kind != kinds[0]), None):
        raise DataError(
            f"{names[other]}: a shard of another format",
            expected=f"shards of one format, {kinds[0]} as {names[0]}",
            found=kinds[other] or f"the name {paths[other].name}",
            do="give a pattern that leaves out what is no shard, such as data/*.parquet",
        )
    wanted = None if wanted is None else tuple(wanted)
    tables = [formats.table(path, name, encodings, wanted, delimiter) for path, name in zip(paths, names, strict=True)]
    columns = tuple(dict.fromkeys(column for shard in tables for column in shard.columns))
    if kinds[0] not in WITHOUT_HEADER:
        _check_columns(tables)
    return Table(f"{names[0]} and {len(names) - 1:,} more", columns, _items(tables))


def _check_columns(tables: Sequence[Table]) -> None:
    first = tables[0]
    for shard in tables[1:]:
        lacking = [column for column in first.columns if column not in shard.columns]
        further = [column for column in shard.columns if column not in first.columns]
        if lacking or further:
            differences = [f"no column {listed(map(repr, lacking))}"] if lacking else []
            differences += [f"also {listed(map(repr, further))}"] if further else []
            raise DataError(
                f"{shard.name}: a shard with other columns",
                expected=f"the columns of {first.name}: {listed(first.columns)}",
                found="; ".join(differences),
                do="write the shards with the same columns, or leave this one out",
            )


def _items(tables: Iterable[Table]) -> Iterator[Item]:
    for shard in tables:
        yield from shard.items
