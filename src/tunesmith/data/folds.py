"""Cut rows into folds for cross-validation: seeded, stratified, groups and equal texts together."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Hashable, Sequence

from tunesmith.data import splits
from tunesmith.types import Example


def assign(rows: Sequence[Example], folds: int, seed: int, strata: splits.Strata) -> list[int]:
    """Return the fold of each row, from 0; every fold gets its share of each stratum, of several labels of each label.

    Rows that share a group or a text lie in one fold. The largest of these units are placed first, then those with the
    rarest label, each in the fold that has fewest of its labels, and of these in the smallest.
    """
    classes: list[Sequence[Hashable]] = (
        [(stratum,) for stratum in strata(rows)]
        if any(row.labels is None for row in rows)
        else [row.labels or () for row in rows]
    )
    totals = Counter(name for row in classes for name in row)
    generator = random.Random(f"{seed} folds")  # noqa: S311 - repeatable, not secret
    counted = [(unit, Counter(name for i in unit for name in classes[i])) for unit in splits.units(rows)]
    order = sorted(
        counted,
        key=lambda pair: (-len(pair[0]), min((totals[name] for name in pair[1]), default=0), generator.random()),
    )
    assigned, sizes = [0] * len(rows), [0] * folds
    has: list[Counter[Hashable]] = [Counter() for _ in range(folds)]
    for unit, counts in order:
        fullness = [
            (sum(count * has[k][name] / totals[name] for name, count in counts.items()), sizes[k], generator.random())
            for k in range(folds)
        ]
        best = fullness.index(min(fullness))
        for i in unit:
            assigned[i] = best
        sizes[best] += len(unit)
        has[best].update(counts)
    return assigned
