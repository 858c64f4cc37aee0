"""Where rows come from: files, folders, assets from PyPI, data sets on a hub."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from tunesmith.data import downloads, folders, formats, hub
from tunesmith.data.cells import Values
from tunesmith.data.rows import SPLITS, Row, Table, listed
from tunesmith.errors import DataError
from tunesmith.recipe import Data, Split

ASSET = "pypi:"
SCHEMES = ("http://", "https://")


def tables(data: Data, split: Split, wanted: Iterable[str] | None) -> dict[str, Table]:
    """Return raw tables by split. A single table is called train, also where a column has the split of each row.

    wanted: the columns that will be read, None for all; the others are skipped where the format allows it.
    """
    for name in ("path", *SPLITS):
        scheme, mark, rest = (getattr(data, name) or "").partition("://")
        if mark and (f"{scheme}://" not in SCHEMES or "@" in rest.partition("/")[0]):
            raise DataError(  # which does not repeat the address: it may hold a key
                f"data.{name}: cannot fetch this kind of address",
                expected=f"a path, or an address that begins with {' or '.join(SCHEMES)}, without user and password",
                found=f"{scheme}://...",
                do="download the file, and give its path",
            )
    addresses = {name: url for name in ("path", *SPLITS) if (url := getattr(data, name) or "").startswith(SCHEMES)}
    data = data.model_copy(update={name: str(downloads.fetch(url, data.sha256)) for name, url in addresses.items()})
    if data.path and Path(data.path).expanduser().is_file():
        path = Path(data.path).expanduser()
        if data.sha256 and (found := downloads.digest(path)) != data.sha256.lower():
            do = "use the file that the recipe was written for, or correct data.sha256"
            raise DataError(f"{path}: not the file that data.sha256 names", expected=data.sha256, found=found, do=do)
        data = data.model_copy(update={"path": None, "train": data.path})
    tables_by_split = {} if data.train else _one_source(data, split, wanted)
    paths = {split_name: Path(source).expanduser() for split_name in SPLITS if (source := getattr(data, split_name))}
    for split_name, path in paths.items():
        if not path.exists():
            raise _missing(f"data.{split_name}", path)
    repeated = [path for path, count in Counter(path.resolve() for path in paths.values()).items() if count > 1]
    if repeated:
        raise DataError(
            f"{repeated[0]}: one file given for two splits",
            expected="a file of its own for each split",
            found=listed(f"data.{name}={path}" for name, path in paths.items()),
            do="correct the paths, or leave a split out to have it made from train",
        )
    names = short_names(list(paths.values()))
    for split_name, path in paths.items():
        tables_by_split[split_name] = formats.table(path, names[path], data.encoding, wanted)
    if split.column and len(tables_by_split) > 1:
        raise DataError(
            "split.column needs a single table",
            expected="one table that holds all splits",
            found=f"{len(tables_by_split)} tables: {listed(table.name for table in tables_by_split.values())}",
            do="leave out split.column, or give one file with data.path",
        )
    return tables_by_split


def is_published(data: Data) -> bool:
    """Return whether rows that were read are those of an asset or of a data set on a hub, which others can have too."""
    path = data.path
    return path is not None and not path.startswith(SCHEMES) and not Path(path).expanduser().exists()


def all_values(data: Data) -> dict[str, Values]:
    """Return every column of every row of `data.path`, by the row's id."""
    tables_by_split = tables(data, Split(), None)
    return {item.id: item.values for table in tables_by_split.values() for item in table.items if isinstance(item, Row)}


def _one_source(data: Data, split: Split, wanted: Iterable[str] | None) -> dict[str, Table]:
    source = data.path
    if not source:
        raise DataError(
            "no data", expected="a source of rows", found="no path", do="set data.path, or data.train and data.test"
        )
    if source.startswith(ASSET):
        from tunesmith import assets

        asset = assets.fetch(source)
        untouched = data.encoding == Data.model_fields["encoding"].default
        encodings = asset.encoding if asset.encoding and untouched else data.encoding
        return _local(Path(asset.path), split, encodings, wanted)
    path = Path(source).expanduser()
    if path.exists():
        return _local(path, split, data.encoding, wanted)
    # a hub id is `name` or `owner/name`; anything else, or anything with a file's suffix, was meant as a path
    has_suffix = formats.format_of(Path(source)) is not None or source.endswith(".gz")
    if has_suffix or source.startswith((".", "/", "~")) or "\\" in source or source.count("/") > 1:
        raise _missing("data.path", path)
    return hub.tables(data, split, wanted)


def _local(path: Path, split: Split, encodings: str, wanted: Iterable[str] | None) -> dict[str, Table]:
    if path.is_dir():
        return folders.tables(path, split, encodings, wanted)
    return {"train": formats.table(path, path.name, encodings, wanted)}


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
