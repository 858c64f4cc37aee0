"""Which labels are probably wrong, from probabilities that models give to rows they have not learned from.

Confident learning (Northcutt, Jiang and Chuang, JAIR 2021) counts how often each label seems to stand for another one:
the confident joint. Here the joint is also used to rank rows. It says which labels are confused in this data, and by
Bayes' rule how probable the given label is. Shapes: N rows, K labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Index = NDArray[np.intp]

PSEUDO_ROWS = 10.0
"""Wrong labels that are added to those counted for each label, spread over the others by their frequency."""
POOLING = 0.5
"""Exponent of the counted confusions, between 0 (all are equally frequent) and 1 (as counted)."""
TINY = 1e-12
"""Least probability of a label."""
LEAST, MOST = 1e-4, 0.9
"""Share of the rows of a label that carry another one, at least and at most."""


def thresholds(probabilities_NK: Floats, given_N: Index) -> Floats:
    """Return the mean probability of each label in the rows that carry it; infinite for a label without rows."""
    K = probabilities_NK.shape[1]
    rows_K = np.bincount(given_N, minlength=K)
    sums_K = np.bincount(given_N, probabilities_NK[np.arange(len(given_N)), given_N], minlength=K)
    means_K: Floats = np.divide(sums_K, rows_K, out=np.full(K, np.inf), where=rows_K > 0)
    return means_K


def confident_joint(probabilities_NK: Floats, given_N: Index) -> Floats:
    """Return K x K: the estimated number of rows by given label (row) and true label (column).

    A row counts for the most probable of the labels that reach their threshold, and not at all where none does. Each
    line is then scaled to the rows of its label. A label for which no row counts is taken as right.
    """
    K, threshold_K = probabilities_NK.shape[1], thresholds(probabilities_NK, given_N)
    confident_NK = probabilities_NK >= threshold_K - 1e-9  # all rows of a label may have the same probability
    best_N = np.where(confident_NK, probabilities_NK, -1.0).argmax(axis=1)
    counted_N = confident_NK.any(axis=1)
    cells = given_N[counted_N] * K + best_N[counted_N]
    joint_KK = np.bincount(cells, minlength=K * K).reshape(K, K).astype(np.float64)
    empty_K = joint_KK.sum(axis=1) == 0
    joint_KK[empty_K, empty_K] = 1
    scaled_KK: Floats = joint_KK * (np.bincount(given_N, minlength=K) / joint_KK.sum(axis=1))[:, None]
    return scaled_KK


@dataclass(frozen=True)
class NoiseModel:
    """How often rows of each label carry each label."""

    joint: Floats
    """K x K: the confident joint."""
    log_transition: Floats
    """K x K: log probability of each given label (row) where another label (column) is true, smoothed."""

    @classmethod
    def fit(cls, probabilities_NK: Floats, given_N: Index) -> NoiseModel:
        """Return the model of these rows; the probabilities are by models that have not learned from the row."""
        joint_KK = confident_joint(probabilities_NK, given_N)
        K = len(joint_KK)
        wrong_KK = joint_KK.copy()
        np.fill_diagonal(wrong_KK, 0.0)
        wrong_K, rate = wrong_KK.sum(axis=0), max(wrong_KK.sum(), 1.0) / len(given_N)
        frequency_K = np.bincount(given_N, minlength=K) / len(given_N)
        others_K = 1 - frequency_K
        spread_KK = np.divide(frequency_K[:, None], others_K[None], out=np.zeros((K, K)), where=others_K[None] > 0)
        np.fill_diagonal(spread_KK, 0.0)
        transition_KK = (wrong_KK + PSEUDO_ROWS * spread_KK) / (wrong_K + PSEUDO_ROWS)
        error_K = np.clip((wrong_K + 1) / (joint_KK.sum(axis=0) + 1 / rate), LEAST, MOST)
        transition_KK *= error_K
        transition_KK[np.arange(K), np.arange(K)] = 1 - error_K
        return cls(joint_KK, np.log(np.maximum(transition_KK, TINY)))

    def posterior(self, probabilities_NK: Floats, given_N: Index) -> Floats:
        """Return N x K: how probable each label is for a row, given its text and the label that it carries."""
        scores_NK = self.scores(np.log(np.maximum(probabilities_NK, TINY)), given_N)
        odds_NK = np.exp(scores_NK - scores_NK.max(axis=1, keepdims=True))
        return np.asarray(odds_NK / odds_NK.sum(axis=1, keepdims=True), dtype=np.float64)

    def scores(self, logs_NK: Floats, given_N: Index) -> Floats:
        """Return the logarithm of the same but for a constant a row, from log probabilities."""
        return np.asarray(logs_NK + POOLING * self.log_transition[given_N])


def is_suspect(posterior_NK: Floats, given_N: Index) -> NDArray[np.bool_]:
    """Return whether another label is more probable than the one that a row carries. Scores serve as well."""
    return np.asarray(posterior_NK.max(axis=1) > posterior_NK[np.arange(len(given_N)), given_N])


def suspects(probabilities_NK: Floats, logs_NK: Floats, given_N: Index) -> NDArray[np.bool_]:
    """Return which rows are suspect by a noise model of these rows, from their probabilities and the logarithms."""
    return is_suspect(NoiseModel.fit(probabilities_NK, given_N).scores(logs_NK, given_N), given_N)
