"""scikit-learn's checks of estimators, on texts that stand for its rows of numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sklearn.base import BaseEstimator
from sklearn.exceptions import SkipTestWarning
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks
from sklearn.utils.validation import validate_data

from tunesmith import TextClassifier, TextMultilabelClassifier, TextRegressor
from tunesmith.estimators import text_input
from tunesmith.types import Example

PRECISION = "n-grams and their weights are float32, and the check wants 7 equal digits"
ONE_CLASS = "the check gives one class to each row, and not a column for each label"
NOT_APPLICABLE: dict[str, dict[str, str]] = {
    "TextClassifier": {"check_sample_weight_equivalence_on_dense_data": PRECISION},
    "TextMultilabelClassifier": {"check_sample_weight_equivalence_on_dense_data": PRECISION}
    | dict.fromkeys(
        (
            "check_class_weight_classifiers",
            "check_classifier_data_not_an_array",
            "check_classifier_not_supporting_multiclass",
            "check_classifiers_classes",
            "check_classifiers_one_label",
            "check_classifiers_one_label_sample_weights",
            "check_classifiers_regression_target",
            "check_classifiers_train",
            "check_decision_proba_consistency",
            "check_estimators_dtypes",
            "check_fit2d_1feature",
            "check_sample_weights_not_an_array",
            "check_sample_weights_not_overwritten",
            "check_sample_weights_pandas_series",
            "check_sample_weights_shape",
        ),
        ONE_CLASS,
    ),
    "TextRegressor": {},
}
"""Estimator -> checks that do not apply to it, and why."""
PAGE = Path(__file__).parents[1] / "docs" / "guides" / "scikit-learn.md"


class _Rendered:
    """Reads rows of numbers, which the checks have, as texts: a word for each number, rounded."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.one_d_array = True, False
        tags.input_tags.string = False
        return tags

    def _read_examples(self, X: Any, *, reset: bool) -> list[Example]:
        table = validate_data(self, X, reset=reset)
        texts = [
            " ".join(f"x{column}v{number:.0f}".replace("-", "m") for column, number in enumerate(row)) for row in table
        ]
        return text_input.read_examples(texts)


class RenderedClassifier(_Rendered, TextClassifier):
    pass


class RenderedMultilabelClassifier(_Rendered, TextMultilabelClassifier):
    pass


class RenderedRegressor(_Rendered, TextRegressor):
    pass


@pytest.mark.parametrize("estimator", [TextClassifier(), TextMultilabelClassifier(), TextRegressor()], ids=repr)
def test_the_tags_say_that_texts_are_read(estimator: BaseEstimator) -> None:
    tags = estimator.__sklearn_tags__().input_tags
    assert (tags.string, tags.one_d_array, tags.two_d_array) == (True, True, False)
    with pytest.warns(SkipTestWarning):  # the others have no texts to give
        (result,) = check_estimator(estimator)
    assert result["status"] == "passed"


@parametrize_with_checks(
    [RenderedClassifier(min_df=1), RenderedMultilabelClassifier(min_df=1), RenderedRegressor(min_df=1)],
    expected_failed_checks=lambda estimator: NOT_APPLICABLE[type(estimator).__bases__[1].__name__],
    xfail_strict=True,
)
def test_checks_of_scikit_learn(estimator: BaseEstimator, check: Any) -> None:
    check(estimator)


def test_checks_that_do_not_apply_are_documented() -> None:
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    for checks in NOT_APPLICABLE.values():
        assert all(f"`{name}`" in text and reason in text for name, reason in checks.items())
