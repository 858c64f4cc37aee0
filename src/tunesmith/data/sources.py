"""Where rows come from: files here and elsewhere, folders, databases, assets from PyPI, data sets on a hub."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from itertools import chain
from pathlib import Path

from tunesmith.data import databases, downloads, folders, formats, hub, shards
from tunesmith.data.cells import Values
from tunesmith.data.files import COMPRESSIONS
from tunesmith.data.rows import SPLITS, Row, Table, listed, split_names
from tunesmith.data.workbooks import split_sheet
from tunesmith.errors import DataError
from tunesmith.recipe import Data, Split
from tunesmith.recipe.data_settings import DATABASES
from tunesmith.types import DataNote

ASSET = "pypi:"


def tables(data: Data, split: Split, wanted: Iterable[str] | None) -> dict[str, Table]:
    """Return raw tables by split. A single table is called train, also where a column has the split of each row.

    wanted: the columns that will be read, None for all; the others are skipped where the format allows it.
    """
    by_setting = {name: source for name in ("path", *SPLITS) if (source := getattr(data, name))}
    for name, source in by_setting.items():
        _check_address(f"data.{name}", source, data)
    wanted = None if wanted is None else tuple(wanted)
    tables_by_split: dict[str, Table] = {}
    paths_by_split: dict[str, list[Path]] = {}
    for name, source in by_setting.items():
        if _is_database(source):
            tables_by_split |= _of_database(name, source, data)
        elif name == "path" and not _is_files(source):
            tables_by_split |= _one_source(source, data, split, wanted)
        else:
            paths_by_split["train" if name == "path" else name] = _files(name, source, data, split)
    if not by_setting:
        raise DataError(
            "no data", expected="a source of rows", found="no path", do="set data.path, or data.train and data.test"
        )
    _refuse_repeated(paths_by_split)
    names = short_names([path for paths in paths_by_split.values() for path in paths])
    for split_name, paths in paths_by_split.items():
        ids = [names[path] for path in paths]
        tables_by_split[split_name] = shards.table(paths, ids, data.encoding, wanted, data.delimiter)
    if data.sql is not None and not any(map(_is_database, by_setting.values())):
        name, table = next(iter(tables_by_split.items()))
        unused = DataNote("data.sql is not used: no source is a database", 1)
        tables_by_split[name] = replace(table, items=chain([unused], table.items))
    if split.column and len(tables_by_split) > 1:
        raise DataError(
            "split.column needs a single table",
            expected="one table that holds all splits",
            found=f"{len(tables_by_split)} tables: {listed(table.name for table in tables_by_split.values())}",
            do="leave out split.column, or give one file with data.path",
        )
    return {name: tables_by_split[name] for name in SPLITS if name in tables_by_split}


def _check_address(setting: str, source: str, data: Data) -> None:
    """Raise DataError, which does not repeat the address as it may hold a key, for one that cannot be read."""
    protocol = downloads.protocol_of(source)
    if protocol is None:
        return
    if _is_database(source):  # of which the recipe has no password
        if data.sql is None:
            raise DataError(
                f"{setting}: a database without a query",
                expected="data.sql",
                found=f"{protocol}://...",
                do='set it, for instance data.sql="SELECT text, label FROM reviews ORDER BY id"',
            )
        return
    user, mark, _ = source.partition("://")[2].partition("/")[0].rpartition("@")
    has_key = bool(mark) and (":" in user or protocol in downloads.WEB)
    if has_key or not downloads.is_fetched(source):
        raise DataError(
            f"{setting}: cannot fetch this kind of address",
            expected="a path, an address such as https://, s3://, gs://, abfs:// or hf://, without user and password, "
            "or that of a database, such as postgresql://",
            found=f"{protocol}://...",
            do="download the file, and give its path; keys belong in the environment",
        )


def _is_database(source: str) -> bool:
    protocol = downloads.protocol_of(source)
    return protocol is not None and protocol.partition("+")[0] in DATABASES


def _of_database(name: str, source: str, data: Data) -> dict[str, Table]:
    """Return the tables of queries: of one for `path` or a split, or of one for each split."""
    if isinstance(data.sql, str):
        split_name = "train" if name == "path" else name
        part = "" if split_name == "train" else split_name
        return {split_name: databases.table(source, data.sql, f"data.{name}", part)}
    queries = data.sql or {}
    if name != "path":
        queries = {name: queries[name]} if name in queries else {}
    if not queries:
        raise DataError(
            f"data.{name}: no query for it in data.sql",
            expected=f"a query for {name}",
            found=f"queries for {listed(data.sql or ())}",
            do=f"add one for {name}",
        )
    return {part: databases.table(source, query, f"data.{name}", part) for part, query in queries.items()}


def _is_files(source: str) -> bool:
    """Return whether a source is a file, several or an address of such: one table, without splits of its own."""
    path = split_sheet(Path(source))[0].expanduser()
    return downloads.protocol_of(source) is not None or path.is_file() or shards.is_pattern(source)


def _files(name: str, source: str, data: Data, split: Split) -> list[Path]:
    """Return the file of a source, or its shards."""
    setting = f"data.{name}"
    path = Path(source).expanduser()
    if downloads.protocol_of(source) is not None:
        paths = downloads.fetch_all(downloads.filled(source, setting), data.sha256 if name == "path" else None)
    elif shards.is_pattern(source):
        paths = shards.matches(source, setting)
    elif not split_sheet(path)[0].exists():
        raise _missing(setting, path)
    elif path.is_dir():
        paths = shards.within(path)
        if not paths:
            raise DataError(
                f"{path.name}: not a file",
                expected="a file with rows, or a folder of shards",
                found="a folder without data files",
                do="give the path of a file",
            )
    else:
        paths = [path]
    named = [split_name for split_name, names in split_names(split).items() if _some_are_of(paths, names)]
    if name == "path" and len(paths) > 1 and len(named) > 1:
        raise DataError(
            f"{setting}: files of several splits as one table",
            expected="shards of one table",
            found=f"files of {' and '.join(named)}: {listed(path.name for path in paths)}",
            do="give the folder, or a pattern for each split with data.train and data.test",
        )
    if name == "path" and data.sha256:
        if len(paths) > 1:
            do = "leave out data.sha256, or give one file"
            raise DataError(
                "data.sha256 is that of one file", expected="one file", found=f"{len(paths):,} files", do=do
            )
        downloads.check(split_sheet(paths[0])[0], data.sha256)
    return paths


def _some_are_of(paths: Iterable[Path], names: Sequence[str]) -> bool:
    """Return whether a file's name is that of a split, or of a shard of it."""
    return any({formats.stem_of(path), shards.split_of(formats.stem_of(path))} & {*names} for path in paths)


def _refuse_repeated(paths_by_split: dict[str, list[Path]]) -> None:
    places = [path.resolve() for paths in paths_by_split.values() for path in {*paths}]
    repeated = [path for path, count in Counter(places).items() if count > 1]
    if repeated:
        raise DataError(
            f"{repeated[0]}: one file given for two splits",
            expected="a file of its own for each split",
            found=listed(f"data.{name}={path}" for name, paths in paths_by_split.items() for path in paths),
            do="correct the paths, or leave a split out to have it made from train",
        )


def local_files(data: Data, split: Split) -> list[Path]:
    """Return all files of a source, fetched where they are elsewhere; none of a database, an asset or a hub."""
    files: set[Path] = set()
    for name, source in ((name, getattr(data, name)) for name in ("path", *SPLITS)):
        if source is None:
            continue
        _check_address(f"data.{name}", source, data)
        if _is_database(source):
            return []
        path = Path(source).expanduser()
        if path.is_dir():
            files.update(file for file in path.rglob("*") if file.is_file())
        elif name != "path" or _is_files(source):
            files.update(split_sheet(file)[0] for file in _files(name, source, data, split))
        else:
            return []
    return sorted(files)


def is_published(data: Data) -> bool:
    """Return whether rows that were read are those of an asset or of a data set on a hub, which others can have too."""
    path = data.path
    if path is None or downloads.protocol_of(path) is not None:
        return path is not None and path.startswith("hf://datasets/")
    return not _is_files(path) and not Path(path).expanduser().exists()


def all_values(data: Data) -> dict[str, Values]:
    """Return every column of every row of `data.path`, by the row's id."""
    tables_by_split = tables(data, Split(), None)
    return {item.id: item.values for table in tables_by_split.values() for item in table.items if isinstance(item, Row)}


def _one_source(source: str, data: Data, split: Split, wanted: Iterable[str] | None) -> dict[str, Table]:
    if source.startswith(ASSET):
        from tunesmith import assets

        asset = assets.fetch(source)
        untouched = data.encoding == Data.model_fields["encoding"].default
        encodings = asset.encoding if asset.encoding and untouched else data.encoding
        return _local(Path(asset.path), data, split, encodings, wanted)
    path = Path(source).expanduser()
    if path.exists():
        return _local(path, data, split, data.encoding, wanted)
    # a hub id is `name` or `owner/name`; anything else, or anything with a file's suffix, was meant as a path
    has_suffix = formats.format_of(Path(source)) is not None or source.endswith(tuple(COMPRESSIONS))
    if has_suffix or source.startswith((".", "/", "~")) or "\\" in source or source.count("/") > 1:
        raise _missing("data.path", path)
    return hub.tables(data, split, wanted)


def _local(path: Path, data: Data, split: Split, encodings: str, wanted: Iterable[str] | None) -> dict[str, Table]:
    if path.is_dir():
        return folders.tables(path, split, encodings, wanted, data.delimiter)
    return {"train": formats.table(path, path.name, encodings, wanted, data.delimiter)}


def short_names(paths: list[Path]) -> dict[Path, str]:
    """Return as few last parts of each path as distinguish them all."""
    for depth in range(1, max((len(path.parts) for path in paths), default=0) + 1):
        names = {path: "/".join(path.parts[-depth:]) for path in paths}
        if len(set(names.values())) == len(names):
            return names
    return {path: str(path) for path in paths}


def _missing(setting: str, path: Path) -> DataError:
    try:
        there = sorted(entry.name for entry in path.parent.iterdir())
        found = f"{len(there)} other names in {path.parent}"
    except OSError:
        there, found = [], f"no folder {path.parent}"
    close = get_close_matches(path.name, there, n=3, cutoff=0.6)
    do = f"did you mean {listed(str(path.parent / name) for name in close)}?" if close else "check the path"
    return DataError(f"{setting}: no such file: {path}", expected="a file or a folder", found=found, do=do)
