"""How much two distributions over the same bins differ: population stability index, total variation, chi-squared test.

The index (PSI) is what model monitoring uses: below 0.1 a difference counts as none, from 0.25 on as large. Without any
difference it is about 1/n + 1/m times a chi-squared variable (Yurdakul 2018), so that few rows alone make it large;
`psi_by_chance` is what it then stays below in 95 of 100 cases.

Shapes: K bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunesmith.evaluation.intervals import Floats

FEWEST_EXPECTED = 5
"""Rows that a bin needs to be compared on its own, if there were no difference; smaller ones are compared together."""


@dataclass(frozen=True, slots=True)
class DistributionShift:
    """How much two distributions differ."""

    psi: float
    psi_by_chance: float
    distance: float
    """Share of the rows of one that would need another bin (total variation distance)."""
    p: float
    """Of the chi-squared test that both are the same."""


def compare(first: Sequence[float] | Floats, second: Sequence[float] | Floats) -> DistributionShift | None:
    """Return how much two distributions differ, given their counts; None where fewer than two bins have enough rows."""
    from scipy.special import chdtri

    table = pooled(np.asarray([first, second], np.float64))
    bins = table.shape[1]
    if bins < 2:
        return None
    shares = (table + 0.5) / (table + 0.5).sum(axis=1, keepdims=True)
    psi = float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())
    by_chance = float((1 / table.sum(axis=1)).sum() * chdtri(bins - 1, 0.05))
    return DistributionShift(psi, by_chance, total_variation(table), chi_squared_p(table))


def pooled(table: Floats) -> Floats:
    """Return a table of two rows of counts in which bins with too few rows are one. Empty where a row is."""
    if not table.sum(axis=1).all():
        return np.zeros((2, 0))
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    rare_K = (expected < FEWEST_EXPECTED).any(axis=0)
    together = table[:, rare_K].sum(axis=1, keepdims=True)
    return np.hstack([table[:, ~rare_K], together]) if together.any() else table[:, ~rare_K]


def total_variation(table: Floats) -> float:
    """Return the total variation distance of two rows of counts."""
    shares = table / table.sum(axis=1, keepdims=True)
    return float(np.abs(shares[1] - shares[0]).sum() / 2)


def chi_squared_p(table: Floats) -> float:
    """Return the p value of the chi-squared test that two rows of counts have the same shares."""
    from scipy.special import chdtrc

    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    return float(chdtrc(table.shape[1] - 1, float((np.square(table - expected) / expected).sum())))
