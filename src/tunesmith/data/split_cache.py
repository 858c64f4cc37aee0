"""Frozen splits of large sources in the user's cache: read and cut once, mapped into memory from then on.

The key is a hash of the contents of all files of the source, of every setting that rows depend on, and of the version
of tunesmith, so that an entry is never that of other data.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith import assets, hardware, integrity, records, runs
from tunesmith.console import say, warn
from tunesmith.data import example_table, sources
from tunesmith.data.example_table import ExampleTable
from tunesmith.data.near_duplicates import TextNumbers
from tunesmith.data.rows import SPLITS
from tunesmith.errors import FileError
from tunesmith.recipe import Data, Split
from tunesmith.types import DataNote, DuplicateIndex, Splits

FORMAT = 2
SMALLEST = 8 << 20
"""Bytes of a source from which its splits are kept; smaller ones are read in no time."""
INDEX, FACTS = "duplicates.npz", "splits.json"


@dataclass(frozen=True, slots=True)
class _Facts:
    """splits.json: what splits hold besides their rows."""

    labels: tuple[str, ...]
    fingerprints: dict[str, str]
    label_values: tuple[float, ...] | None
    made: tuple[str, ...]
    notes: tuple[DataNote, ...]


def folder() -> Path:
    """Return the folder of all entries."""
    return assets.user_cache() / "splits"


def key(data: Data, split: Split, more: Sequence[object]) -> str | None:
    """Return the key of a source's splits; None where they are not kept: of small sources, and others than files.

    more: what else the rows depend on, such as the seed.
    """
    files = sources.local_files(data, split) if data.cache else []
    if sum(file.stat().st_size for file in files) < SMALLEST:
        return None
    content = [(str(file), integrity.digest(file)) for file in files]
    settings = [section.model_dump(mode="json") for section in (data, split)]
    parts = [FORMAT, hardware.versions(("tunesmith",)), content, settings, [*more]]
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:32]


def load(key: str) -> Splits | None:
    """Return the splits of an entry, whose rows are mapped; None where there is none, or where it is damaged."""
    entry = folder() / key
    if not entry.exists():
        return None
    if problem := integrity.damage(entry):
        warn(f"the cached splits in {entry} are damaged ({problem}); the data is read again")
        return None
    entry.touch()  # for `assets.make_room`
    splits = _mapped(entry)
    rows = sum(map(len, (splits.train, splits.validation, splits.test)))
    say(f"data: {rows:,} rows from the cache, as the source and its settings are unchanged")
    return splits


def _mapped(entry: Path) -> Splits:
    facts = records.read(_Facts, entry / FACTS)
    train, validation, test = (ExampleTable.open(entry / f"{name}.arrow") for name in SPLITS)
    with np.load(entry / INDEX, allow_pickle=False) as index:
        numbers = TextNumbers(index["keys"], index["numbers"])
        copies = DuplicateIndex(numbers, *(index[name].tolist() for name in ("first", "second", "similarity")))
    return Splits(train, validation, test, copies=copies, **records.fields_of(_Facts, facts))


def store(key: str, splits: Splits) -> Splits:
    """Keep splits under a key, and return them mapped. A full disk is a warning: they are read again next time."""

    def fill(entry: Path) -> None:
        for name in SPLITS:
            example_table.save(getattr(splits, name), entry / f"{name}.arrow")
        facts = _Facts(splits.labels, splits.fingerprints, splits.label_values, splits.made, splits.notes)
        (entry / FACTS).write_text(records.encode(facts, "write"), encoding="utf-8")
        index = splits.copies
        if index is None or not isinstance(index.numbers, TextNumbers):
            raise TypeError("splits without an index of their texts")
        pairs = {"first": index.first, "second": index.second, "similarity": index.similarity}
        arrays: dict[str, Any] = {"keys": index.numbers.keys_K2, "numbers": index.numbers.numbers_K, **pairs}
        np.savez(entry / INDEX, **arrays)

    try:
        runs.write_folder(folder() / key, fill)
        assets.make_room(folder() / key)
    except (FileError, OSError) as error:
        warn(f"the splits are not kept for the next time: {error}")
        return splits
    return _mapped(folder() / key)
