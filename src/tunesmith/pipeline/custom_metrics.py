"""Metrics of the user (`evaluate.metrics`): functions of the rows that predictions/*.jsonl hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tunesmith import errors, extensions
from tunesmith.errors import RecipeError
from tunesmith.recipe import Recipe
from tunesmith.types import MultilabelPredictionRow, PredictionRow, ResponseRow, ValuePredictionRow

FILE = "custom_scores.json"
"""The metrics of the test split, in a run."""
Rows = Sequence[PredictionRow | MultilabelPredictionRow | ValuePredictionRow | ResponseRow]
Metric = Callable[[Rows], float]


def load(recipe: Recipe) -> dict[str, Metric]:
    """Return the metrics by name. Raises RecipeError if one cannot be imported."""
    return {short_name(name): extensions.load(name, "evaluate.metrics") for name in recipe.evaluate.metrics}


def short_name(name: str) -> str:
    """Return the name by which logs call a metric: `f1` for `my_module:f1`."""
    return name.rpartition(":")[2]


def higher_is_better(metric: Metric) -> bool:
    """Return the attribute of this name of a function, or True."""
    return bool(getattr(metric, "higher_is_better", True))


def deciding(recipe: Recipe, of_task: Mapping[str, bool]) -> tuple[str, bool]:
    """Return the name of `evaluate.metric_for_best_model` in results, and whether higher is better.

    of_task: whether higher is better, for the metrics of the task.
    """
    name = short_name(recipe.evaluate.metric_for_best_model)
    custom = load(recipe)
    return name, higher_is_better(custom[name]) if name in custom else of_task[name]


def score(metrics: dict[str, Metric], rows: Rows) -> dict[str, float]:
    """Return each metric of the rows. Raises RecipeError if one fails."""
    values = {}
    for name, metric in metrics.items():
        try:
            values[name] = float(metric(rows))
        except Exception as error:  # the user's function may raise anything
            raise RecipeError(
                f"the metric {name} failed", found=errors.summary(error), do="correct the function"
            ) from error
    return values
