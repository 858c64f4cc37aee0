"""How many rows something concerns, and which."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

SHOWN = 5
"""Ids that a count names."""


@dataclass(frozen=True, slots=True)
class RowCount:
    """A number of rows, and the ids of the first of them."""

    rows: int
    where: tuple[str, ...]

    @classmethod
    def of(cls, ids: Iterable[str]) -> RowCount:
        """Count rows by their ids."""
        ids = tuple(ids)
        return cls(len(ids), ids[:SHOWN])
