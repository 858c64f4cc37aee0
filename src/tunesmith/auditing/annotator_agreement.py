"""How far several annotators of the same rows agree, with each other and with the label that was given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tunesmith.evaluation.intervals import Confidence, Estimate, Floats, Index, estimates
from tunesmith.records import omitted_if_none

Votes = Mapping[str, int]
"""How many annotators gave each label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatorAgreement:
    """The votes of annotators on the rows that have any."""

    rows: int
    votes: int
    """On all rows."""
    for_given: Estimate
    """Mean share of a row's votes that are for its given label."""
    disagreement: int
    """Rows whose votes are not all for one label."""
    contradicted: int
    """Rows on which another label has more votes than the given one."""
    alpha: Estimate | None = omitted_if_none()
    """Krippendorff's alpha for labels without order: 1 is perfect agreement, 0 that of chance. None where no row has
    two votes, or where all votes are for one label."""
    auroc: Estimate | None = omitted_if_none()
    """How well the ranking of suspect labels finds the rows with disagreement: 1 is perfectly, 0.5 by chance."""


def measure(
    votes: Sequence[Votes | None], given: Sequence[str], quality_N: Floats, confidence: Confidence
) -> AnnotatorAgreement:
    """Return the agreement on the rows that have votes. Raises ValueError where none has any.

    quality_N: how probable the given labels are by a model.
    """
    places = [n for n, row in enumerate(votes) if row and sum(row.values())]
    if not places:
        raise ValueError("no row has votes")
    labels = sorted({label for n in places for label in (votes[n] or {})} | {given[n] for n in places})
    column = {label: k for k, label in enumerate(labels)}
    counts_MK = np.zeros((len(places), len(labels)))
    for m, n in enumerate(places):
        for label, count in (votes[n] or {}).items():
            counts_MK[m, column[label]] += count
    carried_M = np.array([column[given[n]] for n in places])
    totals_M = counts_MK.sum(axis=1)
    own_M = counts_MK[np.arange(len(places)), carried_M]
    disagree_M = counts_MK.max(axis=1) < totals_M
    shares_M, suspicion_M = own_M / totals_M, -quality_N[places]

    def statistics(draws_BM: Index) -> dict[str, Floats]:
        return {
            "for_given": shares_M[draws_BM].mean(axis=1),
            "alpha": np.array([alpha(counts_MK[draw_M]) for draw_M in draws_BM]),
            "auroc": np.array([auroc(suspicion_M[draw_M], disagree_M[draw_M]) for draw_M in draws_BM]),
        }

    measured = estimates(statistics, len(places), confidence)
    return AnnotatorAgreement(
        rows=len(places),
        votes=int(totals_M.sum()),
        for_given=measured["for_given"],
        disagreement=int(disagree_M.sum()),
        contradicted=int((counts_MK.max(axis=1) > own_M).sum()),
        alpha=None if np.isnan(measured["alpha"].value) else measured["alpha"],
        auroc=None if np.isnan(measured["auroc"].value) else measured["auroc"],
    )


def majority(votes: Votes) -> str | None:
    """Return the label with most votes; None of a tie."""
    ranked = sorted(votes.items(), key=lambda item: (-item[1], item[0]))
    return None if not ranked or (len(ranked) > 1 and ranked[0][1] == ranked[1][1]) else ranked[0][0]


def alpha(counts_MK: Floats) -> float:
    """Return Krippendorff's alpha of votes, rows x labels; NaN where it is not defined."""
    paired_MK = counts_MK[counts_MK.sum(axis=1) >= 2]
    totals_M, totals_K = paired_MK.sum(axis=1), paired_MK.sum(axis=0)
    every = totals_M.sum()
    expected = every**2 - (totals_K**2).sum()
    if not expected:
        return float("nan")
    observed = ((totals_M**2 - (paired_MK**2).sum(axis=1)) / np.maximum(totals_M - 1, 1)).sum()
    return float(1 - (every - 1) * observed / expected)


def auroc(scores_N: Floats, positive_N: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> float:
    """Return the area under the ROC curve of scores, ties counted half; NaN where all rows are alike."""
    positives = int(positive_N.sum())
    negatives = len(positive_N) - positives
    if not positives or not negatives:
        return float("nan")
    values, inverse = np.unique(scores_N, return_inverse=True)
    counts = np.bincount(inverse, minlength=len(values))
    ranks = np.cumsum(counts) - (counts - 1) / 2
    return float((ranks[inverse][positive_N].sum() - positives * (positives + 1) / 2) / (positives * negatives))
