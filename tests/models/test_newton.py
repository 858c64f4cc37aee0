"""The regression's optimum against scikit-learn's, and its bits against the number of threads."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from tunesmith.models import newton
from tunesmith.models.newton import ColumnBlocks


def problem(classes: int, rows: int = 400, columns: int = 300) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Sparse rows of unit length whose labels follow from noisy scores."""
    draw = np.random.default_rng(classes)
    features = sparse.random(rows, columns, 0.05, "csr", np.float64, draw, data_rvs=draw.random)
    features = sparse.diags(1 / np.maximum(sparse.linalg.norm(features, axis=1), 1e-9)) @ features
    scores = features @ draw.normal(size=(columns, classes)) * 3 + draw.gumbel(size=(rows, classes))
    return features.tocsr(), scores.argmax(axis=1)


def loss(
    features: sparse.csr_matrix, gold: np.ndarray, scale: np.ndarray, weight: np.ndarray, bias: np.ndarray
) -> float:
    scores = features @ weight.T.astype(float) + bias
    if len(bias) == 1:
        scores = np.hstack([np.zeros_like(scores), scores])
    log_shares = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
    return float(-10 * (scale * log_shares[np.arange(len(gold)), gold]).sum() + 0.5 * (weight.astype(float) ** 2).sum())


@pytest.mark.parametrize("classes", [2, 5, 30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_loss_is_within_a_ten_thousandth_of_the_optimum(classes: int, dtype: type) -> None:
    features, gold = problem(classes)
    scale = np.random.default_rng(0).choice([0.5, 2.0], classes)[gold]
    weight, bias, converged = newton.fit(ColumnBlocks([features.astype(dtype)]), gold, scale, classes, 10.0, 1000)
    model = LogisticRegression(C=10.0, max_iter=10_000, tol=1e-9).fit(features, gold, sample_weight=scale)
    best = loss(features, gold, scale, model.coef_, model.intercept_)
    assert converged
    assert weight.shape == model.coef_.shape
    assert loss(features, gold, scale, weight, bias) == pytest.approx(best, rel=1e-4)


@pytest.mark.parametrize("classes", [2, 5])
def test_threads_change_no_bit(classes: int) -> None:
    features, gold = problem(classes)
    features = features.astype(np.float32)
    blocks = ColumnBlocks([features[:, :50], features[:, 50:170], features[:, 170:]])
    assert blocks.shape == features.shape
    assert (blocks.joined() != features).nnz == 0
    first, *others = (newton.fit(blocks, gold, np.ones(400), classes, 10.0, 1000, threads) for threads in (1, 2, 3))
    for other in others:
        np.testing.assert_array_equal(first[0], other[0])
        np.testing.assert_array_equal(first[1], other[1])


def test_features_of_any_scale_and_separable_rows_converge() -> None:
    draw = np.random.default_rng(0)
    gold = np.arange(200) % 2
    features = 1000 * draw.normal(size=(200, 3)) + 5000 * gold[:, None]
    _, _, converged = newton.fit(ColumnBlocks([features]), gold, np.ones(200), 2, 10.0, 1000)
    assert converged


def test_too_few_iterations_are_told() -> None:
    features, gold = problem(5)
    assert not newton.fit(ColumnBlocks([features]), gold, np.ones(400), 5, 10.0, 1)[2]
