"""Stratified splits of rows with several labels each, after Sechidis, Tsoumakas and Vlahavas (ECML PKDD 2011).

The rarest label is dealt first: each of its rows goes to the split that lacks most rows with this label; of splits
that lack as many, to the one that lacks most rows. Rows that share a group or a text are dealt together.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence


def assign(
    units: Sequence[Sequence[int]],
    labels: Sequence[Sequence[str]],
    sizes: Mapping[str, int],
    generator: random.Random,
) -> list[str]:
    """Return the split of each row.

    units: rows (indices of `labels`) that stay together. labels: of each row. sizes: rows of each split, which sum to
    the rows; `train` is one of them, and gets at least one row of every label.
    """
    total = len(labels)
    of_unit = [Counter(label for row in unit for label in labels[row]) for unit in units]
    rows_of = Counter(label for row in labels for label in row)
    lacking = {name: float(size) for name, size in sizes.items()}
    lacking_of = {
        name: {label: count * size / total for label, count in rows_of.items()} for name, size in sizes.items()
    }
    holders: dict[str, list[int]] = {label: [] for label in rows_of}
    order = sorted(range(len(units)), key=[(-len(unit), generator.random()) for unit in units].__getitem__)
    for number in order:
        for label in of_unit[number]:
            holders[label].append(number)
    assigned = ["train"] * total
    free = [True] * len(units)
    left = Counter({label: len(numbers) for label, numbers in holders.items()})

    def put(number: int, name: str) -> None:
        free[number] = False
        lacking[name] -= len(units[number])
        for row in units[number]:
            assigned[row] = name
        for label, count in of_unit[number].items():
            lacking_of[name][label] -= count
            left[label] -= 1

    while left := +left:
        rarest = min(left, key=lambda label: (left[label], label))
        for number in holders[rarest]:
            if free[number]:
                put(number, max(sizes, key=lambda name: (lacking_of[name][rarest], lacking[name], generator.random())))
    for number in order:
        if free[number]:
            put(number, max(sizes, key=lambda name: (lacking[name], generator.random())))
    _keep_in_train(units, of_unit, assigned)
    return assigned


def _keep_in_train(units: Sequence[Sequence[int]], of_unit: Sequence[Counter[str]], assigned: list[str]) -> None:
    """Move a unit of every label that train has lost back to it."""
    known = {
        label for unit, counts in zip(units, of_unit, strict=True) if assigned[unit[0]] == "train" for label in counts
    }
    for unit, counts in zip(units, of_unit, strict=True):
        if not counts.keys() <= known:
            for row in unit:
                assigned[row] = "train"
            known |= counts.keys()
