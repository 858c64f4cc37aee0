"""Several labels a text: where an output layer begins."""

from __future__ import annotations

import numpy as np
import pytest

from tunesmith.tasks.multilabel import MultiLabel
from tunesmith.types import Example


@pytest.mark.parametrize("weights", [(1.0, 1.0), (5.0, 0.5)])
def test_log_odds_are_where_the_loss_of_constant_logits_is_lowest(weights: tuple[float, float]) -> None:
    """Its gradient is what half a row more with each label, and half a row more without, add."""
    labels = [("a",)] * 30 + [("a", "b")] * 3 + [()] * 967
    rows = [Example(str(n), "text", labels=each) for n, each in enumerate(labels)]
    target = MultiLabel(("a", "b"))
    probability_K = 1 / (1 + np.exp(-target.log_odds(rows, np.array(weights))))
    with_K = np.array([33, 3])
    gradient_K = (1000 - with_K) * probability_K - np.array(weights) * with_K * (1 - probability_K)
    added_K = 0.5 * probability_K - np.array(weights) * 0.5 * (1 - probability_K)
    np.testing.assert_allclose(gradient_K, -added_K, atol=1e-9)
    assert target.log_odds([Example("0", "text", labels=())], np.ones(2)) == pytest.approx(np.log([1 / 3, 1 / 3]))
