"""Tokenized rows of large data in the user's cache: made once, and mapped into memory.

The key is a hash of the rows and of all that their tokens depend on: the tokenizer, the template, the length. Rows are
handed over in blocks, so that memory does not grow with their number; tokenizers spread a block over all cores.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import numpy as np

from tunesmith import assets, hardware, integrity, runs
from tunesmith.console import say, track
from tunesmith.data import rows as data_rows
from tunesmith.data.encode import Encoded, EncodedText, Ending
from tunesmith.data.example_table import ExampleTable
from tunesmith.types import DataNote, Example

FORMAT = 1
BLOCK = 16_384
"""Rows that are tokenized at once."""
RowT = TypeVar("RowT", Encoded, EncodedText)
Encode = Callable[[Sequence[Example]], tuple[Sequence[RowT], list[DataNote]]]
"""Tokenizes some rows; what it gives for a row must not depend on the others."""
TOKENS, BOUNDS, FACTS, STARTS = "tokens.int32", "bounds.int64", "facts.jsonl", "starts.int64"
"""Files of an entry: the tokens of all rows, where those of each row begin, JSON of the rest, and where it begins."""
META = "rows.json"


def tokenized(
    examples: Sequence[Example],
    encode: Encode[RowT],
    key: Sequence[object],
    *,
    keep: bool = True,
) -> tuple[Sequence[RowT], list[DataNote]]:
    """Return the tokenized rows of examples, and notes on what was cut or left out.

    key: all that tokens depend on but for the rows. keep: whether rows that are many are kept in the user's cache for
    the next time. Those of a tuple of examples are few, and made anew.
    """
    if not isinstance(examples, ExampleTable):
        rows, notes = encode(examples)
        return rows, notes
    if not keep:
        with tempfile.TemporaryDirectory(prefix="tunesmith-tokens-") as scratch:
            _fill(Path(scratch), examples, encode)
            return _opened(Path(scratch))  # what is mapped stays readable
    parts = [FORMAT, hardware.versions(("tunesmith",)), examples.fingerprint(), *key]
    name = hashlib.sha256(json.dumps(parts, default=repr).encode()).hexdigest()[:32]
    entry = assets.user_cache() / "tokens" / name
    if not entry.exists() or integrity.damage(entry):
        runs.write_folder(entry, lambda folder: _fill(folder, examples, encode))
        assets.make_room(entry)
    else:
        entry.touch()
        say(f"tokens of {len(examples):,} rows from the cache, as rows, tokenizer and settings are unchanged")
    return _opened(entry)


def identity(tokenizer: Any) -> list[object]:
    """Return all that tells a tokenizer from others with other tokens, for a key."""
    own = tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else sorted(tokenizer.get_vocab().items())
    return [type(tokenizer).__qualname__, own, repr(tokenizer), tokenizer.truncation_side, tokenizer.chat_template]


class TokenTable(Sequence[RowT], Generic[RowT]):
    """Tokenized rows of a folder, mapped into memory; a row is made when it is asked for."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.names = names
        """What each row has a list of integers of."""
        self.bounds = np.fromfile(folder / BOUNDS, dtype=np.int64)
        self.starts = np.fromfile(folder / STARTS, dtype=np.int64)
        has_rows = len(self.bounds) > 1
        self.tokens = np.memmap(folder / TOKENS, dtype=np.int32, mode="r") if has_rows else np.empty(0, dtype=np.int32)
        self.facts = np.memmap(folder / FACTS, dtype=np.uint8, mode="r") if has_rows else np.empty(0, dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @overload
    def __getitem__(self, place: int) -> RowT: ...

    @overload
    def __getitem__(self, place: slice) -> list[RowT]: ...

    def __getitem__(self, place: int | slice) -> RowT | list[RowT]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        number = range(len(self))[place]
        lists = self.tokens[self.bounds[number] : self.bounds[number + 1]].reshape(len(self.names), -1).tolist()
        facts = json.loads(self.facts[self.starts[number] : self.starts[number + 1]].tobytes())
        row: RowT = _row(dict(zip(self.names, lists, strict=True)), facts)
        return row


def _opened(folder: Path) -> tuple[TokenTable[Any], list[DataNote]]:
    meta = json.loads((folder / META).read_text(encoding="utf-8"))
    notes = [DataNote(what, count, tuple(where)) for what, count, where in meta["notes"]]
    return TokenTable(folder, meta["names"]), notes


def _fill(folder: Path, examples: ExampleTable, encode: Encode[RowT]) -> None:
    """Tokenize all rows into a folder."""
    notes: list[DataNote] = []
    names: list[str] = []
    bounds, starts = [0], [0]
    with (folder / TOKENS).open("wb") as tokens, (folder / FACTS).open("wb") as facts:
        for start in track(range(0, len(examples), BLOCK), "tokenize"):
            rows, changes = encode(list(examples[start : start + BLOCK]))
            notes += changes
            for row in rows:
                lists, rest = _parts(row)
                names = names or list(lists)
                ids = np.array([lists[name] for name in names], dtype=np.int32)
                tokens.write(ids.tobytes())
                facts.write(line := json.dumps(rest).encode())
                bounds.append(bounds[-1] + ids.size)
                starts.append(starts[-1] + len(line))
    np.array(bounds, dtype=np.int64).tofile(folder / BOUNDS)
    np.array(starts, dtype=np.int64).tofile(folder / STARTS)
    merged = [(note.what, note.count, note.where) for note in data_rows.merge(notes)]
    (folder / META).write_text(json.dumps({"names": names, "notes": merged}), encoding="utf-8")


def _parts(row: Encoded | EncodedText) -> tuple[dict[str, list[int]], list[Any]]:
    """Return the lists of integers of a row, all of one length, and the rest."""
    if isinstance(row, Encoded):
        return row.inputs, [row.id, row.label, row.weight]
    return {"": row.ids, "labels": row.labels}, [row.id, [(end.start, end.ids, end.labels) for end in row.endings]]


def _row(lists: dict[str, list[int]], rest: list[Any]) -> Any:
    if "" in lists:
        return EncodedText(rest[0], lists[""], lists["labels"], tuple(Ending(*end) for end in rest[1]))
    return Encoded(rest[0], lists, *rest[1:])
