"""Ridge regression at its optimum, by LSQR (Paige and Saunders 1982) on centred features, which are never stored."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tunesmith.models.newton import ColumnBlocks

Floats = NDArray[np.float64]
TOLERANCE = 1e-6
"""Relative precision of the solution's residual."""


def fit(features: ColumnBlocks, values_N: Floats, C: float, max_iter: int) -> tuple[Floats, Floats, bool]:
    """Return weight (1 x features), bias (1), and whether `max_iter` iterations were enough.

    Minimised is C times half the sum of squared errors plus half the squared weights; the bias has no penalty.
    """
    from scipy.sparse.linalg import LinearOperator, lsqr

    table = features.joined()
    rows, columns = table.shape
    mean_D = np.asarray(table.mean(axis=0)).ravel()
    centred = LinearOperator(
        (rows, columns),
        matvec=lambda weight_D: table @ weight_D - mean_D @ weight_D,
        rmatvec=lambda errors_N: table.T @ errors_N - mean_D * errors_N.sum(),
        dtype=np.float64,
    )
    mean = values_N.mean()
    weight_D, stop, *_ = lsqr(centred, values_N - mean, C**-0.5, TOLERANCE, TOLERANCE, iter_lim=max_iter)
    return weight_D[None], np.array([mean - mean_D @ weight_D]), stop != 7
