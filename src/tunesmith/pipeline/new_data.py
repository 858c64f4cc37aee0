"""New data for a finished run."""

from __future__ import annotations

from tunesmith import data
from tunesmith.console import say
from tunesmith.data import summary
from tunesmith.pipeline.task_table import TASKS
from tunesmith.recipe import Recipe
from tunesmith.types import Example


def read(recipe: Recipe, source: str) -> list[Example]:
    """Rows of a new source, read as the run's own data was: same columns, same encoding, same policy."""
    update = {"path": source, "train": None, "validation": None, "test": None, "name": None, "revision": None}
    examples, changes = data.read_unlabelled(recipe.data.model_copy(update=update), TASKS[recipe.task].reader)
    for line in summary.lines(changes):
        say(f"data: {line}")
    return list(examples)
