"""Drift: whether what a model is asked, and what it answers, is still distributed as when the run was evaluated.

Counts alone are kept, in bins and for each hour of a week: no texts, and the same memory however many requests come.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tunesmith.evaluation import distribution_shift
from tunesmith.evaluation.distribution_shift import DistributionShift
from tunesmith.evaluation.intervals import Floats
from tunesmith.types import NO_LABEL

HOUR = 3600
HOURS = 168
"""Hours for which counts are kept."""
FEWEST = 200
"""Values of a window from which it is compared."""
SMALL_PSI, LARGE_PSI, SIGNIFICANT = 0.1, 0.25, 0.001
"""Drift is a difference that is no chance (p) and large (PSI); the p value is small as windows are looked at often."""
Status = Literal["too_few", "stable", "moderate", "drift"]


@dataclass(frozen=True)
class Quantity:
    """Something that is counted of each input, and how often each bin of it came when the run was evaluated."""

    name: str
    """`label`, `confidence`, `value`, `characters` or `response_tokens`."""
    source: str
    """What the reference is counted over: `test predictions`."""
    reference: tuple[float, ...]
    """Rows in each bin."""
    labels: tuple[str, ...] = ()
    """The bins, where these are names; further ones are counted in the last bin."""
    edges: tuple[float, ...] = ()
    """Where numbers are binned: the largest number of each bin but the last."""

    @property
    def bins(self) -> list[str]:
        """What the bins are called."""
        if self.labels:
            return [*self.labels, "other"]
        low = ["", *(f"over {edge:g}" for edge in self.edges)]
        high = [*(f"to {edge:g}" for edge in self.edges), ""]
        return [" ".join(filter(None, pair)) for pair in zip(low, high, strict=True)]

    def counted(self, values: Iterable[str | float]) -> Floats:
        """Return how many values there are in each bin."""
        if self.labels:
            places = {label: place for place, label in enumerate(self.labels)}
            numbers = [places.get(str(value), len(places)) for value in values]
        else:
            numbers = np.searchsorted(self.edges, np.asarray([*values], np.float64)).tolist()
        return np.bincount(numbers, minlength=len(self.reference)).astype(np.float64)


def of_labels(name: str, source: str, labels: Sequence[str], values: Iterable[str]) -> Quantity:
    """Return a quantity of names, with the values of the reference."""
    bins = Quantity(name, source, (0.0,) * (len(labels) + 1), labels=tuple(labels))
    return Quantity(name, source, tuple(bins.counted(values).tolist()), labels=tuple(labels))


def of_numbers(name: str, source: str, edges: Sequence[float], values: Iterable[float]) -> Quantity:
    """Return a quantity of numbers, with the values of the reference."""
    bins = Quantity(name, source, (0.0,) * (len(edges) + 1), edges=tuple(edges))
    return Quantity(name, source, tuple(bins.counted(values).tolist()), edges=tuple(edges))


def counted(predictions: Sequence[Any]) -> dict[str, list[Any]]:
    """Return what is counted of predictions of labels or numbers, by the names of quantities."""
    values: dict[str, list[Any]] = {"label": [], "confidence": [], "value": []}
    for row in predictions:
        if isinstance(row.answer, float | int):
            values["value"].append(row.answer)
            continue
        values["label"] += [row.answer] if isinstance(row.answer, str) else row.answer or (NO_LABEL,)
        if row.probabilities:
            values["confidence"].append(max(row.probabilities))
    return values


def deciles(values: Sequence[float]) -> list[float]:
    """Return where to cut numbers into ten bins of the same size, or fewer where many are equal."""
    return [float(edge) for edge in np.unique(np.quantile(values, np.arange(1, 10) / 10, method="inverted_cdf"))]


@dataclass(frozen=True, slots=True)
class QuantityDrift:
    """How a quantity of the requests of a window differs from the reference."""

    quantity: Quantity
    counts: Floats
    status: Status
    shift: DistributionShift | None
    """None where there are too few values."""

    @property
    def total(self) -> int:
        """Values that were counted."""
        return int(self.counts.sum())


class DriftMonitor:
    """Counts of one version of a model."""

    def __init__(self, quantities: Sequence[Quantity], clock: Callable[[], float] = time.time) -> None:
        self.quantities, self.clock = tuple(quantities), clock
        self.since = clock()
        self._hours: deque[tuple[int, dict[str, Floats]]] = deque(maxlen=HOURS)
        self._lock = threading.Lock()

    def observe(self, **values: Iterable[str | float]) -> None:
        """Count values of quantities by name; those without a reference are left out."""
        with self._lock:
            hour = int(self.clock() // HOUR)
            if not self._hours or self._hours[-1][0] != hour:
                self._hours.append((hour, {each.name: np.zeros(len(each.reference)) for each in self.quantities}))
            counts = self._hours[-1][1]
            for quantity in self.quantities:
                if quantity.name in values:
                    counts[quantity.name] += quantity.counted(values[quantity.name])

    def report(self, hours: int) -> list[QuantityDrift]:
        """Return the drift over the last hours, the present one included."""
        first = int(self.clock() // HOUR) - hours + 1
        with self._lock:
            recent = [counts for hour, counts in self._hours if hour >= first]
            sums = {
                each.name: np.sum([counts[each.name] for counts in recent], axis=0)
                if recent
                else np.zeros(len(each.reference))
                for each in self.quantities
            }
        return [_compared(quantity, sums[quantity.name]) for quantity in self.quantities]


def _compared(quantity: Quantity, counts: Floats) -> QuantityDrift:
    enough = counts.sum() >= FEWEST
    shift = distribution_shift.compare(quantity.reference, counts) if enough else None
    status: Status = "stable" if enough else "too_few"
    if shift is not None and shift.psi >= SMALL_PSI and shift.p < SIGNIFICANT:
        status = "drift" if shift.psi >= LARGE_PSI else "moderate"
    return QuantityDrift(quantity, counts, status, shift)
