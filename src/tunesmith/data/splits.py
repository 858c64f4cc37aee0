"""Cut the splits that the data lacks from train: seeded, stratified, groups and (nearly) equal texts together.

Most rows stand alone: they are distributed by class, every class as near to its share as whole rows allow (largest
remainders). Rows that share a group or a text, or are near-duplicates, form a unit; units are placed first, the largest
ones first, each where its labels are scarcest, and the single rows then even out what the units left uneven.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import random
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import chain, pairwise

import numpy as np

from tunesmith.data import example_table, iterative_stratification
from tunesmith.data.rows import SPLITS, RowsBySplit, note
from tunesmith.data.text_keys import numbered
from tunesmith.errors import DataError
from tunesmith.recipe import Split
from tunesmith.tasks import classification
from tunesmith.types import DataNote, DuplicateIndex, Example

LARGEST_UNIT, LARGEST_SHARE = 10, 0.01
"""Rows of a unit of near-duplicates, at most: a number, or a share of all rows. Larger units share a template."""
LEAST_FILLED = 0.9
"""Share of a split's rows that must be reached with near-duplicates on one side."""
Strata = Callable[[Sequence[Example]], Sequence[Hashable]]
"""The class of each row, by which splits are stratified: its label, where it has one."""


def to_make(rows_by_split: Iterable[str], split: Split) -> dict[str, float]:
    """Return the splits to cut from train, with their sizes: a share below 1, or a number of rows."""
    sizes = {"test": split.test_size, "validation": split.validation_size}
    return {name: size for name, size in sizes.items() if name not in rows_by_split and size > 0}


def cut(
    rows_by_split: RowsBySplit,
    sizes: Mapping[str, float],
    seed: int,
    strata: Strata = classification.strata,
    index: DuplicateIndex | None = None,
) -> tuple[RowsBySplit, list[DataNote]]:
    """Cut the splits named in `sizes` from train, all in one go; rows keep their order.

    index: near-duplicates, which stay on one side where a split can still have its size.
    """
    if not sizes:
        return rows_by_split, []
    rows = rows_by_split["train"]
    wanted = {name: int(size) if size >= 1 else max(1, int(size * len(rows) + 0.5)) for name, size in sizes.items()}
    targets = example_table.targets(rows)
    classes = strata(targets)
    labels = len({label for row in targets for label in row.labels or ()}) or len(set(classes))
    if sum(wanted.values()) > len(rows) - labels:
        raise DataError(
            f"train has too few rows to cut {' and '.join(f'{count} for {name}' for name, count in wanted.items())}",
            expected=f"at least {sum(wanted.values()) + labels} rows, as each of {labels} labels needs one in train",
            found=f"{len(rows)} rows",
            do="lower split.test_size or split.validation_size; 0 makes no such split",
        )
    assigned, notes = _assign(rows, classes, wanted, seed, index)
    made: dict[str, list[int]] = {name: [] for name in ("train", *wanted)}
    for place, name in enumerate(assigned):
        made[name].append(place)
    why = "as groups and equal texts stay together and every label needs a row in train"
    for name, count in wanted.items():
        reached = len(made[name])
        if not reached:
            do = "lower split.test_size or split.validation_size, or group by a finer column"
            raise DataError(f"no row is left for {name}, {why}", expected=f"{count} rows", found="none", do=do)
        if reached < count:
            notes.append(DataNote(f"{name} has {reached} rows instead of {count}, {why}", count - reached))
    return {**rows_by_split, **{name: example_table.take(rows, places) for name, places in made.items()}}, notes


def _assign(
    rows: Sequence[Example],
    classes: Sequence[Hashable],
    wanted: Mapping[str, int],
    seed: int,
    index: DuplicateIndex | None,
) -> tuple[list[str], list[DataNote]]:
    """Return the split of every row, and a note on near-duplicates that were not kept on one side."""
    whole = {"train": len(rows) - sum(wanted.values()), **wanted}

    def assign(together: Sequence[list[int]]) -> list[str]:
        generator = random.Random(f"{seed} cut")  # noqa: S311 - repeatable, not secret
        if rows[0].labels is None:
            return _Partition(rows, classes, wanted, generator).assign(together)
        return iterative_stratification.assign(together, [row.labels or () for row in rows], whole, generator)

    equal = units(rows)
    near, too_large = (equal, []) if index is None else near_units(rows, equal, index)
    assigned = assign(near)
    sizes = Counter(assigned)
    what = "near-duplicates not kept in one split"
    notes = []
    if len(near) < len(equal) and any(sizes[name] < LEAST_FILLED * count for name, count in wanted.items()):
        apart = [i for unit in near if len(unit) > 1 for i in unit]
        notes.append(note(f"{what}: no split could have its size", (rows[i].id for i in apart)))
        assigned = assign(equal)
    if too_large:
        notes.append(note(f"{what}: more alike rows than a split should have", (rows[i].id for i in too_large)))
    return assigned, notes


class _Partition:
    """The assignment of rows to splits: what each split should have of each class, and what it has so far."""

    def __init__(
        self,
        rows: Sequence[Example],
        classes: Sequence[Hashable],
        wanted: Mapping[str, int],
        generator: random.Random,
    ) -> None:
        numbers = {name: number for number, name in enumerate(dict.fromkeys(classes))}
        self.rows = rows
        self.generator = generator
        self.classes = [numbers[name] for name in classes]
        self.totals = [count for _, count in sorted(Counter(self.classes).items())]
        self.sizes = {"train": len(rows) - sum(wanted.values()), **wanted}
        self.has = {name: [0] * len(numbers) for name in self.sizes}
        self.assigned = ["train"] * len(rows)
        self.free = list(self.totals)
        """Rows of each class that are not held out."""

    def assign(self, together: Sequence[list[int]]) -> list[str]:
        """Return the split of every row. together: row numbers that share a split."""
        order = _shuffled(len(together), self.generator)
        for unit in sorted((together[i] for i in order if len(together[i]) > 1), key=len, reverse=True):
            self._place(unit)
        singles: list[list[int]] = [[] for _ in self.totals]
        for i in order:
            if len(together[i]) == 1:
                singles[self.classes[together[i][0]]].append(together[i][0])
        for name in [name for name in self.sizes if name != "train"]:
            self._hand_out(name, singles)
        return self.assigned

    def _place(self, unit: Sequence[int]) -> None:
        """Put a unit where it leaves its classes least full, measured by what the split should have."""
        counts = Counter(self.classes[i] for i in unit)
        safe = all(self.free[number] > count for number, count in counts.items())
        candidates = [name for name in self.sizes if name == "train" or (safe and self._fits(name, len(unit)))]
        best = min(candidates, key=lambda name: self._fullness(name, counts))
        self._put(best, unit)

    def _fits(self, name: str, rows: int) -> bool:
        return sum(self.has[name]) + rows <= self.sizes[name]

    def _fullness(self, name: str, counts: Mapping[int, int]) -> float:
        filled = (count * (self.has[name][k] + count) / self.totals[k] for k, count in counts.items())
        return sum(filled) / self.sizes[name]

    def _put(self, name: str, rows: Sequence[int]) -> None:
        for i in rows:
            self.assigned[i] = name
            self.has[name][self.classes[i]] += 1
            self.free[self.classes[i]] -= name != "train"

    def _hand_out(self, name: str, singles: Sequence[list[int]]) -> None:
        """Give a split its single rows; at least one row of each class stays in train."""
        missing = self.sizes[name] - sum(self.has[name])
        quotas = [
            self.sizes[name] * total - has * len(self.rows)
            for total, has in zip(self.totals, self.has[name], strict=True)
        ]
        most = [min(len(rows), free - 1) for rows, free in zip(singles, self.free, strict=True)]
        for number, count in enumerate(allocate(missing, quotas, len(self.rows), most, self.generator)):
            taken = [singles[number].pop() for _ in range(count)]
            self._put(name, taken)


def units(rows: Sequence[Example]) -> list[list[int]]:
    """Return row numbers that stay together: one group or one text, chained where they overlap; by their first row."""
    first_U, number_N = numbered(example_table.text_hashes(rows))
    earlier_N = first_U[number_N]
    links = [(i, int(earlier_N[i])) for i in np.flatnonzero(earlier_N != np.arange(len(rows))).tolist()]
    first: dict[str, int] = {}
    for i, (group, _) in enumerate(example_table.fields(rows, "group", "weight")):
        if group is not None and (earlier := first.setdefault(group, i)) != i:
            links.append((i, earlier))
    return _linked(len(rows), links)


def near_units(
    rows: Sequence[Example], equal: Sequence[list[int]], index: DuplicateIndex
) -> tuple[list[list[int]], list[int]]:
    """Return larger units that also hold near-duplicates, and the rows that have too many of them to be held together.

    equal: the units without near-duplicates, which are never divided.
    """
    unit_N = np.empty(len(rows), dtype=np.int64)
    unit_N[[*chain.from_iterable(equal)]] = np.repeat(np.arange(len(equal)), [*map(len, equal)])
    number_N = index.numbers.of_rows(rows)
    unit_U = np.full(len(index.numbers), len(equal))
    np.minimum.at(unit_U, number_N, unit_N)
    pairs_P2 = np.array([index.first, index.second], dtype=np.int64).T
    links_L2 = np.concatenate([np.stack([unit_N, unit_U[number_N]], axis=1), unit_U[pairs_P2]])
    is_link = (links_L2 < len(equal)).all(axis=1) & (links_L2[:, 0] != links_L2[:, 1])
    largest = max(LARGEST_UNIT, int(LARGEST_SHARE * len(rows)))
    near: list[list[int]] = []
    too_large: list[int] = []
    for linked in _linked(len(equal), links_L2[is_link].tolist()):
        together = equal[linked[0]] if len(linked) == 1 else sorted(i for number in linked for i in equal[number])
        if len(linked) > 1 and len(together) > largest:
            near += (equal[number] for number in linked)
            too_large += together
        else:
            near.append(together)
    return sorted(near), sorted(too_large)


def _linked(count: int, links: Iterable[Sequence[int]]) -> list[list[int]]:
    """Return numbers below `count` that are linked, over others too; by their first number."""
    parents: dict[int, int] = {}

    def root(i: int) -> int:
        while (parent := parents.setdefault(i, i)) != i:
            parents[i] = i = parents[parent]
        return i

    for i, other in links:
        a, b = root(i), root(other)
        parents[max(a, b)] = min(a, b)
    root_N = np.arange(count)
    root_N[[*parents]] = [root(i) for i in parents]
    numbers = np.argsort(root_N, kind="stable").tolist()
    bounds = [0, *np.bincount(root_N, minlength=count).cumsum().tolist()]
    return [numbers[start:stop] for start, stop in pairwise(bounds) if start < stop]


def allocate(rows: int, quotas: Sequence[int], unit: int, most: Sequence[int], generator: random.Random) -> list[int]:
    """Allocate `rows` to classes, one at a time to the class that lacks most of its quota (quotas in 1/`unit` rows).

    Where the quotas add up to `rows` and no limit in `most` binds, every class gets its quota rounded up or down.
    """
    allocated = [0] * len(quotas)
    lacking = [(-quota, generator.random(), number) for number, quota in enumerate(quotas) if most[number] > 0]
    heapq.heapify(lacking)
    for _ in range(rows):
        if not lacking:
            break
        lack, tie, number = lacking[0]
        allocated[number] += 1
        if allocated[number] < most[number]:
            heapq.heapreplace(lacking, (lack + unit, tie, number))
        else:
            heapq.heappop(lacking)
    return allocated


def _shuffled(count: int, generator: random.Random) -> list[int]:
    """Python promises that `random()` repeats for a seed in every version, but not that `shuffle` does."""
    draws = [generator.random() for _ in range(count)]
    return sorted(range(count), key=draws.__getitem__)


def sample(
    rows_by_split: RowsBySplit, most: int | None, seed: int, strata: Strata = classification.strata
) -> tuple[RowsBySplit, list[DataNote]]:
    """Keep at most `most` rows of each split, stratified; train keeps every label."""
    notes = []
    for name, rows in rows_by_split.items():
        if most is not None and len(rows) > most:
            generator = random.Random(f"{seed} sample {name}")  # noqa: S311 - repeatable, not secret
            kept = _sampled(strata(rows), most, generator, least=1 if name == "train" else 0)
            if name == "train":
                kept = _with_every_label(rows, kept)
            rows_by_split = {**rows_by_split, name: example_table.take(rows, kept)}
            notes.append(DataNote(f"left out of {name} by split.max_samples", len(rows) - most))
    return rows_by_split, notes


def _sampled(classes: Sequence[Hashable], most: int, generator: random.Random, *, least: int) -> list[int]:
    """Return the numbers of the rows to keep: at most `most`, and `least` of each class."""
    counts = Counter(classes)
    if least * len(counts) > most:
        raise DataError(
            f"split.max_samples={most} leaves no row for some labels",
            expected=f"at least {least * len(counts)}, the number of labels",
            found=f"{most}",
            do="raise split.max_samples",
        )
    quotas = [most * count for count in counts.values()]  # `least` lowers all alike, which notes no comparison
    spare = [count - least for count in counts.values()]
    allocated = allocate(most - least * len(counts), quotas, len(classes), spare, generator)
    left = {name: least + count for name, count in zip(counts, allocated, strict=True)}
    kept = []
    for i in _shuffled(len(classes), generator):
        if left[classes[i]]:
            left[classes[i]] -= 1
            kept.append(i)
    return sorted(kept)


def _with_every_label(rows: Sequence[Example], kept: Sequence[int]) -> list[int]:
    """Return as many rows, some of them exchanged so that every label is kept.

    Of a row with several labels, the stratum is the rarest, so that others may be lost. Raises DataError where there
    are more labels than these rows can have.
    """
    counts = Counter(label for i in kept for label in rows[i].all_labels)
    chosen = set(kept)
    for missing in sorted({label for row in rows for label in row.all_labels} - counts.keys()):
        if counts[missing]:  # came with another one
            continue
        added = next(i for i, row in enumerate(rows) if missing in row.all_labels)
        removed = next((i for i in sorted(chosen) if all(counts[label] > 1 for label in rows[i].all_labels)), None)
        if removed is None:
            raise DataError(
                f"split.max_samples={len(kept)} leaves no row for label {missing!r}",
                expected="enough rows for every label",
                found=f"{len(kept)}",
                do="raise split.max_samples",
            )
        chosen = (chosen - {removed}) | {added}
        counts.update(rows[added].all_labels)
        counts.subtract(rows[removed].all_labels)
    return sorted(chosen)


def fingerprints(rows_by_split: Mapping[str, Sequence[Example]]) -> dict[str, str]:
    """Return the SHA-256 of each split and, as `data`, of all: over a JSON line per row."""
    hashes = {name: fingerprint(rows_by_split.get(name, ())) for name in SPLITS}
    return {**hashes, "data": hashlib.sha256("\n".join(hashes.values()).encode()).hexdigest()}


def fingerprint(rows: Sequence[Example]) -> str:
    """Return the hash of one split; ids and groups do not enter it."""
    digest = hashlib.sha256()
    quoted = json.encoder.encode_basestring_ascii
    contents = example_table.fields(rows, "text", "text_pair", "messages")
    for (text, text_pair, messages), target in zip(contents, example_table.targets(rows), strict=True):
        if messages:
            content = json.dumps([[message.role, message.content, message.input] for message in messages])
        else:  # as `json.dumps` writes it, in a third of the time
            pair, gold = (quoted(of) if isinstance(of, str) else json.dumps(of) for of in (text_pair, target.gold))
            content = f"[{quoted(text)}, {pair}, {gold}]"
        digest.update(f"{content}\n".encode("ascii"))
    return digest.hexdigest()
