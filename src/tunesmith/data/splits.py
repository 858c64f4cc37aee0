"""Cut the splits that the data lacks from train: seeded, stratified, groups and equal texts together.

Two kinds of rows. Most stand alone: they are dealt per class, every class as near to its share as whole rows allow
(largest remainders). Rows that share a group or a text form a unit; units are placed first, the largest ones first,
each where its labels are scarcest, and the single rows then even out what the units left uneven.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

from tunesmith.data.duplicates import text_key
from tunesmith.data.rows import PARTS, Given
from tunesmith.errors import DataError
from tunesmith.recipe import Split
from tunesmith.types import DataNote, Example


def to_make(given: Iterable[str], split: Split) -> dict[str, float]:
    """The splits that are missing and wanted, with their sizes: a share below 1, or a number of rows."""
    sizes = {"test": split.test_size, "validation": split.validation_size}
    return {part: size for part, size in sizes.items() if part not in given and size > 0}


def cut(given: Given, sizes: Mapping[str, float], seed: int) -> tuple[Given, list[DataNote]]:
    """Cut the splits named in `sizes` from train, all in one go; rows keep their order."""
    if not sizes:
        return given, []
    rows = given["train"]
    wanted = {part: _row_count(size, len(rows)) for part, size in sizes.items()}
    _check_sizes(rows, wanted)
    dealt = _Deal(rows, wanted, random.Random(f"{seed} cut")).deal()  # noqa: S311 - repeatable, not secret
    made: dict[str, list[Example]] = {part: [] for part in ("train", *wanted)}
    for row, part in zip(rows, dealt, strict=True):
        made[part].append(row)
    changes = [change for part, count in wanted.items() if (change := _shortfall(part, len(made[part]), count))]
    return {**given, **{part: tuple(part_rows) for part, part_rows in made.items()}}, changes


def _row_count(size: float, rows: int) -> int:
    return int(size) if size >= 1 else max(1, int(size * rows + 0.5))


def _check_sizes(rows: Sequence[Example], wanted: Mapping[str, int]) -> None:
    labels = len({row.label for row in rows})
    if sum(wanted.values()) > len(rows) - labels:
        raise DataError(
            f"train has too few rows to cut {' and '.join(f'{count} for {part}' for part, count in wanted.items())}",
            found=f"{len(rows)} rows with {labels} labels, each of which needs a row in train",
            do="lower split.test_size or split.validation_size; 0 makes no such split",
        )


def _shortfall(part: str, reached: int, asked: int) -> DataNote | None:
    why = "as groups and equal texts stay together and every label needs a row in train"
    if not reached:
        do = "lower split.test_size or split.validation_size, or group by a finer column"
        raise DataError(f"no row is left for {part}, {why}", expected=f"{asked} rows", do=do)
    return (
        DataNote(f"{part} has {reached} rows instead of {asked}, {why}", asked - reached) if reached < asked else None
    )


class _Deal:
    """One deal of the rows: what each part should have of each class, and what it has so far."""

    def __init__(self, rows: Sequence[Example], wanted: Mapping[str, int], draw: random.Random) -> None:
        classes = {label: number for number, label in enumerate(dict.fromkeys(row.label for row in rows))}
        self.rows = rows
        self.draw = draw
        self.classes = [classes[row.label] for row in rows]
        self.totals = [count for _, count in sorted(Counter(self.classes).items())]
        self.sizes = {"train": len(rows) - sum(wanted.values()), **wanted}
        self.has = {part: [0] * len(classes) for part in self.sizes}
        self.parts = ["train"] * len(rows)
        self.free = list(self.totals)
        """Rows of each class that are not held out."""

    def deal(self) -> list[str]:
        """The part of every row."""
        together = units(self.rows)
        order = _shuffled(len(together), self.draw)
        for unit in sorted((together[i] for i in order if len(together[i]) > 1), key=len, reverse=True):
            self._place(unit)
        singles: list[list[int]] = [[] for _ in self.totals]
        for i in order:
            if len(together[i]) == 1:
                singles[self.classes[together[i][0]]].append(together[i][0])
        for part in [part for part in self.sizes if part != "train"]:
            self._hand_out(part, singles)
        return self.parts

    def _place(self, unit: Sequence[int]) -> None:
        """Put a unit where it leaves its classes least full, measured by what the part should have."""
        counts = Counter(self.classes[i] for i in unit)
        safe = all(self.free[number] > count for number, count in counts.items())
        open_parts = [part for part in self.sizes if part == "train" or (safe and self._fits(part, len(unit)))]
        best = min(open_parts, key=lambda part: self._fullness(part, counts))
        self._put(best, unit)

    def _fits(self, part: str, rows: int) -> bool:
        return sum(self.has[part]) + rows <= self.sizes[part]

    def _fullness(self, part: str, counts: Mapping[int, int]) -> float:
        filled = (count * (self.has[part][k] + count) / self.totals[k] for k, count in counts.items())
        return sum(filled) / self.sizes[part]

    def _put(self, part: str, rows: Sequence[int]) -> None:
        for i in rows:
            self.parts[i] = part
            self.has[part][self.classes[i]] += 1
            self.free[self.classes[i]] -= part != "train"

    def _hand_out(self, part: str, singles: Sequence[list[int]]) -> None:
        """Give a part its single rows; at least one row of each class stays in train."""
        missing = self.sizes[part] - sum(self.has[part])
        quotas = [
            self.sizes[part] * total - has * len(self.rows)
            for total, has in zip(self.totals, self.has[part], strict=True)
        ]
        most = [min(len(rows), free - 1) for rows, free in zip(singles, self.free, strict=True)]
        for number, count in enumerate(allocate(missing, quotas, len(self.rows), most, self.draw)):
            taken = [singles[number].pop() for _ in range(count)]
            self._put(part, taken)


def units(rows: Sequence[Example]) -> list[list[int]]:
    """Row numbers that stay together: one group or one text, chained where they overlap; in order of first rows."""
    parents = list(range(len(rows)))

    def root(i: int) -> int:
        while parents[i] != i:
            parents[i] = i = parents[parents[i]]
        return i

    first: dict[object, int] = {}
    for i, row in enumerate(rows):
        keys = (text_key(row),) if row.group is None else (text_key(row), row.group)
        for key in keys:
            earlier = first.setdefault(key, i)
            if earlier != i:
                a, b = root(i), root(earlier)
                parents[max(a, b)] = min(a, b)
    together: dict[int, list[int]] = {}
    for i in range(len(rows)):
        together.setdefault(root(i), []).append(i)
    return list(together.values())


def allocate(rows: int, quotas: Sequence[int], unit: int, most: Sequence[int], draw: random.Random) -> list[int]:
    """Deal `rows` to classes, one at a time to the class that lacks most of its quota (quotas in 1/`unit` rows).

    Where the quotas add up to `rows` and no limit in `most` binds, every class gets its quota rounded up or down.
    """
    dealt = [0] * len(quotas)
    lacking = [(-quota, draw.random(), number) for number, quota in enumerate(quotas) if most[number] > 0]
    heapq.heapify(lacking)
    for _ in range(rows):
        if not lacking:
            break
        lack, tie, number = lacking[0]
        dealt[number] += 1
        if dealt[number] < most[number]:
            heapq.heapreplace(lacking, (lack + unit, tie, number))
        else:
            heapq.heappop(lacking)
    return dealt


def _shuffled(count: int, draw: random.Random) -> list[int]:
    """Python promises that `random()` repeats for a seed in every version; of `shuffle` it does not."""
    draws = [draw.random() for _ in range(count)]
    return sorted(range(count), key=draws.__getitem__)


def sample(given: Given, most: int | None, seed: int) -> tuple[Given, list[DataNote]]:
    """At most so many rows of each split, stratified; train keeps every label."""
    changes = []
    for part, rows in given.items():
        if most is not None and len(rows) > most:
            draw = random.Random(f"{seed} sample {part}")  # noqa: S311 - repeatable, not secret
            given = {**given, part: _sampled(rows, most, draw, least=1 if part == "train" else 0)}
            changes.append(DataNote(f"left out of {part} by split.max_samples", len(rows) - most))
    return given, changes


def _sampled(rows: tuple[Example, ...], most: int, draw: random.Random, *, least: int) -> tuple[Example, ...]:
    counts = Counter(row.label for row in rows)
    if least * len(counts) > most:
        raise DataError(f"split.max_samples={most} is less than the number of labels", found=f"{len(counts)} labels")
    quotas = [most * count for count in counts.values()]  # `least` lowers all alike, which changes no comparison
    spare = [count - least for count in counts.values()]
    dealt = allocate(most - least * len(counts), quotas, len(rows), spare, draw)
    left = {label: least + count for label, count in zip(counts, dealt, strict=True)}
    kept = []
    for i in _shuffled(len(rows), draw):
        if left[rows[i].label]:
            left[rows[i].label] -= 1
            kept.append(i)
    return tuple(rows[i] for i in sorted(kept))


def fingerprints(given: Mapping[str, Sequence[Example]]) -> dict[str, str]:
    """SHA-256 of each split: a JSON line a row, of text, text_pair and label or of the turns; `data` is that of all."""
    hashes = {part: fingerprint(given.get(part, ())) for part in PARTS}
    return {**hashes, "data": hashlib.sha256("\n".join(hashes.values()).encode()).hexdigest()}


def fingerprint(rows: Iterable[Example]) -> str:
    """The hash of one split; ids and groups are no part of it."""
    digest = hashlib.sha256()
    for line in chain.from_iterable((json.dumps(_content(row)), "\n") for row in rows):
        digest.update(line.encode("ascii"))
    return digest.hexdigest()


def _content(row: Example) -> list[object]:
    if row.messages:
        return [[turn.role, turn.content, turn.input] for turn in row.messages]
    return [row.text, row.text_pair, row.label]
