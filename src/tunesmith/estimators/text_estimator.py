"""What the estimators share: parameters, training on rows in memory, and saving."""

from __future__ import annotations

import ast
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from tunesmith import disk, integrity, processes, recipe as recipes, records, runs
from tunesmith.errors import InputError, RecipeError, RunError
from tunesmith.estimators import parameters, text_input
from tunesmith.pipeline.fitting import methods
from tunesmith.pipeline.fitting.methods import METHODS
from tunesmith.pipeline.task_table import job_of
from tunesmith.protocols import TextPredictor
from tunesmith.runs import Run
from tunesmith.types import Example, Splits

FILE = "estimator.json"
"""In the folder of a saved estimator: its class, parameters and fitted attributes."""


@dataclass(eq=False, repr=False)
class TextEstimator(BaseEstimator):  # type: ignore[misc]
    """Base class of the estimators. Subclasses say what targets are, and what predictions look like."""

    method: str = "linear"
    _: KW_ONLY
    model: str | os.PathLike[str] | None = None
    max_length: int | None = None
    learning_rate: float | None = None
    num_train_epochs: float | None = None
    batch_size: int | None = None
    C: float | None = None
    word_ngrams: tuple[int, ...] | None = None
    char_ngrams: tuple[int, ...] | None = None
    min_df: int | None = None
    random_state: int | np.random.RandomState | None = None
    overrides: Sequence[str] = ()

    _task: ClassVar[str]

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on all rows, without a split.

        Parameters
        ----------
        X : texts, or pairs of texts
            A list, a series or an array; pairs as a DataFrame or array of two columns, or a list of pairs.
        y : targets
            One for each row.
        sample_weight : numbers, default=None
            Weight of each row in training, for methods `linear`, `probe`, `encoder` and `encoder:contrastive`. For
            `linear`, a row of weight 2 counts as two rows, also in the inverse document frequency; `min_df` counts
            rows. A row of weight 0 is left out.

        Returns
        -------
        self
            The fitted estimator. Raises InputError, a ValueError, for rows that cannot be used, and RecipeError for
            parameters that cannot.
        """
        if y is None:
            raise InputError(
                "cannot fit: it requires y to be passed, but the target y is None",
                expected="a target for each text",
                found="None",
                do="give y",
            )
        settings = self.get_params(deep=False) | {"random_state": self._seed()}
        self.recipe_ = parameters.to_recipe(self._task, settings)
        methods.check_probabilities(self.recipe_, "fit")
        examples, targets = self._read_examples(X, reset=True), self._read_targets(y)
        if len(examples) != len(targets) or not examples:
            raise InputError(
                "cannot fit: texts and targets differ in number" if examples else "cannot fit: there are no texts",
                expected="one target for each text",
                found=f"{len(examples)} texts, {len(targets)} targets",
                do="leave out texts without a target",
            )
        if sample_weight is not None:
            weights = self._weights(sample_weight, examples)
            kept = np.flatnonzero(weights)
            examples, targets = [replace(examples[i], weight=float(weights[i])) for i in kept], targets[kept]
        labels, gold = self._learn(targets)
        train = tuple(replace(example, **fields) for example, fields in zip(examples, gold, strict=True))
        with tempfile.TemporaryDirectory() as folder:
            splits = Splits(train, (), (), labels, {}, label_values=self._label_values())
            job = job_of(self.recipe_, splits, Run(Path(folder)))
            self.predictor_ = METHODS[self.recipe_.method].fit(job).text_predictor
        return self

    def save(self, folder: str | Path) -> None:
        """Write the fitted estimator as JSON, YAML and the files of its model; nothing is pickled.

        Parameters
        ----------
        folder : path
            Made if it does not exist; an estimator that was saved there before is replaced. Any other folder that has
            files raises RunError.
        """
        check_is_fitted(self, "predictor_")
        target = Path(folder)
        if target.exists() and not (target / FILE).is_file() and (not target.is_dir() or any(target.iterdir())):
            raise RunError(f"cannot save to {target}: it is not a saved estimator", do="give a new or an empty folder")
        settings = self.get_params(deep=False)
        settings |= {"random_state": None if self.random_state is None else self.recipe_.seed}
        fitted = {name: value for name, value in vars(self).items() if name.endswith("_")}
        content = {
            "estimator": type(self).__name__,
            "parameters": {name: repr(parameters.plain(value)) for name, value in settings.items()},
            "fitted": {
                name: _written(value) for name, value in fitted.items() if name not in ("predictor_", "recipe_")
            },
        }

        def fill(scratch: Path) -> None:
            model = disk.make_folder(scratch / "model")
            self.predictor_.save(model)
            (scratch / runs.RECIPE).write_text(recipes.dump(self.recipe_), encoding="utf-8")
            (scratch / FILE).write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")

        disk.make_folder(target.parent)
        runs.write_folder(target, fill)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Return the estimator that `save` wrote, with the same parameters, attributes and predictions.

        Raises RunError for a folder that is damaged, or holds no estimator of this class.
        """
        run = Run(Path(folder))
        if not (run.path / FILE).is_file():
            raise RunError(f"cannot load {folder}: it is not a saved estimator", expected=f"a folder with {FILE}")
        integrity.verify(run.path)
        content = records.parse((run.path / FILE).read_bytes())
        if content["estimator"] != cls.__name__:
            name = content["estimator"]
            raise RunError(f"cannot load {folder} as {cls.__name__}", found=name, do=f"use {name}.load")
        estimator = cls(**{name: ast.literal_eval(value) for name, value in content["parameters"].items()})
        for name, value in content["fitted"].items():
            setattr(estimator, name, _read(value))
        estimator.recipe_ = run.recipe
        with processes.loading():
            predictor = METHODS[run.recipe.method].load(run.path / "model", run.recipe)
        assert isinstance(predictor, TextPredictor)
        estimator.predictor_ = predictor
        return estimator

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        return tags

    def _read_targets(self, y: Any) -> NDArray[Any]:
        """Return checked targets, one row for each."""
        raise NotImplementedError

    def _learn(self, targets: NDArray[Any]) -> tuple[tuple[str, ...], list[dict[str, Any]]]:
        """Return the names of the labels, and what each example is to have of its target."""
        raise NotImplementedError

    def _label_values(self) -> tuple[float, ...] | None:
        """Return the number of each label, where labels have an order."""
        return None

    def _predictions(self, X: Any) -> list[Any]:
        check_is_fitted(self, "predictor_")
        predictions: list[Any] = self.predictor_.predict(self._read_examples(X, reset=False))
        return predictions

    def _read_examples(self, X: Any, *, reset: bool) -> list[Example]:
        """Return texts as examples. reset: remember the number of columns, and of pairs their names."""
        examples = text_input.read_examples(X)
        columns = 2 if examples and examples[0].text_pair is not None else 1
        if reset:
            self.n_features_in_ = columns
        elif examples and columns != self.n_features_in_:
            raise InputError(
                "cannot predict: texts and pairs of texts differ",
                expected=f"{self.n_features_in_} in each row, as in fit",
                found=f"{columns}",
                do="give the columns that were fitted",
            )
        validate_data(self, X if columns == 2 else [], reset=reset, skip_check_array=True, ensure_2d=False)
        return examples

    def _weights(self, sample_weight: Any, examples: Sequence[Example]) -> NDArray[np.float64]:
        if not METHODS[self.recipe_.method].weighs_rows:
            able = [name for name, method in METHODS.items() if method.weighs_rows]
            raise RecipeError(
                f"method {self.recipe_.method} cannot use sample_weight",
                expected=f"method {', '.join(able)}",
                do="leave sample_weight out, or set method",
            )
        weights: NDArray[np.float64] = _check_sample_weight(
            sample_weight, examples, dtype=np.float64, ensure_non_negative=True
        )
        return weights

    def _seed(self) -> int | None:
        if self.random_state is None or isinstance(self.random_state, int | np.integer):
            return self.random_state
        return int(check_random_state(self.random_state).randint(2**31 - 1))


def _written(value: Any) -> Any:
    return {"dtype": value.dtype.str, "values": value.tolist()} if isinstance(value, np.ndarray) else value


def _read(value: Any) -> Any:
    return np.array(value["values"], dtype=value["dtype"]) if isinstance(value, dict) else value
