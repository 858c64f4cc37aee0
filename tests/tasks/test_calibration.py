"""Calibration: the same figures as scikit-learn's, and chosen only where it helps."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator

from tunesmith.tasks import calibration
from tunesmith.tasks.calibration import Floats, Places


class Logits(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A fitted classifier whose features are its logits (of two classes their difference)."""

    def __init__(self, classes: int = 3) -> None:
        self.classes = classes
        self.classes_ = np.arange(classes)

    def decision_function(self, logits_NK: Floats) -> Floats:
        return logits_NK[:, 1] - logits_NK[:, 0] if self.classes == 2 else logits_NK

    def predict_proba(self, logits_NK: Floats) -> Floats:
        return np.exp(calibration.log_softmax(logits_NK))

    def fit(self, logits_NK: Floats, gold_N: Places) -> Logits:
        return self

    def predict(self, logits_NK: Floats) -> Places:
        return logits_NK.argmax(axis=1)


def overconfident(rows: int, classes: int, factor: float = 3.0, seed: int = 0) -> tuple[Floats, Places]:
    """Logits that are `factor` times too large, and labels drawn from the right ones."""
    draw = np.random.default_rng(seed)
    right_NK = draw.normal(size=(rows, classes)) * 2
    p_NK = np.exp(calibration.log_softmax(right_NK))
    gold_N = np.array([draw.choice(classes, p=p_K) for p_K in p_NK])
    return right_NK * factor, gold_N


def test_temperature_is_found_and_lowers_the_calibration_error() -> None:
    logits_NK, gold_N = overconfident(4000, 4)
    fitted, notes = calibration.choose(logits_NK, gold_N, "auto", seed=1)
    assert fitted is not None
    assert notes.log_loss[notes.kind] == min(notes.log_loss.values())
    assert notes.log_loss["temperature"] < notes.log_loss["none"] - 0.2
    temperature = calibration.fit(logits_NK, gold_N, "temperature")
    assert temperature.scale[0] == pytest.approx(1 / 3, rel=0.05)
    assert notes.ece["none"] > 0.1
    assert notes.ece[notes.kind] < 0.02
    fresh_NK, fresh_gold = overconfident(4000, 4, seed=7)
    p_NK = fitted.apply(fresh_NK)
    assert calibration.ece(calibration.bins(p_NK.max(1), p_NK.argmax(1) == fresh_gold)) < 0.03


@pytest.mark.parametrize("method", ["sigmoid", "isotonic", "temperature"])
@pytest.mark.parametrize("classes", [2, 3])
def test_probabilities_are_those_of_scikit_learn(method: str, classes: int) -> None:
    logits_NK, gold_N = overconfident(600, classes)
    logits_NK = np.hstack([np.zeros((600, 1)), logits_NK[:, 1:]]) if classes == 2 else logits_NK
    logs_NK = calibration.log_softmax(logits_NK)
    # scikit-learn's sigmoid and isotonic take the decision function; given the log-odds, and probabilities, they agree
    features = {"sigmoid": calibration.log_odds(logs_NK), "isotonic": np.exp(logs_NK), "temperature": logs_NK}[method]
    if classes == 2 and method == "sigmoid":
        features = np.stack([np.zeros(600), features[:, 1]], axis=1)
    if classes == 2 and method == "isotonic":
        features = np.stack([np.zeros(600), features[:, 1]], axis=1)
    theirs = CalibratedClassifierCV(FrozenEstimator(Logits(classes)), method=method).fit(features, gold_N)
    ours_NK = calibration.fit(logits_NK, gold_N, method).apply(logits_NK)
    tolerance = {"sigmoid": 1e-4, "isotonic": 1e-9, "temperature": 0.01}[method]  # ours is drawn to 1 as by a row
    np.testing.assert_allclose(ours_NK, theirs.predict_proba(features), atol=tolerance)


@pytest.mark.parametrize("method", calibration.METHODS)
def test_probabilities_sum_to_one_and_survive_extreme_logits(method: str) -> None:
    logits_NK, gold_N = overconfident(300, 3)
    logits_NK[:5] = [[1000.0, 0, -1000], [0, 0, 0], [-1000, 1000, 0], [800, 800, 0], [0, -5000, 5000]]
    p_NK = calibration.fit(logits_NK, gold_N, method).apply(logits_NK)
    assert np.isfinite(p_NK).all()
    assert (p_NK >= 0).all()
    np.testing.assert_allclose(p_NK.sum(axis=1), 1, atol=1e-12)


def test_separable_rows_give_finite_parameters() -> None:
    gold_N = np.arange(60) % 3
    logits_NK = 5.0 * np.eye(3)[gold_N]
    for method in calibration.METHODS:
        p_NK = calibration.fit(logits_NK, gold_N, method).apply(logits_NK)
        assert (p_NK.argmax(axis=1) == gold_N).all()
    assert calibration.fit(logits_NK, gold_N, "temperature").scale[0] < 3


def test_calibrated_logits_are_left_alone_or_hardly_changed() -> None:
    logits_NK, gold_N = overconfident(3000, 3, factor=1.0)
    fitted, notes = calibration.choose(logits_NK, gold_N, "auto", seed=0)
    assert notes.log_loss[notes.kind] > notes.log_loss["none"] - 0.005
    if fitted is not None:
        np.testing.assert_allclose(fitted.apply(logits_NK), np.exp(calibration.log_softmax(logits_NK)), atol=0.08)


def test_too_few_rows_are_said() -> None:
    logits_NK, gold_N = overconfident(49, 3)
    fitted, notes = calibration.choose(logits_NK, gold_N, "auto", seed=0)
    assert fitted is None
    assert "49 validation rows are too few" in str(notes.reason)
    logits_NK, gold_N = overconfident(300, 3)
    gold_N[gold_N == 2] = 0
    gold_N[0] = 2
    fitted, notes = calibration.choose(logits_NK, gold_N, "isotonic", seed=0)
    assert fitted is None
    assert "1 of 3 labels have fewer than 5 validation rows" in str(notes.reason)
    fitted, notes = calibration.choose(logits_NK, gold_N, "auto", seed=0)
    assert fitted is not None
    assert fitted.kind == "temperature"
