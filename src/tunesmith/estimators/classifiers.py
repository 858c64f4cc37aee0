"""`TextClassifier` and `TextMultilabelClassifier`: one label, or any number of labels, for each text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import assert_all_finite, column_or_1d

from tunesmith.data import cells
from tunesmith.errors import InputError
from tunesmith.estimators import text_input
from tunesmith.estimators.parameters import documented
from tunesmith.estimators.text_estimator import TextEstimator
from tunesmith.tasks import classification
from tunesmith.tasks.multilabel import HALF

Floats = NDArray[np.float64]


@documented
@dataclass(eq=False, repr=False, kw_only=True)
class TextClassifier(ClassifierMixin, TextEstimator):  # type: ignore[misc]
    """Predict one label for each text, or pair of texts.

    Parameters
    ----------
    method : str, default="linear"
        {methods}.
        Parameters of another method have no effect.
    {settings}
    overrides : sequence of str, default=()
        Other settings of the recipe, such as `["lowercase=false"]`. They go before the parameters above.
    threshold : float, default=None
        Of two classes, the probability from which the second one is predicted; None for the more probable class.

    Attributes
    ----------
    classes_ : array
        The classes in ascending order, of the type that they have in y.
    n_features_in_ : int
        1 if texts were fitted, 2 if pairs.
    feature_names_in_ : array of str
        Names of the columns, if a DataFrame was fitted.
    predictor_, recipe_
        What was trained, and its recipe.

    Examples
    --------
    >>> from tunesmith import TextClassifier
    >>> texts = ["win a prize now", "lunch at noon?", "free prize inside", "see you at noon"]
    >>> classifier = TextClassifier(min_df=1).fit(texts, ["spam", "ham", "spam", "ham"])
    >>> classifier.predict(["a free prize"]).tolist()
    ['spam']
    """

    class_weight: Mapping[Any, float] | str | None = None
    threshold: float | None = None

    _task: ClassVar[str] = "classification"

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable class of each row, or what `threshold` decides; N."""
        probabilities_NK = self.predict_proba(X)
        if self.threshold is None:
            return np.asarray(self.classes_[probabilities_NK.argmax(axis=1)])
        self._check_threshold()
        return np.asarray(self.classes_[(probabilities_NK[:, 1] >= self.threshold).astype(int)])

    def predict_proba(self, X: Any) -> Floats:
        """Return the probability of each class, N x K, in the order of `classes_`."""
        rows = [prediction.probabilities for prediction in self._predictions(X)]
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(self.classes_))

    def predict_log_proba(self, X: Any) -> Floats:
        """Return the logarithm of each probability, N x K."""
        return _log(self.predict_proba(X))

    def decision_function(self, X: Any) -> Floats:
        """Return log-probabilities, N x K; of two classes the log-odds of the second, N."""
        log_NK = self.predict_log_proba(X)
        return log_NK[:, 1] - log_NK[:, 0] if len(self.classes_) == 2 else log_NK

    def _read_targets(self, y: Any) -> NDArray[Any]:
        labels: NDArray[Any] = column_or_1d(y, warn=not hasattr(y, "columns"))
        if labels.dtype == object and (missing := [n for n, label in enumerate(labels) if cells.is_null(label)]):
            raise InputError(
                "cannot fit: labels are missing",
                expected="a label for each text",
                found=f"{labels[missing[0]]!r} in row {missing[0]}; {len(missing)} of {len(labels)} are missing",
                do="leave out texts without a label",
            )
        if labels.dtype.kind == "f":
            assert_all_finite(labels, input_name="y")
        check_classification_targets(labels)
        return labels

    def _learn(self, targets: NDArray[Any]) -> tuple[tuple[str, ...], list[dict[str, Any]]]:
        self.classes_, indices = np.unique(targets, return_inverse=True)
        names = tuple(str(label) for label in self.classes_.tolist())
        if len(names) < 2:
            raise InputError(
                "cannot fit: all rows have one class, the same label",
                expected="at least two classes",
                found=", ".join(names) or "no rows",
                do="add rows of another class",
            )
        self._check_threshold()
        return names, [{"label": names[index]} for index in indices]

    def _label_values(self) -> tuple[float, ...] | None:
        is_numeric = self.classes_.dtype.kind in "iuf"
        return classification.label_values(list(map(str, self.classes_.tolist())), "auto") if is_numeric else None

    def _check_threshold(self) -> None:
        if self.threshold is not None and (len(self.classes_) != 2 or not 0 <= self.threshold <= 1):
            raise InputError(
                f"cannot decide with threshold={self.threshold}",
                expected="a probability from 0 to 1, and two classes",
                found=f"{len(self.classes_)} classes",
                do="leave threshold out",
            )


@documented
@dataclass(eq=False, repr=False, kw_only=True)
class TextMultilabelClassifier(ClassifierMixin, TextEstimator):  # type: ignore[misc]
    """Predict any number of labels for each text, or pair of texts.

    y is a list of names for each row; or a matrix of 0 and 1 with a column for each label, as an array, or as a
    DataFrame whose columns name the labels. Predictions have the form that was fitted.

    Parameters
    ----------
    method : str, default="linear"
        {methods}.
        Parameters of another method have no effect.
    {settings}
    overrides : sequence of str, default=()
        Other settings of the recipe, such as `["lowercase=false"]`. They go before the parameters above.
    threshold : float, dict or sequence of float, default=0.5
        The probability from which a label is predicted: one for all labels, one for some labels by name (0.5 for the
        others), or one for each in the order of `classes_`.

    Attributes
    ----------
    classes_ : array
        The labels: names in ascending order, the columns of a DataFrame, or of other matrices 0 to K - 1.
    n_features_in_ : int
        1 if texts were fitted, 2 if pairs.
    feature_names_in_ : array of str
        Names of the columns, if a DataFrame was fitted.
    target_form_ : tuple of str
        The form of y: `names`, `array`, `pandas` or `polars`, and the type of its cells.
    predictor_, recipe_
        What was trained, and its recipe.

    Examples
    --------
    >>> from tunesmith import TextMultilabelClassifier
    >>> texts = ["goal for the team", "a chip for robots", "robots score a goal", "rain"]
    >>> classifier = TextMultilabelClassifier(min_df=1).fit(texts, [["sport"], ["tech"], ["sport", "tech"], []])
    >>> classifier.predict(["goal for the team"])
    [['sport']]
    """

    class_weight: Mapping[Any, float] | str | None = None
    threshold: Any = HALF

    _task: ClassVar[str] = "multilabel"

    def predict(self, X: Any) -> Any:
        """Return the labels of each row, in the form that was fitted."""
        known_NK = self.predict_proba(X) >= self._thresholds()
        return text_input.write_label_sets(known_NK, self.classes_, self.target_form_, X)

    def predict_proba(self, X: Any) -> Floats:
        """Return the probability that each label applies, N x K, in the order of `classes_`."""
        rows = [prediction.probabilities for prediction in self._predictions(X)]
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(self.classes_))

    def decision_function(self, X: Any) -> Floats:
        """Return the log-odds of each label, N x K."""
        probabilities_NK = self.predict_proba(X)
        return _log(probabilities_NK) - _log(1 - probabilities_NK)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the share of rows whose labels are all right, and no other is predicted."""
        gold_NK, labels, form = text_input.read_label_sets(y)
        if form[0] == "array" and len(labels) == len(self.classes_):
            labels = self.classes_
        predicted_NK = self.predict_proba(X) >= self._thresholds()
        names = sorted({*map(str, labels), *map(str, self.classes_)})
        gold, predicted = (
            _spread(known_NK, columns, names)
            for known_NK, columns in ((gold_NK, labels), (predicted_NK, self.classes_))
        )
        return float(accuracy_score(gold, predicted, sample_weight=sample_weight))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        tags.classifier_tags.multi_class = False
        tags.target_tags.multi_output = tags.target_tags.two_d_labels = True
        tags.target_tags.single_output = False
        return tags

    def _read_targets(self, y: Any) -> NDArray[Any]:
        known_NK, self.classes_, self.target_form_ = text_input.read_label_sets(y)
        return known_NK

    def _learn(self, targets: NDArray[Any]) -> tuple[tuple[str, ...], list[dict[str, Any]]]:
        if self.target_form_[0] == text_input.NAMES:  # of rows of weight 0 nothing is learned
            used_K = targets.any(axis=0)
            targets, self.classes_ = targets[:, used_K], self.classes_[used_K]
        if not targets.any():
            raise InputError(
                "cannot fit: no row has a label", expected="rows with labels", found="none", do="add rows with labels"
            )
        self._thresholds()
        names = tuple(map(str, self.classes_.tolist()))
        return names, [{"labels": tuple(names[k] for k in np.flatnonzero(row_K))} for row_K in targets]

    def _thresholds(self) -> Floats:
        """Return the threshold of each label, K."""
        labels = self.classes_.tolist()
        if isinstance(self.threshold, Mapping):
            values = [self.threshold.get(label, HALF) for label in labels]
            unknown = sorted(map(str, set(self.threshold) - set(labels)))
        else:
            values, unknown = np.asarray(self.threshold, dtype=np.float64).tolist(), []
        thresholds = np.asarray(values, dtype=np.float64)
        if unknown or thresholds.shape not in ((), (len(labels),)) or not ((thresholds >= 0) & (thresholds <= 1)).all():
            raise InputError(
                f"cannot decide with threshold={self.threshold}",
                expected=f"probabilities from 0 to 1: one, or one for each of {len(labels)} labels",
                found=f"no label {', '.join(unknown)}" if unknown else f"an array of shape {thresholds.shape}",
                do="see classes_ for the labels",
            )
        return np.broadcast_to(thresholds, len(labels))


def _log(probabilities: Floats) -> Floats:
    """Return logarithms, of 0 that of the smallest number."""
    return np.asarray(np.log(np.maximum(probabilities, np.finfo(np.float64).tiny)))


def _spread(known_NK: NDArray[np.bool_], labels: NDArray[Any], names: list[str]) -> NDArray[np.int64]:
    """Return the columns of some labels among those of all names."""
    spread = np.zeros((len(known_NK), len(names)), dtype=np.int64)
    spread[:, [names.index(str(label)) for label in labels]] = known_NK
    return spread
