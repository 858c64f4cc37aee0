"""Conversations of a source without end: read as they are learned from, shuffled within a buffer.

What a step draws is a function of the seed and of the rows before it. A position says where a stream is without holding
any row: to go on from it, the source is read again from its beginning, and only the rows of the buffer are looked at.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Generic, TypeVar

import numpy as np

from tunesmith.data import conversations, examples, sources, splits
from tunesmith.data.batches import MicroBatches, Sampler
from tunesmith.data.cells import InvalidRow
from tunesmith.data.dataset import conversation_reader
from tunesmith.data.encode import EncodedText
from tunesmith.data.rows import SPLITS, Columns, Item, RejectedRow, Row, Table, merge, no_rows
from tunesmith.errors import DataError, RecipeError
from tunesmith.recipe import Data, Split
from tunesmith.types import DataNote, Example, Splits

HEAD = 1000
"""Rows at the beginning of a stream that are shown and fingerprinted."""
BatchT = TypeVar("BatchT")
Encode = Callable[[Example], tuple[Sequence[EncodedText], Sequence[DataNote]]]
"""Returns what is learned of an example, nothing where it is too long, and notes on what was cut."""


@dataclass(frozen=True, slots=True)
class StreamPosition:
    """Where a stream is after a step, as a checkpoint holds it."""

    step: int
    """Steps drawn."""
    passes: int
    """Times that the source was read to its end."""
    items: int
    """Rows of the source read in this pass, those that were left out included."""
    last: str
    """SHA-256 of the last of them: another one is another source."""
    drawn: int
    """Texts drawn in this pass."""
    buffer: tuple[tuple[int, int], ...]
    """The texts in the buffer: the number of the row in the source, and of the text in the row."""
    noted: dict[str, int]
    """How often reading changed or left out something."""
    cut: dict[str, int]
    """How often a text was cut, or left out as too long."""


@dataclass(frozen=True)
class ConversationSource:
    """The training rows of a source, which can be read more than once, each with its number in the source."""

    data: Data
    split: Split
    held_out: int = 0
    """Rows at the beginning that belong to other splits, those that cannot be used included."""

    def tables(self) -> dict[str, Table]:
        """Return the tables by split, not read yet. Raises DataError where there is none to learn from."""
        wanted = Columns.of(self.data, self.split)
        tables = sources.tables(self.data, self.split, [*conversations.COLUMNS, wanted.text])
        if "train" not in tables:
            do = "check the data and split.train"
            raise DataError("no train split", expected="rows to learn from", found=", ".join(tables), do=do)
        return tables

    def parse(
        self, items: Iterable[tuple[int, Item]], table: Table
    ) -> Iterator[tuple[int, list[Example], list[DataNote]]]:
        """Yield the number of each row, its example where it has one, and notes; by `data.on_bad_rows`.

        Raises DataError for a row that cannot be used, where that is an error.
        """
        reader = conversation_reader(self.data, self.split, True)
        columns = reader.columns(table)
        for number, item in items:
            if isinstance(item, DataNote):
                yield number, [], [item]
                continue
            rejected = item
            if isinstance(item, Row):
                try:
                    yield number, [reader.example(item, columns)], list(reader.notes(item, columns))
                    continue
                except InvalidRow as invalid:
                    rejected = RejectedRow(invalid.reason, item.id, invalid.note)
            assert isinstance(rejected, RejectedRow)
            yield number, [], examples.handle_rejected([rejected], self.data.on_bad_rows, number + 1)


def read_head(data: Data, split: Split) -> Splits:
    """Return the splits of a stream: `train` is its beginning, the others are whole.

    Splits that the data lacks are the first rows of the stream, which are then not learned from. Raises RecipeError for
    settings that need all rows.
    """
    _check_settings(data, split)
    source = ConversationSource(data, split)
    tables = source.tables()
    sizes = splits.to_make(tables, split)
    if shares := {name: size for name, size in sizes.items() if size < 1}:
        raise RecipeError(
            f"a stream has no length to take a share of for {' and '.join(shares)}",
            expected="a number of rows, which are the first of the stream",
            found=", ".join(f"split.{name}_size={size:g}" for name, size in shares.items()),
            do=f"set {' '.join(f'split.{name}_size=200' for name in shares)}, or 0 for no such split",
        )
    rows: dict[str, tuple[Example, ...]] = {}
    notes: list[DataNote] = []
    for name in (*SPLITS[1:], "train"):
        if name in tables:
            parsed = source.parse(enumerate(tables[name].items), tables[name])
            wanted = {made: int(size) for made, size in sizes.items()} | {"train": HEAD} if name == "train" else {}
            rows |= _first(parsed, wanted, notes) if wanted else {name: _all(parsed, notes)}
            if not rows[name]:
                raise no_rows(tables[name].name)
    for name, size in sizes.items():
        notes.append(DataNote(f"set aside for {name}: the first rows of the stream, in their order", int(size)))
    what = "train is a stream: its rows are not counted, and no copies are sought across splits; shown are the first"
    notes.append(DataNote(what, len(rows["train"])))
    return Splits(
        train=rows["train"],
        validation=rows.get("validation", ()),
        test=rows.get("test", ()),
        labels=(),
        fingerprints=splits.fingerprints(rows),
        made=tuple(name for name in SPLITS if name in sizes),
        notes=merge(notes),
        is_stream=True,
    )


def open_stream(data: Data, split: Split, seed: int, step_size: int, encode: Encode) -> ShuffledStream:
    """Return a stream of the training rows, at its beginning. encode: what is learned of a row."""
    source = ConversationSource(data, split)
    tables = source.tables()
    set_aside = sum(int(size) for size in splits.to_make(tables, split).values())
    parsed = source.parse(enumerate(tables["train"].items), tables["train"])
    held_out = 0
    while set_aside:
        held_out, found, _ = next(parsed)
        set_aside -= len(found)
        held_out += 1
    return ShuffledStream(replace(source, held_out=held_out), seed, data.shuffle_buffer, step_size, encode)


class ShuffledStream:
    """Draws the texts of one step after the other, over all processes. Each process has the same stream.

    step_size: texts of an optimizer step, over all processes. encode: what is learned of a row.
    """

    def __init__(self, source: ConversationSource, seed: int, buffer_size: int, step_size: int, encode: Encode) -> None:
        self.source, self.seed, self.buffer_size, self.step_size = source, seed, buffer_size, step_size
        self.encode = encode
        self._step = self._passes = 0
        self._drawn: list[EncodedText] = []  # in the newest step
        self._noted, self._cut = Counter[str](), Counter[str]()
        self._begin(None)

    def draw(self, step: int) -> Sequence[EncodedText]:
        """Return the texts of a step: the one that follows, or the newest one again. Steps count from 0."""
        if step != self._step - 1:
            assert step == self._step, f"step {step} of a stream that is at {self._step}"
            self._drawn = [self._next() for _ in range(self.step_size)]
            self._step += 1
        return self._drawn

    @property
    def position(self) -> StreamPosition:
        """Where the stream is after the newest step."""
        places = tuple(place for place, _ in self._buffer)
        last = "" if self._last is None else _digest(self._last)
        noted, cut = dict(self._noted), dict(self._cut)
        return StreamPosition(self._step, self._passes, self._items, last, self._count, places, noted, cut)

    def restore(self, position: StreamPosition) -> None:
        """Go on from a position. Raises DataError where the source is no longer the one that it was of."""
        self._step, self._passes, self._count = position.step, position.passes, position.drawn
        self._noted, self._cut = Counter(position.noted), Counter(position.cut)
        self._drawn = []
        self._begin(position)

    @property
    def learned(self) -> int:
        """Return how many texts were drawn so far."""
        return self._step * self.step_size

    @property
    def notes(self) -> list[DataNote]:
        """What was read, and what reading changed or left out."""
        passes = f", {self._passes} passes through the source before" if self._passes else ""
        read = DataNote(f"rows of the stream read{passes}", self._items - self.source.held_out)
        return [read, *(DataNote(what, count) for what, count in self._noted.items()), *self.cut]

    @property
    def cut(self) -> list[DataNote]:
        """What was cut to fit, or left out as too long."""
        return [DataNote(what, count) for what, count in self._cut.items()]

    def _begin(self, position: StreamPosition | None) -> None:
        """Begin a pass, or come to a position in it."""
        table = self.source.tables()["train"]
        items = iter(islice(enumerate(table.items), self.source.held_out, None))
        self._items = self.source.held_out
        self._last: Item | None = None
        self._buffer: list[tuple[tuple[int, int], EncodedText]] = []
        self._rows = self.source.parse(self._followed(items), table)
        if position is None:
            self._count = 0
            return
        wanted = {number for number, _ in position.buffer}
        before = self._followed(islice(items, position.items - self.source.held_out))
        kept = [(number, item) for number, item in before if number in wanted]
        if self._items != position.items or (self._last is not None and _digest(self._last) != position.last):
            raise DataError(
                f"{table.name}: the data has changed since the checkpoint",
                expected=f"{position.items:,} rows that were read then, and others after them",
                found=f"{self._items:,} rows" if self._items != position.items else "another row at this place",
                do="restore the data, or start a new run",
            )
        texts: dict[tuple[int, int], EncodedText] = {}
        for number, found, _ in self.source.parse(kept, table):
            texts |= {(number, i): text for row in found for i, text in enumerate(self.encode(row)[0])}
        self._buffer = [(place, texts[place]) for place in position.buffer]

    def _followed(self, items: Iterable[tuple[int, Item]]) -> Iterator[tuple[int, Item]]:
        """Yield items, and remember where they are."""
        for number, item in items:
            self._items, self._last = number + 1, item
            yield number, item

    def _next(self) -> EncodedText:
        """Draw a text from the buffer, which is filled up before."""
        while len(self._buffer) < self.buffer_size and self._read():
            pass
        if not self._buffer:
            if not self._count:
                raise DataError(
                    "no training row is left",
                    expected="rows that fit",
                    found=", ".join(f"{note.count:,} {note.what}" for note in self.notes),
                    do="check the data, or raise model.max_length",
                )
            self._passes += 1
            self._begin(None)
            return self._next()
        generator = np.random.Generator(np.random.PCG64([self.seed, self._passes, self._count]))
        chosen = int(generator.integers(len(self._buffer)))
        self._count += 1
        self._buffer[chosen], self._buffer[-1] = self._buffer[-1], self._buffer[chosen]
        return self._buffer.pop()[1]

    def _read(self) -> bool:
        """Put what is learned of the next row into the buffer; return False at the end of the source."""
        row = next(self._rows, None)
        if row is None:
            return False
        number, found, notes = row
        for example in found:
            texts, changes = self.encode(example)
            self._buffer += (((number, i), text) for i, text in enumerate(texts))
            if not self._passes:  # later ones have the same rows
                self._cut.update({change.what: change.count for change in changes})
        if not self._passes:
            self._noted.update({note.what: note.count for note in notes})
        return True


@dataclass(frozen=True)
class StreamBatches(Generic[BatchT]):
    """What one process learns from in each step of a stream: its share of the step's texts, in micro-batches."""

    stream: ShuffledStream
    micro_batches: MicroBatches[EncodedText, BatchT]
    """How texts lie in memory; its own rows are not used."""
    max_steps: int

    @property
    def sampler(self) -> Sampler:
        """The sampler of all steps as one epoch: a stream has no other."""
        return Sampler(self.max_steps * self.stream.step_size, self.stream.step_size, self.stream.seed)

    def __call__(self, step: int) -> list[BatchT]:
        """Return the micro-batches of a step; steps count from 0."""
        rows = self.stream.draw(step)
        return replace(self.micro_batches, rows=rows, sampler=Sampler(len(rows), len(rows), 0))(0)

    def halved(self) -> StreamBatches[BatchT]:
        """Return the same texts in micro-batches of half the tokens."""
        return replace(self, micro_batches=self.micro_batches.halved())


def _check_settings(data: Data, split: Split) -> None:
    """Raise RecipeError for settings that need all rows."""
    whole = ("column", "group", "max_samples", "max_train_samples", "max_validation_samples", "train_samples_seed")
    if given := [f"split.{name}" for name in whole if getattr(split, name) is not None]:
        raise RecipeError(
            f"data.streaming does not go with {', '.join(given)}, which needs all rows",
            expected="splits from files of their own, or the first rows of the stream (split.test_size=200)",
            do="leave it out",
        )
    if split.leaks != "report":
        raise RecipeError(
            "data.streaming does not go with split.leaks: copies are not sought in a stream",
            do="leave it out, or remove copies before",
        )


def _all(parsed: Iterable[tuple[int, list[Example], list[DataNote]]], notes: list[DataNote]) -> tuple[Example, ...]:
    """Return all examples of a table that is no stream."""
    rows: list[Example] = []
    for _, found, more in parsed:
        rows += found
        notes += more
    return tuple(rows)


def _first(
    parsed: Iterator[tuple[int, list[Example], list[DataNote]]], wanted: dict[str, int], notes: list[DataNote]
) -> dict[str, tuple[Example, ...]]:
    """Return the first rows of a stream, so many for one split after the other. Those of train may be fewer."""
    rows: dict[str, list[Example]] = {name: [] for name in wanted}
    for name, size in wanted.items():
        while len(rows[name]) < size and (row := next(parsed, None)) is not None:
            rows[name] += row[1]
            notes += row[2]
        if len(rows[name]) < size and name != "train":
            raise DataError(
                f"the stream has too few rows to set aside {size:,} for {name}",
                expected="rows for each split, and more to learn from",
                found=f"{sum(map(len, rows.values())):,} rows",
                do="lower split.test_size or split.validation_size",
            )
    return {name: tuple(of_split) for name, of_split in rows.items()}


def _digest(item: Item) -> str:
    return hashlib.sha256(repr(item).encode("utf-8", "surrogatepass")).hexdigest()
