"""`evaluate.slices`: the values of more columns of held-out rows, and how well each slice of them is predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith import data
from tunesmith.console import say
from tunesmith.evaluation import slices
from tunesmith.pipeline.confidence import confidence_of
from tunesmith.pipeline.task_table import task_of
from tunesmith.recipe import Recipe, Split
from tunesmith.reporting import slice_report
from tunesmith.runs import Run
from tunesmith.types import Example

LENGTH = "length"
"""What is computed where the data has no column of this name."""
VALUES = "slice_values.json"


@dataclass(frozen=True, slots=True)
class SliceValues:
    """slice_values.json: the values of columns for each test row, in the order of predictions/test.jsonl."""

    columns: dict[str, tuple[str, ...]]


def read(recipe: Recipe, examples: Sequence[Example], split: Split | None = None) -> dict[str, list[str]]:
    """Return the values of every column of `evaluate.slices` for these examples of the recipe's data.

    split: how the data is divided; by default as the recipe says. Raises DataError for an unknown column.
    """
    columns = recipe.evaluate.slices
    if not columns or not examples:
        return {}
    ids = [example.id for example in examples]
    values = data.column_values(recipe.data, split or recipe.split, columns, ids, computed=[LENGTH])
    if LENGTH in columns and LENGTH not in values:
        values[LENGTH] = slices.quartiles([len(example.text) + len(example.text_pair or "") for example in examples])
    return {column: values[column] for column in columns}


def write(run: Run, values: Mapping[str, Sequence[str]], split: str = "test") -> None:
    """Score the slices of a split's stored predictions, write them into the run, and name the worst."""
    task = task_of(run)
    if not values or task.slice_metric is None:
        return
    rows: list[Any] = run.predictions(split, task.row)
    scores = slices.score(task.slice_metric(rows), values, confidence_of(run.recipe))
    run.write(slice_report.FILE if split == "test" else f"slices-{split}.json", scores)
    say(slice_report.worst(scores))


def write_test(run: Run) -> None:
    """Do so for the test split of a run that keeps the values of its rows."""
    if run.has(VALUES):
        write(run, run.load(VALUES, SliceValues).columns)


def keep(run: Run, values: Mapping[str, Sequence[str]]) -> None:
    """Write the values for the test rows into the run, so that their scores can be computed again."""
    if values:
        run.write(VALUES, SliceValues({column: tuple(each) for column, each in values.items()}))
