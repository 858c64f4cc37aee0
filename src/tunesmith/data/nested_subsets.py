"""Parts of the rows of a split of which every smaller one lies inside the next: stratified, groups and texts together.

Rows are put into one order, and a part is its beginning. Each stratum's rows are spread evenly over the order, so that
every beginning has its share of each stratum, as near as whole rows allow; the rows in front are as few as it takes to
have every label.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tunesmith.data import example_table
from tunesmith.data.splits import Strata, units
from tunesmith.errors import DataError
from tunesmith.types import DataNote, Example


@dataclass(frozen=True)
class NestedOrder:
    """Rows in the order in which parts take them."""

    units: tuple[tuple[int, ...], ...]
    """Row numbers that stay together, the first to be taken in front."""
    covering: int
    """Rows of the first units, which have every label between them."""

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return sum(map(len, self.units))

    def first(self, most: int) -> list[int]:
        """Return the numbers, ascending, of the rows of whole units: at most `most`, or those that have every label."""
        taken: list[int] = []
        for unit in self.units:
            if len(taken) >= self.covering and len(taken) + len(unit) > most:
                break
            taken += unit
        return sorted(taken)


def order(rows: Sequence[Example], seed: int, strata: Strata) -> NestedOrder:
    """Return the order in which parts of rows are taken. Equal rows and seed give the same order."""
    generator = random.Random(f"{seed} nested")  # noqa: S311 - repeatable, not secret
    classes = strata(rows) if rows else []
    totals, dealt = Counter(classes), Counter()  # type: ignore[var-annotated]
    together = units(rows)
    draws = [generator.random() for _ in together]
    places: dict[int, tuple[float, float]] = {}
    for number in sorted(range(len(together)), key=draws.__getitem__):
        due = []
        for row in together[number]:
            due.append((dealt[classes[row]] + 0.5) / totals[classes[row]])
            dealt[classes[row]] += 1
        places[number] = (sum(due) / len(due), generator.random())
    numbers = sorted(places, key=places.__getitem__)
    front = _covering(rows, [together[number] for number in numbers])
    chosen = set(front)
    ordered = [together[numbers[place]] for place in [*front, *(p for p in range(len(numbers)) if p not in chosen)]]
    return NestedOrder(tuple(map(tuple, ordered)), sum(len(unit) for unit in ordered[: len(front)]))


def _covering(rows: Sequence[Example], ordered: Sequence[Sequence[int]]) -> list[int]:
    """Return the places of units that have every label between them; the rarest label is looked after first."""
    counts = Counter(label for row in rows for label in row.all_labels)
    holder: dict[str, int] = {}
    labels = [{label for row in unit for label in rows[row].all_labels} for unit in ordered]
    for place, of_unit in enumerate(labels):
        for label in of_unit:
            holder.setdefault(label, place)
    front: list[int] = []
    covered: set[str] = set()
    for label in sorted(counts, key=lambda name: (counts[name], name)):
        if label not in covered:
            front.append(holder[label])
            covered |= labels[holder[label]]
    return sorted(front)


def sample(
    rows: Sequence[Example], most: int | None, seed: int, strata: Strata, split: str
) -> tuple[Sequence[Example], list[DataNote]]:
    """Keep at most `most` rows of a split. Raises DataError where they could not have every label, unless it is 0."""
    if most is None or most >= len(rows):
        return rows, []
    setting = f"split.max_{split}_samples"
    if not most:
        return (), [DataNote(f"left out of {split} by {setting}", len(rows))]
    nested = order(rows, seed, strata)
    if nested.covering > most:
        raise DataError(
            f"{setting}={most} leaves no row for some labels",
            expected=f"at least {nested.covering}, which have every label, with groups and equal texts kept together",
            found=f"{most}",
            do=f"raise {setting}",
        )
    kept = nested.first(most)
    note = DataNote(f"left out of {split} by {setting}", len(rows) - len(kept))
    return example_table.take(rows, kept), [note]
