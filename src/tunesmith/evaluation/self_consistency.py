"""Self-consistency: where several answers to one prompt agree, the majority may serve as a label."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from tunesmith.evaluation.intervals import Estimate

POINTS = 20
"""Thresholds on a curve, at most."""
NUMBER = re.compile(r"-?\$?\d[\d,]*(?:\.\d+)?|-?\$?\.\d+")
FINAL = re.compile(r"(?:####|\\boxed\{|answer is:?)\s*", re.IGNORECASE)
"""What announces the final answer to an arithmetic question."""


@dataclass(frozen=True, slots=True)
class Vote:
    """The majority among several answers."""

    index: int | None
    """Of the first answer of the majority; None where no answer counts."""
    agreement: float
    """Its share of all answers, those that do not count among them."""
    tied: bool = False
    counts: tuple[tuple[str, int], ...] = ()
    """How many answers say what, most frequent first."""


@dataclass(frozen=True, slots=True)
class ThresholdPoint:
    """What a threshold on the agreement keeps."""

    threshold: float
    kept: int
    coverage: float
    """Share of the labelled rows that are kept."""
    precision: Estimate | None
    """Share of the kept rows that are right; None where nothing is kept."""


def normalized_text(answer: str) -> str | None:
    """Return an answer without case, spacing and outer punctuation; None for an empty one."""
    return " ".join(answer.split()).casefold().strip(string.punctuation + " ") or None


def final_number(answer: str) -> str | None:
    """Return the final number: after `####`, `\\boxed{` or `answer is`, else the last one; None without a number."""
    parts = FINAL.split(answer)
    numbers = NUMBER.findall(parts[-1])[:1] if len(parts) > 1 else NUMBER.findall(answer)[-1:]
    if not numbers:
        return final_number(parts[-2]) if len(parts) > 1 and parts[-2].strip() else None
    try:
        number = Decimal(numbers[0].replace(",", "").replace("$", ""))
    except InvalidOperation:
        return None
    return format(number.normalize(), "f") if number else "0"


COMPARISONS: dict[str, Callable[[str], str | None]] = {"text": normalized_text, "number": final_number}
"""What of an answer is compared, by name."""


def vote(answers: Sequence[str | None]) -> Vote:
    """Return the majority; None does not vote, and counts against every answer."""
    counts = Counter(answer for answer in answers if answer is not None)
    if not counts:
        return Vote(None, 0.0)
    ranked = counts.most_common()
    tied = len(ranked) > 1 and ranked[0][1] == ranked[1][1]
    return Vote(answers.index(ranked[0][0]), ranked[0][1] / len(answers), tied, tuple(ranked))


def threshold_curve(rows: Sequence[tuple[float, bool]], chosen: float, confidence: float) -> tuple[ThresholdPoint, ...]:
    """Return coverage and precision at the agreements seen, thinned, and at the `chosen` threshold.

    rows: agreement of each labelled row, and whether the majority is its own label.
    """
    levels = sorted({agreement for agreement, _ in rows})
    step = max(1, -(-len(levels) // POINTS))
    return tuple(at_threshold(rows, threshold, confidence) for threshold in sorted({*levels[::step], chosen}))


def at_threshold(rows: Sequence[tuple[float, bool]], threshold: float, confidence: float) -> ThresholdPoint:
    """Return coverage and precision at one threshold."""
    kept = [right for agreement, right in rows if agreement >= threshold]
    precision = Estimate.share(sum(kept), len(kept), confidence) if kept else None
    return ThresholdPoint(threshold, len(kept), len(kept) / len(rows), precision)
