"""How long answers are beside their references, and whether long or short ones fare better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tunesmith import records
from tunesmith.evaluation import text_overlap
from tunesmith.evaluation.correlation import correlate
from tunesmith.evaluation.intervals import Confidence, Floats
from tunesmith.types import ResponseRow

SCORE = "rougeL"
"""The score whose relation with length is looked at: F1, so that neither brevity nor verbosity is a merit by itself."""
SHORT, LONG = 0.5, 2.0
"""Answers below and above so many times the reference's words are counted."""
POINTS = 400
"""Most answers that a picture shows, drawn evenly."""


def describe(rows: Sequence[ResponseRow], confidence: Confidence) -> dict[str, Any] | None:
    """Of the answered rows: medians in words, shares of short and long answers, by thirds, and rank correlations.

    {"rows", "response", "reference", "shorter", "longer", "thirds", "correlations", "points"}. A correlation (Spearman)
    is None where one side never varies. None without answers.
    """
    rows = [row for row in rows if row.response is not None]
    if not rows:
        return None
    table = text_overlap.tabulate([row.texts for row in rows])
    ours_N, theirs_N = table.counts[:, text_overlap.SUMMED["length_ratio"]].T
    score_N = text_overlap.each(table)[SCORE]
    step = -(-len(rows) // POINTS)

    def correlation(a_N: Floats, b_N: Floats) -> dict[str, float] | None:
        spearman: dict[str, float] | None = records.dump(correlate(a_N, b_N, confidence, ["spearman"]).spearman)
        return spearman

    return {
        "rows": len(rows),
        "response": float(np.median(ours_N)),
        "reference": float(np.median(theirs_N)),
        "shorter": float(np.mean(ours_N < SHORT * theirs_N)),
        "longer": float(np.mean(ours_N > LONG * theirs_N)),
        "thirds": _thirds(ours_N, theirs_N, score_N),
        "correlations": {
            "words of answer and reference": correlation(ours_N, theirs_N),
            "words of the answer and ROUGE-L": correlation(ours_N, score_N),
            "words of the reference and ROUGE-L": correlation(theirs_N, score_N),
        },
        "points": [[float(theirs), float(ours)] for theirs, ours in zip(theirs_N[::step], ours_N[::step], strict=True)],
    }


def _thirds(ours_N: Floats, theirs_N: Floats, score_N: Floats) -> list[dict[str, Any]]:
    """Rows by the length of their reference: short, middle and long ones, as many of each as ties allow."""
    edges = np.quantile(theirs_N, [1 / 3, 2 / 3])
    third_N = np.searchsorted(edges, theirs_N, side="left")
    found = []
    for third in range(3):
        inside = third_N == third
        if inside.any():
            found.append(
                {
                    "from": int(theirs_N[inside].min()),
                    "to": int(theirs_N[inside].max()),
                    "rows": int(inside.sum()),
                    "words": float(ours_N[inside].mean()),
                    "ratio": float(ours_N[inside].sum() / max(1.0, theirs_N[inside].sum())),
                    SCORE: float(score_N[inside].mean()),
                }
            )
    return found
