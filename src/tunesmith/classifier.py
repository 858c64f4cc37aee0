"""`TextClassifier`: a scikit-learn estimator over every method, for notebooks, pipelines and cross-validation."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from tunesmith import recipe as recipes
from tunesmith.data import frames
from tunesmith.errors import DataError, RecipeError
from tunesmith.pipeline.fitting.methods import METHODS, variants
from tunesmith.pipeline.task_table import job_of
from tunesmith.runs import Run
from tunesmith.types import Example, Splits


class TextClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Fit any method on texts and labels in memory.

    method: `linear`, `probe`, `encoder`, or `generator:lora` and its like. overrides: recipe settings such as
    `["train.learning_rate=1e-4"]`. Texts are strings, or pairs of strings for pair tasks: a list, a series, an array,
    or a table of one or two columns; a string is one text. Labels are strings or
    integers, and come back as they were.
    No split is made: hold out data yourself, or use `tunesmith.compare`.
    """

    def __init__(self, method: str = "linear", overrides: Sequence[str] = (), seed: int = 42) -> None:
        self.method = method
        self.overrides = overrides
        self.seed = seed

    def fit(self, texts: Any, labels: Any) -> TextClassifier:
        """Train on all rows."""
        chosen = [f"{key}={value}" for key, value in variants(self.method).items()]
        recipe = recipes.load({"engine": {"save_strategy": "no"}, "seed": self.seed}, [*chosen, *self.overrides])
        plain = recipes.load({"seed": self.seed}, chosen)
        if any(getattr(recipe, name) != getattr(plain, name) for name in ("data", "split", "method", "seed", "task")):
            do = "give the texts to fit, and method and seed as arguments"
            raise RecipeError("overrides of data, split, task, method and seed have no effect here", do=do)
        gold = np.asarray(frames.texts(labels))
        if gold.ndim == 2 and gold.shape[1] == 1:
            gold = gold[:, 0]
        elif gold.ndim != 1:
            raise DataError(
                "labels are not a list",
                expected="one label for each text",
                found=f"an array of {gold.ndim} dimensions",
                do="give a list, a series or one column",
            )
        rows = _examples(texts)
        if len(rows) != len(gold):
            raise DataError(
                "texts and labels differ in number",
                expected="one label for each text",
                found=f"{len(rows)} texts, {len(gold)} labels",
                do="leave out texts without a label",
            )
        self.classes_, indices = np.unique(gold, return_inverse=True)
        names = tuple(str(label) for label in self.classes_.tolist())
        train = tuple(Example(row.id, row.text, row.text_pair, names[i]) for row, i in zip(rows, indices, strict=True))
        if len(names) < 2:
            raise DataError(
                "all rows have the same label",
                expected="at least two labels",
                found=", ".join(names) or "no rows",
                do="add rows of another label",
            )
        with tempfile.TemporaryDirectory() as folder:
            run = Run(Path(folder))
            job = job_of(recipe, Splits(train, (), (), names, {}), run)
            self.predictor_ = METHODS[recipe.method].fit(job).text_predictor
        return self

    def predict_proba(self, texts: Any) -> Any:
        """Return probabilities, rows x classes in the order of `classes_`."""
        check_is_fitted(self)
        rows = [prediction.probabilities for prediction in self.predictor_.predict(_examples(texts))]
        return np.array(rows).reshape(len(rows), len(self.classes_))

    def predict(self, texts: Any) -> Any:
        """Return the most probable class of each row."""
        probabilities = self.predict_proba(texts)
        return self.classes_[probabilities.argmax(axis=1)]


def _examples(texts: Any) -> list[Example]:
    examples = []
    for number, row in enumerate(frames.texts(texts)):
        parts = (row,) if isinstance(row, str) else tuple(row) if isinstance(row, (tuple, list, np.ndarray)) else ()
        if not 1 <= len(parts) <= 2 or not all(isinstance(part, str) and part.strip() for part in parts):
            raise DataError(
                f"row {number} is not a text",
                expected="a text, or a pair of texts, none of them empty",
                found=repr(row)[:80],
                do="leave the row out, or give its text",
            )
        examples.append(Example(f"row:{number}", *parts))
    return examples
