"""TextClassifier is a scikit-learn estimator."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score

from tests import tiny
from tunesmith import TextClassifier
from tunesmith.errors import DataError

ROWS = tiny.texts(120)
TEXTS = [text for text, _ in ROWS]
LABELS = [label for _, label in ROWS]


def test_cross_validation_clone_and_grid_search() -> None:
    classifier = TextClassifier("linear", overrides=["linear.min_df=1"])
    assert cross_val_score(classifier, TEXTS, LABELS, cv=3).mean() > 0.8
    assert clone(classifier).get_params() == classifier.get_params()
    grid = GridSearchCV(classifier, {"overrides": [["linear.C=0.001"], ["linear.C=10"]]}, cv=3).fit(TEXTS, LABELS)
    assert grid.best_params_ in [{"overrides": ["linear.C=0.001"]}, {"overrides": ["linear.C=10"]}]


@pytest.mark.parametrize("method", ["probe", "encoder"])
def test_neural_methods(method: str, tiny_models: Callable[[str], Path]) -> None:
    overrides = [f"model.name_or_path={tiny_models('bert')}", "max_steps=3"]
    classifier = TextClassifier(method, overrides).fit(TEXTS, LABELS)
    probabilities = classifier.predict_proba(TEXTS)
    assert probabilities.shape == (120, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert list(classifier.predict(TEXTS)) == [classifier.classes_[i] for i in probabilities.argmax(axis=1)]


def test_labels_come_back_as_they_were() -> None:
    numbers = [{"sport": 10, "tech": 2, "world": -1}[label] for label in LABELS]
    classifier = TextClassifier().fit(TEXTS, numbers)
    assert classifier.classes_.tolist() == [-1, 2, 10]
    assert np.mean(classifier.predict(TEXTS) == np.array(numbers)) > 0.9


def test_pairs() -> None:
    pairs = [(text, label) for text, label in ROWS]
    assert TextClassifier(overrides=["linear.min_df=1"]).fit(pairs, LABELS).score(pairs, LABELS) == 1.0


def test_bad_input_is_explained() -> None:
    with pytest.raises(NotFittedError):
        TextClassifier().predict(TEXTS)
    with pytest.raises(DataError, match="an array of 2 dimensions"):
        TextClassifier().fit(TEXTS, [[label, label] for label in LABELS])
    with pytest.raises(DataError, match="120 texts, 119 labels"):
        TextClassifier().fit(TEXTS, LABELS[:-1])
    with pytest.raises(DataError, match="same label"):
        TextClassifier().fit(TEXTS, ["a"] * 120)
