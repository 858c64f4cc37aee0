"""Logistic regression at its optimum, by Newton's method with conjugate gradients (Lin, Weng and Keerthi, JMLR 2008).

Only products with the features are needed, and they are in the features' own precision and in several threads. The
features are split by columns, always in the same places: the threads write apart from each other, and their number
changes no bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith import hardware

Floats = NDArray[np.floating[Any]]
RESIDUAL = 0.4
"""Conjugate gradients stop where the residual of the Newton step has fallen to this share."""
STEPS = 500
"""Of conjugate gradients in one iteration, at most."""
TOLERANCE = 1e-4
"""The last iteration is the one that lowers the loss by less than this share. What is left is far less."""


@dataclass(frozen=True)
class ColumnBlocks:
    """Features, N x D, as blocks of neighbouring columns: CSR matrices or arrays."""

    blocks: Sequence[Any]

    @property
    def shape(self) -> tuple[int, int]:
        return self.blocks[0].shape[0], sum(block.shape[1] for block in self.blocks)

    def joined(self) -> Any:
        """Return the features as one CSR matrix, or one array."""
        from scipy import sparse

        return self.blocks[0] if len(self.blocks) == 1 else sparse.hstack(self.blocks, format="csr")


@dataclass(frozen=True)
class _Products:
    """Products with the features, one block a thread."""

    features: ColumnBlocks
    pool: ThreadPoolExecutor

    def scores(self, weight_DK: Floats, bias_K: Floats) -> Floats:
        """Return N x K."""
        edges = np.cumsum([0] + [block.shape[1] for block in self.features.blocks])
        slices = [weight_DK[start:end] for start, end in pairwise(edges)]
        first, *others = self.pool.map(lambda pair: pair[0] @ pair[1], zip(self.features.blocks, slices, strict=True))
        for part in others:
            first += part
        first += bias_K
        return np.asarray(first)

    def gradient(self, residuals_NK: Floats) -> tuple[Floats, Floats]:
        """Return D x K for the weights, and K for the bias."""
        parts = list(self.pool.map(lambda block: block.T @ residuals_NK, self.features.blocks))
        return np.concatenate(parts) if len(parts) > 1 else parts[0], residuals_NK.sum(axis=0)


class _Loss:
    """Cross-entropy of N rows, times their weights. One column of scores is that of the second of two classes."""

    def __init__(self, gold_N: NDArray[np.intp], scale_N: Floats, classes: int) -> None:
        self.gold, self.scale, self.rows = gold_N, scale_N[:, None], np.arange(len(gold_N))
        self.binary = classes == 2

    def value(self, scores_NK: Floats) -> float:
        if self.binary:
            margins_N = scores_NK[:, 0] * (1 - 2 * self.gold).astype(scores_NK.dtype)
            losses_N = np.logaddexp(0, margins_N)
        else:
            top_N = scores_NK.max(axis=1)
            losses_N = np.log(np.exp(scores_NK - top_N[:, None]).sum(axis=1)) + top_N - scores_NK[self.rows, self.gold]
        return _dot(losses_N, self.scale[:, 0])

    def probabilities(self, scores_NK: Floats) -> Floats:
        if self.binary:
            return np.asarray(0.5 + 0.5 * np.tanh(0.5 * scores_NK))
        shares_NK: Floats = scores_NK - scores_NK.max(axis=1, keepdims=True)
        np.exp(shares_NK, out=shares_NK)
        shares_NK /= shares_NK.sum(axis=1, keepdims=True)
        return shares_NK

    def gradient(self, shares_NK: Floats) -> Floats:
        residuals_NK = shares_NK.copy()
        residuals_NK[self.rows, 0 if self.binary else self.gold] -= self.gold if self.binary else 1
        residuals_NK *= self.scale
        return residuals_NK

    def curvature(self, shares_NK: Floats, change_NK: Floats) -> Floats:
        """Return the change of the gradient where the scores change."""
        mean_N1 = shares_NK * change_NK if self.binary else np.einsum("nk,nk->n", shares_NK, change_NK)[:, None]
        curved_NK = change_NK - mean_N1
        curved_NK *= shares_NK
        curved_NK *= self.scale
        return curved_NK


class _LabelLoss:
    """Binary cross-entropy of N rows for each of K labels, times weights, N x K."""

    def __init__(self, known_NK: NDArray[np.bool_], scale_NK: Floats) -> None:
        self.known, self.scale = known_NK, scale_NK

    def value(self, scores_NK: Floats) -> float:
        return _dot(np.logaddexp(0, np.where(self.known, -scores_NK, scores_NK)), self.scale)

    def probabilities(self, scores_NK: Floats) -> Floats:
        return np.asarray(0.5 + 0.5 * np.tanh(0.5 * scores_NK))

    def gradient(self, shares_NK: Floats) -> Floats:
        return (shares_NK - self.known.astype(shares_NK.dtype)) * self.scale

    def curvature(self, shares_NK: Floats, change_NK: Floats) -> Floats:
        """Return the change of the gradient where the scores change."""
        return shares_NK * (1 - shares_NK) * self.scale * change_NK


def fit(
    features: ColumnBlocks,
    gold: NDArray[np.intp],
    row_weights: NDArray[np.float64],
    classes: int,
    C: float,
    max_iter: int,
    threads: int | None = None,
) -> tuple[NDArray[Any], NDArray[Any], bool]:
    """Return weight (classes x features), bias (classes), and whether `max_iter` iterations were enough.

    Minimised is C times the weighted sum of cross-entropies plus half the squared weights; the bias has no penalty.
    Two classes have one row. Equal inputs give equal bits, of sparse features with any number of threads.
    """
    dtype = features.blocks[0].dtype
    loss = _Loss(gold, (C * row_weights).astype(dtype), classes)
    counts_K = np.bincount(gold, row_weights, minlength=classes)
    log_prior_K = np.log(np.maximum(counts_K, 1e-3 * counts_K.max()))
    bias_K = log_prior_K[1:] - log_prior_K[:1] if classes == 2 else log_prior_K - log_prior_K.mean()
    return _minimize(features, loss, bias_K.astype(dtype), max_iter, threads)


def fit_labels(
    features: ColumnBlocks,
    known_NK: NDArray[np.bool_],
    positive_weights_K: NDArray[np.float64],
    row_weights_N: NDArray[np.float64],
    C: float,
    max_iter: int,
    threads: int | None = None,
) -> tuple[NDArray[Any], NDArray[Any], bool]:
    """Fit a logistic regression for each of K labels, all at once, whether or not the others apply.

    known_NK: which label each row has. positive_weights_K: weight of the rows that have it, besides their own. Returns
    the same as `fit`.
    """
    dtype = features.blocks[0].dtype
    weights_NK = np.where(known_NK, positive_weights_K, 1.0) * row_weights_N[:, None]
    with_label_K = np.maximum((weights_NK * known_NK).sum(axis=0), 0.5)
    without_K = np.maximum((weights_NK * ~known_NK).sum(axis=0), 0.5)
    loss = _LabelLoss(known_NK, (C * weights_NK).astype(dtype))
    return _minimize(features, loss, np.log(with_label_K / without_K).astype(dtype), max_iter, threads)


def _minimize(
    features: ColumnBlocks, loss: _Loss | _LabelLoss, bias_K: Floats, max_iter: int, threads: int | None
) -> tuple[NDArray[Any], NDArray[Any], bool]:
    weight_DK = np.zeros((features.shape[1], len(bias_K)), bias_K.dtype)
    with ThreadPoolExecutor(threads or hardware.threads()) as pool:
        products = _Products(features, pool)
        scores_NK = np.tile(bias_K, (features.shape[0], 1))
        value, converged = loss.value(scores_NK), False
        for _ in range(max_iter):
            shares_NK = loss.probabilities(scores_NK)
            slope_DK, slope_K = products.gradient(loss.gradient(shares_NK))
            slope_DK += weight_DK
            step = _step(products, loss, shares_NK, (slope_DK, slope_K))
            descent = _dot(slope_DK, step.weight) + _dot(slope_K, step.bias)
            del slope_DK, shares_NK
            size, value_now = _line_search(loss, weight_DK, step, scores_NK, value, descent)
            weight_DK += size * step.weight
            bias_K += size * step.bias
            scores_NK += size * step.scores
            converged, value = -descent <= 2 * TOLERANCE * value, value_now
            if converged:
                break
    return np.ascontiguousarray(weight_DK.T), bias_K, converged


@dataclass(frozen=True)
class _Step:
    """A change of the weights (D x K) and the bias (K), and the change of the scores (N x K) that it makes."""

    weight: Floats
    bias: Floats
    scores: Floats


def _step(products: _Products, loss: _Loss | _LabelLoss, shares_NK: Floats, slope: tuple[Floats, Floats]) -> _Step:
    """Solve for the Newton step by conjugate gradients, until the residual is RESIDUAL of the gradient."""
    residual_DK, residual_K = -slope[0], -slope[1]
    step = _Step(np.zeros_like(residual_DK), np.zeros_like(residual_K), np.zeros_like(shares_NK))
    direction_DK, direction_K = residual_DK.copy(), residual_K.copy()
    norm = first = _dot(residual_DK, residual_DK) + _dot(residual_K, residual_K)
    for _ in range(STEPS):
        change_NK = products.scores(direction_DK, direction_K)
        curved_DK, curved_K = products.gradient(loss.curvature(shares_NK, change_NK))
        curved_DK += direction_DK
        curvature = _dot(direction_DK, curved_DK) + _dot(direction_K, curved_K)
        if curvature <= 0:
            break
        size = residual_DK.dtype.type(norm / curvature)
        for total, part in ((step.weight, direction_DK), (step.bias, direction_K), (step.scores, change_NK)):
            total += size * part
        residual_DK -= size * curved_DK
        residual_K -= size * curved_K
        before, norm = norm, _dot(residual_DK, residual_DK) + _dot(residual_K, residual_K)
        if norm <= RESIDUAL**2 * first:
            break
        share = residual_DK.dtype.type(norm / before)
        for direction, residual in ((direction_DK, residual_DK), (direction_K, residual_K)):
            direction *= share
            direction += residual
    return step


def _line_search(
    loss: _Loss | _LabelLoss, weight_DK: Floats, step: _Step, scores_NK: Floats, value: float, descent: float
) -> tuple[Any, float]:
    """Return the largest of 1, 1/2, 1/4... that lowers the loss enough (Armijo), and the loss there.

    The loss needs no product here: the scores change in a straight line.
    """
    squares = _dot(weight_DK, weight_DK), _dot(weight_DK, step.weight), _dot(step.weight, step.weight)
    size = 1.0
    while True:
        moved = loss.value(scores_NK + scores_NK.dtype.type(size) * step.scores)
        moved += 0.5 * squares[0] + size * squares[1] + 0.5 * size * size * squares[2]
        if moved <= value + 1e-4 * size * descent + 1e-7 * abs(value) or size < 1e-6:
            return scores_NK.dtype.type(size), moved
        size /= 2


def _dot(first: Floats, second: Floats) -> float:
    """Return the sum of products. Not BLAS, whose bits depend on the number of threads."""
    return float(np.sum(first * second, dtype=np.float64))
