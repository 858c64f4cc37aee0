"""How long answers are beside their references, and whether long or short ones fare better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tunesmith.evaluation import overlap
from tunesmith.evaluation.intervals import Floats, Index, bootstrap, percentile
from tunesmith.recipe import Evaluate

SCORE = "rougeL"
"""The score whose relation with length is looked at: F1, so that neither brevity nor verbosity is a merit by itself."""
SHORT, LONG = 0.5, 2.0
"""Answers below and above so many times the reference's words are counted."""
POINTS = 400
"""Most answers that a picture shows, drawn evenly."""


def describe(rows: Sequence[Mapping[str, Any]], settings: Evaluate, seed: int) -> dict[str, Any] | None:
    """Of the answered rows: medians in words, shares of short and long answers, by thirds, and rank correlations.

    {"rows", "response", "reference", "shorter", "longer", "thirds", "correlations", "points"}. A correlation (Spearman)
    is None where one side never varies; its interval is a percentile bootstrap of the ranks. None without answers.
    """
    rows = [row for row in rows if row.get("response") is not None]
    if not rows:
        return None
    table = overlap.tabulate(rows)
    ours_N, theirs_N = table.counts[:, overlap.SUMMED["length_ratio"]].T
    score_N = overlap.each(table)[SCORE]
    step = -(-len(rows) // POINTS)
    return {
        "rows": len(rows),
        "response": float(np.median(ours_N)),
        "reference": float(np.median(theirs_N)),
        "shorter": float(np.mean(ours_N < SHORT * theirs_N)),
        "longer": float(np.mean(ours_N > LONG * theirs_N)),
        "thirds": _thirds(ours_N, theirs_N, score_N),
        "correlations": {
            "words of answer and reference": correlate(ours_N, theirs_N, settings, seed),
            "words of the answer and ROUGE-L": correlate(ours_N, score_N, settings, seed),
            "words of the reference and ROUGE-L": correlate(theirs_N, score_N, settings, seed),
        },
        "points": [[float(theirs), float(ours)] for theirs, ours in zip(theirs_N[::step], ours_N[::step], strict=True)],
    }


def correlate(a_N: Floats, b_N: Floats, settings: Evaluate, seed: int) -> dict[str, float] | None:
    """Spearman's rank correlation with its interval; None where it is not defined."""
    from scipy.stats import rankdata

    ranks_N2 = np.stack([rankdata(a_N), rankdata(b_N)], axis=1)
    if len(a_N) < 3 or (ranks_N2 == ranks_N2[0]).all(0).any():
        return None

    def measure(draws_BN: Index) -> dict[str, Floats]:
        x_BN, y_BN = (column[draws_BN] - column.mean() for column in ranks_N2.T)
        x_BN, y_BN = x_BN - x_BN.mean(1, keepdims=True), y_BN - y_BN.mean(1, keepdims=True)
        spread_B = np.sqrt((x_BN**2).sum(1) * (y_BN**2).sum(1))
        shared_B = (x_BN * y_BN).sum(1)
        return {"rho": np.divide(shared_B, spread_B, out=np.zeros_like(shared_B), where=spread_B > 0)}

    value = float(measure(np.arange(len(a_N))[None])["rho"][0])
    drawn = bootstrap(measure, len(a_N), settings.bootstrap_samples, seed)["rho"]
    low, high = percentile(value, drawn, settings.confidence)
    return {"value": value, "low": low, "high": high}


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
