"""`TextRegressor`: numbers of texts or pairs of texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import RegressorMixin
from sklearn.utils import assert_all_finite
from sklearn.utils.validation import column_or_1d

from tunesmith.estimators.parameters import documented
from tunesmith.estimators.text_estimator import TextEstimator


@documented
@dataclass(eq=False, repr=False)
class TextRegressor(RegressorMixin, TextEstimator):  # type: ignore[misc]
    """Predict a number for each text, or pair of texts.

    Parameters
    ----------
    method : str, default="linear"
        {methods}.
        Parameters of another method have no effect.
    {settings}
    overrides : sequence of str, default=()
        Other settings of the recipe, such as `["loss=huber"]`. They go before the parameters above.

    Attributes
    ----------
    n_features_in_ : int
        1 if texts were fitted, 2 if pairs.
    feature_names_in_ : array of str
        Names of the columns, if a DataFrame was fitted.
    predictor_, recipe_
        What was trained, and its recipe.

    Examples
    --------
    >>> from tunesmith import TextRegressor
    >>> texts = ["very good", "good", "bad", "very bad"]
    >>> regressor = TextRegressor(min_df=1).fit(texts, [5, 4, 2, 1])
    >>> bool(regressor.predict(["good"]) > regressor.predict(["bad"]))
    True
    """

    _task: ClassVar[str] = "regression"

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Return the number of each row, N."""
        return np.array([prediction.value for prediction in self._predictions(X)], dtype=np.float64)

    def _read_targets(self, y: Any) -> NDArray[Any]:
        values: NDArray[np.float64] = column_or_1d(y, dtype=np.float64, warn=not hasattr(y, "columns"))
        assert_all_finite(values, input_name="y")
        return values

    def _learn(self, targets: NDArray[Any]) -> tuple[tuple[str, ...], list[dict[str, Any]]]:
        return (), [{"value": value} for value in targets.tolist()]
