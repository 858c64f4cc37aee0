"""The parameters of the estimators: which setting of the recipe each one is, and what it means."""

from __future__ import annotations

import inspect
import os
import textwrap
from collections.abc import Mapping
from typing import Any, TypeVar

from tunesmith import recipe as recipes
from tunesmith.errors import RecipeError
from tunesmith.pipeline.fitting import methods

SETTINGS = {
    "model": "model.name_or_path",
    "max_length": "model.max_length",
    "learning_rate": "train.learning_rate",
    "num_train_epochs": "train.num_train_epochs",
    "batch_size": "train.per_device_train_batch_size",
    "C": "linear.C",
    "word_ngrams": "linear.word_ngrams",
    "char_ngrams": "linear.char_ngrams",
    "min_df": "linear.min_df",
    "class_weight": "train.class_weights",
    "random_state": "seed",
}
"""Parameter -> setting."""
FIXED = ("data", "split", "decide", "task", "method", "seed")
"""What overrides cannot set: `fit` gets all rows, none to decide on, and the others are parameters or the class's."""

EstimatorT = TypeVar("EstimatorT", bound=type[Any])


def to_recipe(task: str, parameters: Mapping[str, Any]) -> Any:
    """Return the recipe that an estimator's parameters mean; None leaves a setting at its default.

    Raises RecipeError for wrong values, for overrides without an effect, and for a method that cannot learn the task.
    """
    chosen = [f"{key}={value}" for key, value in methods.variants(parameters["method"]).items()]
    tree: dict[str, Any] = {"task": task, "engine": {"save_strategy": "no"}}
    for name, setting in SETTINGS.items():
        if (value := parameters.get(name)) is not None:
            section, _, key = setting.rpartition(".")
            (tree.setdefault(section, {}) if section else tree)[key] = _written(value)
    recipe = recipes.load(tree, [*chosen, *parameters["overrides"]])
    plain = recipes.load(tree, chosen)
    if any(getattr(recipe, name) != getattr(plain, name) for name in FIXED):
        do = "give the texts to fit, and method and random_state as parameters"
        raise RecipeError(f"overrides of {', '.join(FIXED)} have no effect here", do=do)
    methods.find(recipe)
    return recipe


def plain(value: Any) -> Any:
    """Return a parameter in Python's own types: numpy's numbers and arrays, also inside, as Python's, paths as text."""
    if isinstance(value, Mapping):
        return {plain(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(plain, value))
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.tolist() if hasattr(value, "tolist") else value


def documented(estimator: EstimatorT) -> EstimatorT:
    """Put its methods into a class's docstring, and what those of its parameters mean that are settings.

    They stand for `{methods}` and `{settings}`.
    """
    able = [name for name, method in methods.METHODS.items() if estimator._task in method.tasks]
    variants = [f"{name}:{variant}" for name in able for variant in methods.METHODS[name].variants]
    fields, lines = dict(recipes.fields()), []
    for name, parameter in inspect.signature(estimator).parameters.items():
        if setting := SETTINGS.get(name):
            field = fields[setting]
            kind = parameter.annotation.replace(" |", " or").replace(" or None", "")
            meaning = (field.description or "").replace("null for none", "() for none")
            text = f"{meaning} None is the recipe's `{setting}`, {field.default}."
            lines += [f"{name} : {kind}, default=None", textwrap.indent(textwrap.fill(text, 100), "    ")]
    text = inspect.cleandoc(estimator.__doc__ or "")
    estimator.__doc__ = text.replace("{methods}", "`" + "`, `".join(able + variants) + "`").replace(
        "{settings}", "\n".join(lines)
    )
    return estimator


def _written(value: Any) -> Any:
    """Return a value as a recipe has it: labels as names, and an empty range of n-grams as null."""
    value = plain(value)
    if isinstance(value, Mapping):
        return {str(label): weight for label, weight in value.items()}
    return None if value in ((), []) else value
