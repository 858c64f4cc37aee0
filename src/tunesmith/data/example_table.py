"""Examples as columns: in memory, or of a file that is mapped into memory, so that rows cost no memory of their own.

An Example is made when it is asked for, and not kept. Files are Arrow's IPC format. Strings lie in them as UTF-8, with
lone surrogates, which JSON can hold and Arrow's own strings cannot, as three bytes.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, pairwise, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from tunesmith import disk
from tunesmith.data.text_keys import text_digest
from tunesmith.errors import FileError
from tunesmith.types import Example, Message, TextKey

if TYPE_CHECKING:
    import pyarrow

Places = npt.NDArray[np.int64]
ROWS = 4096
"""Rows of a batch, which are made into examples together."""
MOST_BYTES, OVERHEAD = 64 << 20, 400
"""Bytes of rows that are kept in memory as examples, those of an example besides its text; more become a table."""
Make = Callable[["pyarrow.RecordBatch"], list[Example]]
STRINGS = ("id", "text", "text_pair", "label", "group")
DIGEST = "digest"
"""The column with `text_keys.text_digest`."""


class ExampleTable(Sequence[Example]):
    """Examples, made from columns whenever they are asked for.

    batches: the columns, batch by batch. places: the rows that there are, by their numbers in all batches; None for all
    of them, in order.
    """

    def __init__(self, batches: Sequence[pyarrow.RecordBatch], places: Places | None = None) -> None:
        self.batches = tuple(batches)
        self.starts = np.cumsum([0, *(batch.num_rows for batch in self.batches)])
        self.places = places

    @classmethod
    def open(cls, path: Path) -> ExampleTable:
        """Map a file that `save` wrote. Raises FileError where it cannot be read as one."""
        import pyarrow

        try:
            with disk.explained("read", path):
                file = pyarrow.ipc.open_file(pyarrow.memory_map(str(path)))
                return cls([file.get_batch(number) for number in range(file.num_record_batches)])
        except pyarrow.ArrowInvalid as error:
            do = "delete it; it is made anew"
            raise FileError(f"cannot read {path}", expected="rows", found=str(error), do=do) from error

    def __len__(self) -> int:
        return int(self.starts[-1]) if self.places is None else len(self.places)

    @overload
    def __getitem__(self, place: int) -> Example: ...

    @overload
    def __getitem__(self, place: slice) -> ExampleTable: ...

    def __getitem__(self, place: int | slice) -> Example | ExampleTable:
        if isinstance(place, slice):
            return self.take(range(*place.indices(len(self))))
        number = range(len(self))[place]
        return self._made(self._numbers(number, number + 1))[0]

    def __iter__(self) -> Iterator[Example]:
        for start in range(0, len(self), ROWS):
            yield from self._made(self._numbers(start, start + ROWS))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<ExampleTable of {len(self):,} rows>"

    def take(self, places: Iterable[int]) -> ExampleTable:
        """Return some of the rows, in this order."""
        chosen = np.fromiter(places, dtype=np.int64)
        return ExampleTable(self.batches, chosen if self.places is None else self.places[chosen])

    def targets(self) -> list[Example]:
        """Return what `targets` says."""
        make = partial(_shared, {})
        numbers = (self._numbers(start, start + ROWS) for start in range(0, len(self), ROWS))
        return [row for part in numbers for row in self._made(part, make)]

    def text_digests(self) -> bytes:
        """Return the hash of the text of each row, 16 bytes a row."""
        parts = []
        for start in range(0, len(self), ROWS):
            numbers = self._numbers(start, start + ROWS)
            order = np.argsort(numbers, kind="stable")
            hashes = np.empty((len(numbers), 16), dtype=np.uint8)
            rising = [_digests(batch.column(DIGEST)) for batch in self._gathered(numbers[order])]
            hashes[order] = np.concatenate(rising)
            parts.append(hashes.tobytes())
        return b"".join(parts)

    def fingerprint(self) -> str:
        """Return a hash of the rows and their order; equal rows in other batches may have another."""
        hashed = hashlib.sha256(b"" if self.places is None else self.places.tobytes())
        for batch in self.batches:
            for column in batch.drop_columns(["text", "text_pair"]).columns:  # DIGEST stands for them
                for buffer in filter(None, column.buffers()):
                    hashed.update(f"{column.offset} {len(column)} {buffer.size} ".encode())
                    hashed.update(buffer)
        return hashed.hexdigest()

    def joined(self, other: ExampleTable) -> ExampleTable:
        """Return the rows of both."""
        numbers = [self._numbers(0, len(self)), other._numbers(0, len(other)) + self.starts[-1]]
        return ExampleTable([*self.batches, *other.batches], np.concatenate(numbers))

    def batch(self) -> pyarrow.RecordBatch:
        """Return all columns in one piece."""
        import pyarrow

        numbers = self._numbers(0, len(self))
        order = np.argsort(numbers, kind="stable")
        rising = pyarrow.Table.from_batches(self._gathered(numbers[order]), _schema()).combine_chunks()
        (batch,) = rising.to_batches() or [_batch(())]
        return batch if (np.diff(order) == 1).all() else batch.take(pyarrow.array(np.argsort(order)))

    def _numbers(self, start: int, stop: int) -> Places:
        """Return the numbers, in all batches, of rows from `start` to before `stop`."""
        stop = min(stop, len(self))
        return np.arange(start, stop) if self.places is None else self.places[start:stop]

    def _made(self, numbers: Places, make: Make | None = None) -> list[Example]:
        make = make or _examples
        if not (np.diff(numbers) < 0).any():
            return [example for batch in self._gathered(numbers) for example in make(batch)]
        order = np.argsort(numbers, kind="stable")
        made: list[Any] = [None] * len(numbers)
        rising = (example for batch in self._gathered(numbers[order]) for example in make(batch))
        for place, example in zip(order.tolist(), rising, strict=True):
            made[place] = example
        return made

    def _gathered(self, numbers: Places) -> Iterator[pyarrow.RecordBatch]:
        """Yield the columns of these rows, whose numbers rise, batch by batch."""
        import pyarrow

        of_batch = np.searchsorted(self.starts, numbers, "right") - 1
        bounds = [0, *(np.flatnonzero(np.diff(of_batch)) + 1).tolist(), len(numbers)]
        for start, stop in pairwise(bounds):
            if start < stop:
                batch = self.batches[of_batch[start]]
                local = numbers[start:stop] - self.starts[of_batch[start]]
                in_one_piece = not (np.diff(local) != 1).any()
                yield batch.slice(int(local[0]), len(local)) if in_one_piece else batch.take(pyarrow.array(local))


class Collector:
    """Collects examples one by one: in memory, and where they are many in a file that has no name."""

    def __init__(self) -> None:
        self.waiting: list[Example] = []
        self.bytes = 0
        self.count = 0
        self.file: _Writer | None = None

    def __len__(self) -> int:
        return self.count

    def append(self, example: Example) -> None:
        """Add an example."""
        self.waiting.append(example)
        self.count += 1
        answer = example.messages[-1].content if example.messages else ""
        self.bytes += OVERHEAD + len(example.text) + len(example.text_pair or "") + len(answer)
        if self.file is None and self.bytes > MOST_BYTES:
            with tempfile.NamedTemporaryFile(prefix="tunesmith-rows-", suffix=".arrow", delete=False) as file:
                self.file = _Writer(Path(file.name))
            weakref.finalize(self, self.file.path.unlink, missing_ok=True)  # also where reading fails
        if self.file is not None and len(self.waiting) >= ROWS:
            self._flush(self.file)

    def rows(self) -> Sequence[Example]:
        """Return all examples: a tuple, or an ExampleTable."""
        if self.file is None:
            return tuple(self.waiting)
        self._flush(self.file)
        self.file.close()
        return ExampleTable.open(self.file.path)  # what is mapped stays readable when the file is gone

    def _flush(self, file: _Writer) -> None:
        for start in range(0, len(self.waiting), ROWS):
            file.write(_batch(self.waiting[start : start + ROWS]))
        self.waiting = []


class _Writer:
    """A file of batches; it is removed where writing fails."""

    def __init__(self, path: Path) -> None:
        import pyarrow

        self.path = path
        with disk.explained("write", path):
            self.file = pyarrow.ipc.new_file(str(path), _schema())

    def write(self, batch: pyarrow.RecordBatch) -> None:
        try:
            with disk.explained("write", self.path):
                self.file.write_batch(batch)
        except BaseException:
            self.path.unlink(missing_ok=True)
            raise

    def close(self) -> None:
        with disk.explained("write", self.path):
            self.file.close()


def collect(examples: Iterable[Example]) -> Sequence[Example]:
    """Return these examples as a tuple, or where they are many as an ExampleTable."""
    collector = Collector()
    for example in examples:
        collector.append(example)
    return collector.rows()


def save(rows: Sequence[Example], path: Path) -> None:
    """Write rows as a file that `ExampleTable.open` maps. Raises FileError."""
    writer = _Writer(path)
    for start in range(0, len(rows), ROWS):
        part = rows[start : start + ROWS]
        writer.write(part.batch() if isinstance(part, ExampleTable) else _batch(part))
    writer.close()


def take(rows: Sequence[Example], places: Iterable[int]) -> Sequence[Example]:
    """Return some of these rows, in this order; of a table without making them."""
    return rows.take(places) if isinstance(rows, ExampleTable) else tuple(rows[place] for place in places)


def targets(rows: Sequence[Example]) -> Sequence[Example]:
    """Return rows of which only targets, groups and weights are of use: of a table, where equal ones are one object."""
    return rows.targets() if isinstance(rows, ExampleTable) else rows


def text_digests(rows: Sequence[Example]) -> bytes:
    """Return the hash of the text of each row, 16 bytes a row; of a table without making the rows."""
    if isinstance(rows, ExampleTable):
        return rows.text_digests()
    return b"".join(text_digest(row.text, row.text_pair) for row in rows)


def text_keys(rows: Sequence[Example]) -> list[TextKey]:
    """Return the `text_keys.text_key` of each row."""
    digests = text_digests(rows)
    return [int.from_bytes(digests[start : start + 16], "big") for start in range(0, len(digests), 16)]


def leave_out(rows: Sequence[Example], places: Collection[int]) -> Sequence[Example]:
    """Return the rows but for those at these places."""
    return take(rows, (place for place in range(len(rows)) if place not in places)) if places else rows


def join(parts: Iterable[Sequence[Example]]) -> Sequence[Example]:
    """Return the rows of all parts, one after the other; of tables without making them."""
    parts = list(parts)
    if not any(isinstance(part, ExampleTable) for part in parts):
        return tuple(chain.from_iterable(parts))
    joined = ExampleTable([])
    for part in parts:
        joined = joined.joined(part if isinstance(part, ExampleTable) else ExampleTable([_batch(part)]))
    return joined


def _schema() -> pyarrow.Schema:
    import pyarrow

    binary = pyarrow.large_binary()
    types = dict.fromkeys(STRINGS, binary) | {"messages": binary, "value": pyarrow.float64()}
    types |= {"labels": pyarrow.large_list(binary), "weight": pyarrow.float64(), DIGEST: pyarrow.binary(16)}
    return pyarrow.schema(types)


def _batch(rows: Sequence[Example]) -> pyarrow.RecordBatch:
    import pyarrow

    columns: dict[str, list[Any]] = {name: [_bytes(getattr(row, name)) for row in rows] for name in STRINGS}
    columns["messages"] = [_dump(row.messages) if row.messages else None for row in rows]
    columns["value"] = [row.value for row in rows]
    columns["labels"] = [None if row.labels is None else [_bytes(label) for label in row.labels] for row in rows]
    columns["weight"] = [row.weight for row in rows]
    columns[DIGEST] = [text_digest(row.text, row.text_pair) for row in rows]
    return pyarrow.RecordBatch.from_pydict(columns, schema=_schema())


def _bytes(value: str | None) -> bytes | None:
    return None if value is None else value.encode("utf-8", "surrogatepass")


def _dump(messages: Sequence[Message]) -> bytes:
    return json.dumps([(m.role, m.content, m.input, m.learned) for m in messages]).encode()


def _examples(batch: pyarrow.RecordBatch) -> list[Example]:
    """Return the examples of a batch."""
    texts = [_strings(batch.column(name)) for name in ("id", "text", "text_pair")]
    lines = _filled(batch.column("messages"))
    messages = (tuple(Message(*turn) for turn in json.loads(line)) if line else () for line in lines)
    label, group, *rest = _targets(batch)
    return [Example(*values) for values in zip(*texts, label, group, messages, *rest, strict=False)]


def _shared(known: dict[tuple[Any, ...], Example], batch: pyarrow.RecordBatch) -> list[Example]:
    """Return the examples of a batch without ids and texts, those that are known as they are."""
    rows = []
    for label, group, *rest in zip(*_targets(batch), strict=False):
        key = (label, group, *rest)
        if (row := known.get(key)) is None:
            row = known[key] = Example("", "", None, label, group, (), *rest)
        rows.append(row)
    return rows


def _targets(batch: pyarrow.RecordBatch) -> tuple[Iterable[Any], ...]:
    """Return label, group, value, labels and weight of each row."""
    label = [name and sys.intern(name) for name in _strings(batch.column("label"))]  # there are few of them
    lists = (None if row is None else tuple(map(_text, row)) for row in _filled(batch.column("labels")))
    return (
        label,
        _strings(batch.column("group")),
        _filled(batch.column("value")),
        lists,
        _filled(batch.column("weight")),
    )


def _digests(column: pyarrow.FixedSizeBinaryArray) -> npt.NDArray[np.uint8]:
    """Return the bytes of a column of hashes, N x 16."""
    content = column.buffers()[1]
    return np.frombuffer(content, dtype=np.uint8, count=16 * len(column), offset=16 * column.offset).reshape(-1, 16)


def _filled(column: Any) -> Iterable[Any]:
    """Return the values of a column, without a look where there is none."""
    return repeat(None, len(column)) if column.null_count == len(column) else column.to_pylist()


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogatepass")


def _strings(column: pyarrow.LargeBinaryArray) -> Iterable[str | None]:
    """Return the strings of a column, read from its buffers, which is several times faster than value by value."""
    if column.null_count == len(column):
        return repeat(None, len(column))
    _, offsets, content = column.buffers()
    bounds = np.frombuffer(offsets, dtype=np.int64)[column.offset : column.offset + len(column) + 1].tolist()
    view = memoryview(content) if content is not None else memoryview(b"")
    strings = [str(view[start:stop], "utf-8", "surrogatepass") for start, stop in pairwise(bounds)]
    if not column.null_count:
        return strings
    return [string if known else None for string, known in zip(strings, column.is_valid().to_pylist(), strict=True)]
