"""Scores of labels that have an order. Shapes: N rows, B resamples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunesmith.evaluation.intervals import Floats, Index

HIGHER_IS_BETTER = {"mae": False, "qwk": True, "within_one": True}


@dataclass(frozen=True, slots=True)
class OrderedColumns:
    """Gold and predicted labels as ranks, and how far they are apart."""

    gold: Floats
    """Ranks from 0."""
    predicted: Floats
    error: Floats
    """Distance in the unit of the labels."""


def columns(gold_N: Index, predicted_N: Index, values: Sequence[float]) -> OrderedColumns:
    """Return the columns of places among labels, which have these values, rising.

    A prediction that is no label (place K) counts as the label that is furthest from the gold one.
    """
    values_K = np.array(values)
    lowest_N = values_K[gold_N] - values_K[0] >= values_K[-1] - values_K[gold_N]
    furthest_N = np.where(lowest_N, 0, len(values_K) - 1)
    predicted_N = np.where(predicted_N < len(values_K), predicted_N, furthest_N)
    error_N = np.abs(values_K[gold_N] - values_K[predicted_N])
    return OrderedColumns(gold_N.astype(np.float64), predicted_N.astype(np.float64), error_N)


def measure(ordered: OrderedColumns, draws_BN: Index) -> dict[str, Floats]:
    """Return the scores of each line of `draws_BN` (row numbers): {name: B}.

    `mae` is in the unit of the labels; `qwk` is Cohen's kappa with weights that grow with the squared difference of
    ranks (Cohen 1968; 0 where all drawn rows have one rank); `within_one` the share of rows at most one rank off.
    """
    gold_BN, predicted_BN = ordered.gold[draws_BN], ordered.predicted[draws_BN]
    squared_BN = (gold_BN - predicted_BN) ** 2
    shift_B = gold_BN.mean(axis=1) - predicted_BN.mean(axis=1)
    by_chance_B = gold_BN.var(axis=1) + predicted_BN.var(axis=1) + shift_B**2
    observed_B = squared_BN.mean(axis=1)
    return {
        "mae": ordered.error[draws_BN].mean(axis=1),
        "qwk": 1 - np.divide(observed_B, by_chance_B, out=np.ones(len(draws_BN)), where=by_chance_B > 0),
        "within_one": (squared_BN <= 1).mean(axis=1),
    }
