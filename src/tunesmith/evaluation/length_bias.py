"""How long responses are compared with their references, and whether long or short ones score better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunesmith.evaluation import text_overlap
from tunesmith.evaluation.correlation import correlate
from tunesmith.evaluation.intervals import Confidence, Estimate
from tunesmith.types import ResponseRow

SCORE = "rougeL"
"""The score whose relation with length is looked at: F1, so that neither brevity nor verbosity is a merit by itself."""
SHORT, LONG = 0.5, 2.0
"""Responses with less or more than this many times the reference's words are counted."""
POINTS = 400
"""Most responses that a picture shows, evenly chosen."""


@dataclass(frozen=True, slots=True)
class LengthGroup:
    """Rows whose references are about equally long."""

    shortest: int
    """Words of the shortest reference."""
    longest: int
    rows: int
    words: float
    """Mean words of the response."""
    ratio: float
    """Words of all responses over words of all references."""
    score: float
    """Mean SCORE."""


@dataclass(frozen=True, slots=True)
class LengthBias:
    """The lengths of answered rows, in words."""

    rows: int
    response: float
    """The median."""
    reference: float
    """The median."""
    shorter: float
    """The share of responses with less than SHORT times the reference's words."""
    longer: float
    thirds: tuple[LengthGroup, ...]
    """Short, middle and long references, as many of each as ties allow."""
    correlations: dict[str, Estimate | None]
    """Spearman's; None where one side never varies."""
    points: tuple[tuple[float, float], ...]
    """(words of the reference, words of the response)."""


def describe(rows: Sequence[ResponseRow], confidence: Confidence) -> LengthBias | None:
    """Return how the lengths of responses relate to references and scores; None where nothing was answered."""
    rows = [row for row in rows if row.response is not None]
    if not rows:
        return None
    table = text_overlap.tabulate([row.texts for row in rows])
    response_N, reference_N = table.counts[:, text_overlap.SUMMED["length_ratio"]].T
    score_N = text_overlap.each(table)[SCORE]
    step = -(-len(rows) // POINTS)
    points = zip(reference_N[::step].tolist(), response_N[::step].tolist(), strict=True)
    sides = {
        "words of answer and reference": (response_N, reference_N),
        "words of the answer and ROUGE-L": (response_N, score_N),
        "words of the reference and ROUGE-L": (reference_N, score_N),
    }
    third_N = np.searchsorted(np.quantile(reference_N, [1 / 3, 2 / 3]), reference_N, side="left")
    thirds = [
        LengthGroup(
            shortest=int(reference_N[inside].min()),
            longest=int(reference_N[inside].max()),
            rows=int(inside.sum()),
            words=float(response_N[inside].mean()),
            ratio=float(response_N[inside].sum() / max(1.0, reference_N[inside].sum())),
            score=float(score_N[inside].mean()),
        )
        for inside in (third_N == third for third in range(3))
        if inside.any()
    ]
    return LengthBias(
        rows=len(rows),
        response=float(np.median(response_N)),
        reference=float(np.median(reference_N)),
        shorter=float(np.mean(response_N < SHORT * reference_N)),
        longer=float(np.mean(response_N > LONG * reference_N)),
        thirds=tuple(thirds),
        correlations={name: correlate(a, b, confidence, ["spearman"]).spearman for name, (a, b) in sides.items()},
        points=tuple(points),
    )
