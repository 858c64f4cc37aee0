"""What models say of rows that they have not learned from: of each training row one trained on the other folds.

Every text is embedded once, and only the regression is fitted again for each fold, on n-grams of the fold's own texts
where it reads n-grams. Other methods are trained in full, once a fold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.console import say
from tunesmith.data import folds as data_folds, splits as data_splits
from tunesmith.errors import DataError
from tunesmith.pipeline.fitting import methods
from tunesmith.pipeline.fitting.text_features import TextFeatures
from tunesmith.pipeline.part_training import PartTrainer
from tunesmith.pipeline.task_table import TASKS
from tunesmith.protocols import TextPredictor
from tunesmith.tasks.text_targets import Target
from tunesmith.types import Example

Index = NDArray[np.intp]
Trainer = Callable[[Index, Index], list[Any]]
"""Trains on some training rows and predicts other rows; those of validation and test are numbered behind train."""
FOLDS, FEWEST_FOLDS = 5, 2


@dataclass(frozen=True)
class OutOfFold:
    """Predictions of rows by models that have not learned from them."""

    method: str
    """As `compare --methods` names it."""
    description: str
    target: Target
    folds: NDArray[np.intp]
    """The fold of each training row, from 0."""
    train: list[Any]
    """The prediction for each training row, by a model of the other folds."""
    held_out: list[Any]
    """The prediction for each validation row and then each test row, by a model of all training rows."""
    features: TextFeatures
    """For the similarity of texts."""
    fit: Trainer
    """Trains once more, on other rows."""

    def unseen(self, rows: Sequence[Example]) -> NDArray[np.bool_]:
        """Return which training rows have a label that no other fold has, so that no model could know it."""
        folds: dict[str, set[int]] = {}
        for row, fold in zip(rows, self.folds.tolist(), strict=True):
            for label in row.all_labels:
                folds.setdefault(label, set()).add(fold)
        return np.array([any(len(folds[label]) < 2 for label in row.all_labels) for row in rows], dtype=bool)


def predict(trainer: PartTrainer, folds: int = FOLDS) -> OutOfFold:
    """Return predictions of every row of the splits by models that have not learned from it.

    folds: fewer where there are fewer texts.
    """
    recipe, splits = trainer.recipe, trainer.splits
    methods.check_probabilities(recipe, "judge labels by predictions")
    method, target = methods.find(recipe), TASKS[recipe.task].target(splits)
    seed = recipe.seed if recipe.split.seed is None else recipe.split.seed
    count = min(folds, len(data_splits.units(splits.train)))
    if count < FEWEST_FOLDS:
        raise DataError(
            "cannot predict training rows by models that have not learned from them",
            expected=f"at least {FEWEST_FOLDS} different texts or groups in train",
            found=f"{count}",
            do="give more rows",
        )
    assigned = np.array(data_folds.assign(splits.train, count, seed, TASKS[recipe.task].reader.strata), dtype=np.intp)
    held_out = [*splits.validation, *splits.test]
    rows = [*splits.train, *held_out]
    name = method.name(recipe)
    say(f"{name}: predicting {len(splits.train):,} training rows in {count} folds, and {len(held_out):,} held-out rows")

    def trained(places: Index) -> TextPredictor:
        return trainer.train([splits.train[place] for place in places], decide=False)

    def predicted(learned: Index, places: Index) -> list[Any]:
        return trained(learned).predict([rows[place] for place in places]) if len(places) else []

    train: list[Any] = [None] * len(splits.train)
    for fold in range(count):
        left_out = np.flatnonzero(assigned == fold)
        for place, prediction in zip(left_out, predicted(np.flatnonzero(assigned != fold), left_out), strict=True):
            train[place] = prediction
    predictor = trained(np.arange(len(splits.train))) if held_out or method.refits_cheaply else None
    of_held_out = predictor.predict(held_out) if predictor and held_out else []
    features = TextFeatures.of(predictor, splits.train, held_out, recipe.linear)
    return OutOfFold(name, method.describe(recipe), target, assigned, train, of_held_out, features, predicted)
