"""What models say of rows that they have not learned from: of each training row one trained on the other folds.

Bags of words and embeddings are made once, without labels, and only the regression on them is fitted again for each
fold. Other methods are trained in full, once a fold.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.console import say
from tunesmith.data import folds as data_folds, splits as data_splits
from tunesmith.errors import DataError
from tunesmith.pipeline.fitting import methods, text_features
from tunesmith.pipeline.fitting.text_features import TextFeatures
from tunesmith.pipeline.task_table import TASKS, job_of
from tunesmith.recipe import Recipe
from tunesmith.runs import Run
from tunesmith.tasks.text_targets import Target
from tunesmith.types import Example, Splits

Index = NDArray[np.intp]
Trainer = Callable[[Index, Index], list[Any]]
"""Trains on some training rows and predicts others: all of them training rows, or all held-out rows, which are numbered
behind those of train, validation first."""
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


def predict(recipe: Recipe, splits: Splits, method: str, folds: int = FOLDS) -> OutOfFold:
    """Return predictions of every row of the splits by models that have not learned from it.

    method: as in `compare --methods`; its settings are the recipe's. folds: fewer where there are fewer texts. The
    features of other methods than `linear` and `probe`, by which neighbours are found, are bags of words.
    """
    recipe = methods.of_method(recipe, method)
    chosen, target = methods.find(recipe), TASKS[recipe.task].target(splits)
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
    name = chosen.name(recipe)
    say(f"{name}: predicting {len(splits.train):,} training rows in {count} folds, and {len(held_out):,} held-out rows")
    chosen.prepare(recipe)
    features = chosen.features(recipe, splits.train, held_out)
    fit = _trainer(recipe, splits, target, features)
    neighbours = features or text_features.bag_of_words(splits.train, held_out, recipe.linear)
    train: list[Any] = [None] * len(splits.train)
    for fold in range(count):
        left_out = np.flatnonzero(assigned == fold)
        for place, prediction in zip(left_out, fit(np.flatnonzero(assigned != fold), left_out), strict=True):
            train[place] = prediction
    every, others = np.arange(len(splits.train)), np.arange(len(held_out))
    predicted = fit(every, others + len(splits.train)) if held_out else []
    return OutOfFold(name, chosen.describe(recipe), target, assigned, train, predicted, neighbours, fit)


def _trainer(recipe: Recipe, splits: Splits, target: Target, features: TextFeatures | None) -> Trainer:
    """Return what trains on some training rows and predicts others; the features are made already, if there are any."""
    train = splits.train
    rows = [*train, *splits.validation, *splits.test]

    def trained(learned: Index, predicted: Index) -> list[Any]:
        return _train(recipe, splits, [train[i] for i in learned], [rows[i] for i in predicted])

    if features is None:
        return trained
    weights = target.weights(train, recipe.train.class_weights)

    def fitted(learned: Index, predicted: Index) -> list[Any]:
        if not len(predicted):
            return []
        gold, examples = [train[i] for i in learned], [rows[i] for i in predicted]
        regression = text_features.regression(features.train[learned], gold, target, recipe.linear, weights)
        is_held_out = predicted[0] >= len(train)
        table = features.held_out[predicted - len(train)] if is_held_out else features.train[predicted]
        return target.predictions(examples, text_features.logits(regression, table, len(target.labels)))

    return fitted


def _train(recipe: Recipe, splits: Splits, train: Sequence[Example], examples: Sequence[Example]) -> list[Any]:
    """Train by the recipe on some rows, with the validation split as it is, and predict others; nothing is kept."""
    engine = recipe.engine.model_copy(update={"save_strategy": "no"})
    evaluate = recipe.evaluate.model_copy(update={"report_to": (), "base": False})
    recipe = recipe.model_copy(update={"engine": engine, "evaluate": evaluate})
    with tempfile.TemporaryDirectory() as folder:
        job = job_of(recipe, replace(splits, train=tuple(train), test=()), Run(Path(folder)))
        return methods.find(recipe).fit(job).text_predictor.predict(examples)
