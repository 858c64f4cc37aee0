"""Ridge regression against scikit-learn's, on sparse and dense features."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import Ridge

from tunesmith.models import ridge
from tunesmith.models.newton import ColumnBlocks


@pytest.mark.parametrize("kind", ["sparse", "dense"])
@pytest.mark.parametrize("C", [0.1, 10.0])
def test_the_optimum_is_that_of_scikit_learn(kind: str, C: float) -> None:
    draw = np.random.default_rng(0)
    table = sparse.random(300, 80, 0.2, format="csr", random_state=1)
    features = table if kind == "sparse" else table.toarray()
    values = table @ draw.normal(size=80) + 3 + draw.normal(size=300)
    halves = ColumnBlocks([features[:, :30], features[:, 30:]]) if kind == "sparse" else ColumnBlocks([features])
    row_weights = draw.choice([0.5, 2.0], 300)
    weight, bias, converged = ridge.fit(halves, values, row_weights, C, 1000)
    expected = Ridge(alpha=1 / C, tol=1e-10).fit(table.toarray(), values, sample_weight=row_weights)
    assert converged
    np.testing.assert_allclose(weight[0], expected.coef_, atol=1e-4)
    np.testing.assert_allclose(bias[0], expected.intercept_, atol=1e-4)
    assert not ridge.fit(halves, values, row_weights, C, 2)[2]
