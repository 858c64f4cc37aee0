"""Tables from folders: a folder a class, a folder a split, a file a split, or shards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

from tunesmith.data import formats, shards
from tunesmith.data.files import File, decode
from tunesmith.data.rows import Item, Row, Table, listed, note, split_names
from tunesmith.errors import DataError
from tunesmith.recipe import Split
from tunesmith.types import DataNote

TEXT_SUFFIXES = (".txt", ".text")
UNLABELLED = "unsup"
"""aclImdb's folder of reviews without a label."""


def tables(
    folder: Path, split: Split, encodings: str, wanted: Iterable[str] | None, delimiter: str = "auto"
) -> dict[str, Table]:
    """Return the tables by split. Ids are paths within the folder."""
    entries = sorted(entry for entry in _entries(folder) if not entry.name.startswith("."))
    names = split_names(split)
    files = [entry for entry in entries if entry.is_file() and formats.format_of(entry)]

    def sharded(paths: list[Path]) -> Table:
        ids = [path.relative_to(folder).as_posix() for path in paths]
        return shards.table(paths, ids, encodings, wanted, delimiter)

    if by_file := _by_split(folder, files, names):
        return {split_name: sharded(paths) for split_name, paths in by_file.items()}
    folders = [entry for entry in entries if entry.is_dir()]
    by_folder = {split_name: path for split_name, (path, *_) in _by_split(folder, folders, names).items()}
    if by_folder and all(_class_folders(path) for path in by_folder.values()):
        return {split_name: _class_table(path, folder, encodings) for split_name, path in by_folder.items()}
    shards_by_split = {split_name: shards.within(path) for split_name, path in by_folder.items()}
    if by_folder and all(shards_by_split.values()):
        return {split_name: sharded(paths) for split_name, paths in shards_by_split.items()}
    if _class_folders(folder):
        return {"train": _class_table(folder, folder, encodings)}
    of_splits = [path for path in files if shards.split_of(formats.stem_of(path)) in chain(*names.values())]
    if not folders and not of_splits and (paths := shards.within(folder)):
        table = sharded(paths)
        ignored = [entry.name for entry in entries if entry not in paths]
        notes = [note("ignored: not a data file", ignored)] if ignored else []
        return {"train": replace(table, items=chain(notes, table.items))}
    raise DataError(
        f"{folder}: no data found in this folder",
        expected="a folder of .txt files for each class, or train and test folders of such, train.csv and test.csv, or "
        "shards of one table",
        found=listed(entry.name + ("/" if entry.is_dir() else "") for entry in entries),
        do="give the path of a file, or of the folder that holds the classes",
    )


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise DataError(
            f"cannot read {folder}",
            expected="a folder of files",
            found=str(error.strerror or error),
            do="check the folder and its permissions",
        ) from error


def _by_split(folder: Path, entries: list[Path], names: dict[str, tuple[str, ...]]) -> dict[str, list[Path]]:
    """Return the entry of each split, or its shards; nothing where train has none."""
    chosen: dict[str, list[Path]] = {}
    for split_name, accepted in names.items():
        whole = [entry for entry in entries if formats.stem_of(entry) in accepted]
        numbered = [
            entry for entry in entries if entry.is_file() and shards.split_of(formats.stem_of(entry)) in accepted
        ]
        matches = numbered if numbered and not whole else sorted({*whole, *numbered})
        if len(matches) > 1 and whole:
            raise DataError(
                f"{folder}: several candidates for {split_name}",
                expected="one file or folder for each split",
                found=listed(entry.name for entry in matches),
                do=f"keep one, or name it, for instance data.{split_name}={matches[0]}",
            )
        if matches:
            chosen[split_name] = matches
    return chosen if "train" in chosen else {}


def _is_text(path: Path) -> bool:
    """Return whether a name ends in `.txt`, or is a bare number as in 20 newsgroups."""
    return path.suffix.lower() in TEXT_SUFFIXES or path.name.isdecimal()


def _class_folders(folder: Path) -> list[Path]:
    """Return the folders with text files in them, by name, except `unsup`."""
    folders = sorted(entry for entry in _entries(folder) if entry.is_dir() and not entry.name.startswith("."))
    return [entry for entry in folders if entry.name != UNLABELLED and any(map(_is_text, _entries(entry)))]


def _class_table(folder: Path, root: Path, encodings: str) -> Table:
    classes = _class_folders(folder)
    items = chain(_ignored(folder, classes, root), *(_texts(path, root, encodings) for path in classes))
    name = folder.relative_to(root).as_posix() if folder != root else root.name
    return Table(name, ("text", "label"), items, implied=True)


def _ignored(folder: Path, classes: list[Path], root: Path) -> Iterator[Item]:
    inside = [entry for path in classes for entry in _entries(path) if not _is_text(entry)]
    beside = [entry for entry in _entries(folder) if entry not in classes and entry.name != UNLABELLED]
    ignored = sorted(entry.relative_to(root).as_posix() for entry in inside + beside if entry.name[0] != ".")
    if ignored:
        yield note("ignored: not a text file in a class folder", ignored)
    if (folder / UNLABELLED).is_dir():
        count = len(_entries(folder / UNLABELLED))
        yield DataNote("ignored: files without a label in `unsup`", count, ())


def _texts(folder: Path, root: Path, encodings: str) -> Iterator[Item]:
    for path in sorted(filter(_is_text, _entries(folder))):
        name = path.relative_to(root).as_posix()
        text = decode(File(path, name, encodings))
        yield from (replace(note, where=(name,)) for note in text.notes)
        yield Row(name, {"text": text.decoded(), "label": folder.name})
