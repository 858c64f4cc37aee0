"""New data for a finished run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tunesmith import data, recipe as recipes
from tunesmith.console import say
from tunesmith.data import sources, summary
from tunesmith.data.row_stream import RowChunk, RowStream
from tunesmith.data.rows import merge
from tunesmith.errors import RecipeError
from tunesmith.pipeline.task_table import TASKS
from tunesmith.recipe import Data, Recipe
from tunesmith.types import DataNote, Example

SECTIONS = ("data", "generate", "seed")
"""What may be set anew when a finished run reads new data."""


def settings(recipe: Recipe, source: str | None, overrides: Sequence[str] = (), more: Sequence[str] = ()) -> Recipe:
    """Return a run's recipe with a new source, read as its own data was except where overrides say otherwise.

    more: settings that may be set anew besides those of SECTIONS.
    """
    if source is not None:
        update = {"path": source, "train": None, "validation": None, "test": None, "name": None}
        update |= {"revision": None, "sha256": None}
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update=update)})
    return recipes.load(recipe, overrides, sections=[*SECTIONS, *more])


def read(recipe: Recipe) -> Sequence[Example]:
    """Return the rows of the recipe's source; what reading changed is said.

    Raises RecipeError where rows without a prediction are to be kept, which is for who writes rows.
    """
    if recipe.data.on_bad_rows == "keep":
        do = "leave these rows out with data.on_bad_rows=drop"
        raise RecipeError("data.on_bad_rows=keep is for predict and pseudo-label", expected="error or drop", do=do)
    examples, changes = data.read_unlabelled(recipe.data, TASKS[recipe.task].reader)
    for line in summary.lines(changes):
        say(f"data: {line}")
    return examples


def chunks(recipe: Recipe, size: int) -> Iterator[RowChunk]:
    """Yield the rows of the recipe's source, so many at a time; what reading changed is said in the end."""
    notes: tuple[DataNote, ...] = ()
    stream = RowStream(recipe.data, TASKS[recipe.task].reader)
    for chunk in stream.chunks(size):
        yield replace(chunk, examples=[*stream.with_label_names(chunk.examples)])
        notes = merge([*notes, *chunk.notes])
    for line in summary.lines(notes):
        say(f"data: {line}")


def check_output(output: Path, source: str | None, *, overwrite: bool) -> None:
    """Raise RecipeError for an output without a folder, for the source or a file in it, and for any file that exists.

    overwrite: the last is allowed.
    """
    if not output.parent.is_dir():
        raise RecipeError(f"cannot write {output}", found=f"no folder {output.parent}", do="make the folder first")
    if not output.exists():
        return
    read = Path(source or "").expanduser()
    if source and read.exists() and (output.samefile(read) or output.resolve().is_relative_to(read.resolve())):
        raise RecipeError(f"cannot write {output}: it is the input", do="give --output another name")
    if not overwrite:
        raise RecipeError(f"cannot write {output}: it exists", do="give another name, or --overwrite")


def as_row(example: Example, answer: str | tuple[str, ...] | None, data: Data) -> dict[str, object]:
    """Return a text as a row that training reads by the same settings. answer: its label or labels; None for none."""
    row: dict[str, object] = {data.text: example.text}
    if example.text_pair is not None and data.text_pair is not None:
        row[data.text_pair] = example.text_pair
    if answer is None:
        return row
    if isinstance(data.label, str):
        return row | {data.label: answer}
    return row | {label: int(label in ((answer,) if isinstance(answer, str) else answer)) for label in data.label}


def columns(recipe: Recipe) -> dict[str, dict[str, object]]:
    """Return every column of the source's rows by the row's id, which is put first where they have no `id`."""
    rows = sources.all_values(recipe.data)
    return {name: dict(values) if "id" in values else {"id": name, **values} for name, values in rows.items()}
