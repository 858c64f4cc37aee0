"""scikit-learn estimators over every method, for notebooks, pipelines and cross-validation."""

from tunesmith.estimators.classifiers import TextClassifier, TextMultilabelClassifier
from tunesmith.estimators.regressor import TextRegressor

__all__ = ["TextClassifier", "TextMultilabelClassifier", "TextRegressor"]
