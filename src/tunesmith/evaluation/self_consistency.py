"""Where several answers to one prompt agree, they may stand for a label: votes, and what a threshold keeps. Pure."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from tunesmith.evaluation.intervals import wilson

POINTS = 20
"""Thresholds on a curve, at most."""
NUMBER = re.compile(r"-?\$?\d[\d,]*(?:\.\d+)?|-?\$?\.\d+")
FINAL = re.compile(r"(?:####|\\boxed\{|answer is:?)\s*", re.IGNORECASE)
"""What announces the final answer of a sum."""


@dataclass(frozen=True, slots=True)
class Vote:
    """What most answers say. place: of the first answer that says it; None where none says anything."""

    place: int | None
    agreement: float
    """Share of all answers, those that say nothing among them."""
    tied: bool = False
    counts: tuple[tuple[str, int], ...] = ()
    """How many answers say what, most first."""


def as_text(answer: str) -> str | None:
    """An answer as it is compared: without case, spacing, and the punctuation around it. None for an empty one."""
    return " ".join(answer.split()).casefold().strip(string.punctuation + " ") or None


def as_number(answer: str) -> str | None:
    """The final number of an answer: behind `####`, `\\boxed{` or `answer is`, else the last; None without one."""
    announced = FINAL.split(answer)
    places = NUMBER.findall(announced[-1])[:1] if len(announced) > 1 else NUMBER.findall(answer)[-1:]
    if not places:
        return as_number(announced[-2]) if len(announced) > 1 and announced[-2].strip() else None
    try:
        number = Decimal(places[0].replace(",", "").replace("$", ""))
    except InvalidOperation:
        return None
    return format(number.normalize(), "f") if number else "0"


READ: dict[str, Callable[[str], str | None]] = {"text": as_text, "number": as_number}
"""How answers are compared, by name."""


def vote(answers: Sequence[str | None]) -> Vote:
    """The majority among answers as they are compared; None votes for nothing and counts against all."""
    counts = Counter(one for one in answers if one is not None)
    if not counts:
        return Vote(None, 0.0)
    ranked = counts.most_common()
    tied = len(ranked) > 1 and ranked[0][1] == ranked[1][1]
    return Vote(answers.index(ranked[0][0]), ranked[0][1] / len(answers), tied, tuple(ranked))


def curve(rows: Sequence[tuple[float, bool]], chosen: float, confidence: float) -> list[dict[str, Any]]:
    """Per threshold the share of labelled rows that it keeps, and the share of those that are right, with intervals.

    rows: agreement, and whether the row's own label says the same. Thresholds are the agreements seen, thinned, and the
    `chosen` one.
    """
    levels = sorted({agreement for agreement, _ in rows})
    step = max(1, -(-len(levels) // POINTS))
    return [at(rows, threshold, confidence) for threshold in sorted({*levels[::step], chosen})]


def at(rows: Sequence[tuple[float, bool]], threshold: float, confidence: float) -> dict[str, Any]:
    """One point of `curve`; precision is None where nothing is kept."""
    kept = [right for agreement, right in rows if agreement >= threshold]
    precision: Mapping[str, float] | None = None
    if kept:
        low, high = wilson(sum(kept), len(kept), confidence)
        precision = {"value": sum(kept) / len(kept), "low": low, "high": high}
    return {"threshold": threshold, "kept": len(kept), "coverage": len(kept) / len(rows), "precision": precision}
