"""Whether a model gives the same answer twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tunesmith.records import omitted_if_none

FILE = "determinism.json"


@dataclass(frozen=True, slots=True)
class Determinism:
    """determinism.json: what a model answered to rows that it was asked twice."""

    rows: int
    changed: int
    """Rows whose second reply is another text."""
    answer_changed: int | None = omitted_if_none()
    """Rows whose second reply means another label, other labels or another number; None where texts are the answer."""


def compare(
    texts: tuple[Sequence[str], Sequence[str]], answers: tuple[Sequence[object], Sequence[object]] | None = None
) -> Determinism:
    """Return how often the second reply to a row differs from the first.

    texts: all first replies and all second ones, in the order of the rows. answers: what each of them was read as: a
    label (`NO_LABEL` where there is none), a tuple of labels, or a number; None where the text is the answer.
    """
    return Determinism(len(texts[0]), _changed(*texts), None if answers is None else _changed(*answers))


def _changed(first: Sequence[object], second: Sequence[object]) -> int:
    return sum(a != b for a, b in zip(first, second, strict=True))
