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
from functools import cache, partial
from itertools import chain, pairwise, repeat, starmap
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, overload

import numpy as np
import numpy.typing as npt

from tunesmith import disk
from tunesmith.data.text_keys import Hashes, hashes, text_digest
from tunesmith.errors import FileError
from tunesmith.types import Example, Message

if TYPE_CHECKING:
    import pyarrow

Places = npt.NDArray[np.int64]
ROWS = 4096
"""Rows of a batch, which are made into examples together."""
MOST_BYTES, OVERHEAD = 64 << 20, 400
"""Bytes of rows that are kept in memory as examples, those of an example besides its text; more become a table."""
Make = Callable[["pyarrow.RecordBatch"], Iterable[Any]]
STRINGS = ("id", "text", "text_pair", "label", "group")
FIELDS = (*STRINGS, "messages", "value", "labels", "weight")
"""Columns with what an Example has, in its order."""
DIGEST, CHARACTERS = "digest", "characters"
"""Columns with `text_keys.text_digest`, and with the characters of a row."""


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
        (example,) = self._made(self._numbers(number, number + 1))
        return cast(Example, example)

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

    def fields(self, *names: str) -> Iterator[tuple[Any, ...]]:
        """Yield what `fields` yields."""
        make = partial(_fields, names)
        for start in range(0, len(self), ROWS):
            yield from self._made(self._numbers(start, start + ROWS), make)

    def characters(self) -> Places:
        """Return what `characters` says."""
        return self._fixed(lambda batch: np.asarray(batch.column(CHARACTERS)))

    def text_hashes(self) -> Hashes:
        """Return what `text_hashes` says."""
        return hashes(self._fixed(lambda batch: _digests(batch.column(DIGEST))).tobytes())

    def _fixed(self, values: Callable[[pyarrow.RecordBatch], npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """Return a column whose values have one size. values: of a batch."""
        every_batch = [values(batch) for batch in self.batches if batch.num_rows]
        column = np.concatenate(every_batch) if every_batch else values(_batch(()))
        return column if self.places is None else column[self.places]

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

    def _made(self, numbers: Places, make: Make | None = None) -> list[Any]:
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


def fields(rows: Sequence[Example], *names: str) -> Iterator[tuple[Any, ...]]:
    """Yield these fields, two or more, of each row; of a table without making the rows."""
    return rows.fields(*names) if isinstance(rows, ExampleTable) else map(attrgetter(*names), rows)


def targets(rows: Sequence[Example]) -> Sequence[Example]:
    """Return rows of which only targets, groups and weights are of use: of a table, where equal ones are one object."""
    if not isinstance(rows, ExampleTable):
        return rows
    make = cache(lambda label, group, *rest: Example("", "", None, label, group, (), *rest))
    return [make(*values) for values in rows.fields("label", "group", "value", "labels", "weight")]


def characters(rows: Sequence[Example]) -> Places:
    """Return the characters of each row."""
    if isinstance(rows, ExampleTable):
        return rows.characters()
    return np.fromiter(map(_characters, rows), dtype=np.int64, count=len(rows))


def text_hashes(rows: Sequence[Example]) -> Hashes:
    """Return the hash of the text of each row, N x 2; of a table without making the rows."""
    if isinstance(rows, ExampleTable):
        return rows.text_hashes()
    return hashes(b"".join(text_digest(row.text, row.text_pair) for row in rows))


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
    types |= {"labels": pyarrow.large_list(binary), "weight": pyarrow.float64()}
    return pyarrow.schema(types | {DIGEST: pyarrow.binary(16), CHARACTERS: pyarrow.int64()})


def _batch(rows: Sequence[Example]) -> pyarrow.RecordBatch:
    import pyarrow

    columns: dict[str, list[Any]] = {name: [_bytes(getattr(row, name)) for row in rows] for name in STRINGS}
    columns["messages"] = [_dump(row.messages) if row.messages else None for row in rows]
    columns["value"] = [row.value for row in rows]
    columns["labels"] = [None if row.labels is None else [_bytes(label) for label in row.labels] for row in rows]
    columns["weight"] = [row.weight for row in rows]
    columns[DIGEST] = [text_digest(row.text, row.text_pair) for row in rows]
    columns[CHARACTERS] = [_characters(row) for row in rows]
    return pyarrow.RecordBatch.from_pydict(columns, schema=_schema())


def _bytes(value: str | None) -> bytes | None:
    return None if value is None else value.encode("utf-8", "surrogatepass")


def _dump(messages: Sequence[Message]) -> bytes:
    return json.dumps([(m.role, m.content, m.input, m.learned) for m in messages]).encode()


def _characters(row: Example) -> int:
    if row.messages:
        return sum(len(message.content) + len(message.input) for message in row.messages)
    return len(row.text) + len(row.text_pair or "")


def _examples(batch: pyarrow.RecordBatch) -> Iterable[Example]:
    return starmap(Example, _fields(FIELDS, batch))


def _fields(names: Sequence[str], batch: pyarrow.RecordBatch) -> Iterable[tuple[Any, ...]]:
    return zip(*(_values(name, batch.column(name)) for name in names), strict=True)


def _values(name: str, column: Any) -> Iterable[Any]:
    """Return the values of a column as an Example has them."""
    if column.null_count == len(column) and name != "messages":
        return repeat(None, len(column))
    if name == "label":
        return [label and sys.intern(label) for label in _strings(column)]  # there are few of them
    if name in STRINGS:
        return _strings(column)
    values = column.to_pylist()
    if name == "messages":
        return (tuple(Message(*turn) for turn in json.loads(line)) if line else () for line in values)
    if name == "labels":
        return (None if row is None else tuple(map(_text, row)) for row in values)
    return list(values)


def _digests(column: pyarrow.FixedSizeBinaryArray) -> npt.NDArray[np.uint8]:
    """Return the bytes of a column of hashes, N x 16."""
    content = column.buffers()[1]
    return np.frombuffer(content, dtype=np.uint8, count=16 * len(column), offset=16 * column.offset).reshape(-1, 16)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogatepass")


def _strings(column: pyarrow.LargeBinaryArray) -> Sequence[str | None]:
    """Return the strings of a column, read from its buffers, which is several times faster than value by value."""
    _, offsets, content = column.buffers()
    bounds = np.frombuffer(offsets, dtype=np.int64)[column.offset : column.offset + len(column) + 1].tolist()
    view = memoryview(content) if content is not None else memoryview(b"")
    strings = [str(view[start:stop], "utf-8", "surrogatepass") for start, stop in pairwise(bounds)]
    if not column.null_count:
        return strings
    return [string if known else None for string, known in zip(strings, column.is_valid().to_pylist(), strict=True)]
