"""Ridge regression at its optimum, by LSQR (Paige and Saunders 1982) on centred features, which are never stored."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tunesmith.models.newton import ColumnBlocks

Floats = NDArray[np.float64]
TOLERANCE = 1e-6
"""Relative precision of the solution's residual."""


def fit(
    features: ColumnBlocks, values_N: Floats, row_weights_N: Floats, C: float, max_iter: int
) -> tuple[Floats, Floats, bool]:
    """Return weight (1 x features), bias (1), and whether `max_iter` iterations were enough.

    Minimised is C times half the weighted sum of squared errors plus half the squared weights; the bias has no penalty.
    """
    from scipy.sparse.linalg import LinearOperator, lsqr

    table, total = features.joined(), row_weights_N.sum()
    scale_N = np.sqrt(row_weights_N)
    mean_D, mean = table.T @ row_weights_N / total, values_N @ row_weights_N / total
    centred = LinearOperator(
        table.shape,
        matvec=lambda weight_D: scale_N * (table @ weight_D - mean_D @ weight_D),
        rmatvec=lambda errors_N: table.T @ (scale_N * errors_N) - mean_D * (scale_N @ errors_N),
        dtype=np.float64,
    )
    errors_N = scale_N * (values_N - mean)
    weight_D, stop, *_ = lsqr(centred, errors_N, C**-0.5, TOLERANCE, TOLERANCE, iter_lim=max_iter)
    return weight_D[None], np.array([mean - mean_D @ weight_D]), stop != 7
