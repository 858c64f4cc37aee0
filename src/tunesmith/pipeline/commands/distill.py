"""`tunesmith distill`: small models that learn labels bought from a model behind an endpoint, and that model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from tunesmith import recipe as recipes, runs
from tunesmith.console import printable, say
from tunesmith.errors import DataError, RecipeError
from tunesmith.pipeline import in_memory, new_data, run_names
from tunesmith.pipeline.commands import compare as comparisons, pseudo_label as labelling, train as training
from tunesmith.pipeline.commands.compare import Comparison
from tunesmith.pipeline.commands.pseudo_label import PseudoLabels
from tunesmith.pipeline.fitting.methods import load_predictor
from tunesmith.pipeline.task_table import TASKS, read_splits
from tunesmith.recipe import Recipe
from tunesmith.reporting.format import counted
from tunesmith.runs import Run
from tunesmith.types import Example, MultilabelPredictionRow, PredictionRow

POOL, TRAIN, TEST = "pool.jsonl", "bought.jsonl", "test.jsonl"
"""Files of a distillation: the texts to label, those whose labels are kept, and the frozen test split."""


@dataclass(frozen=True)
class Distillation:
    """What was bought, and what came of it."""

    teacher: Run
    """The prompted model, scored on the test split."""
    labels: PseudoLabels
    comparison: Comparison
    """The teacher and the models that learned its labels, on the same test split."""


def distill(
    source: object,
    overrides: Sequence[str] = (),
    *,
    pool: object = None,
    methods: Sequence[str] | None = None,
    threshold: float = 0.75,
) -> Distillation:
    """Label texts by a model behind an endpoint, train small models on these labels, and compare all of them.

    source: labelled data, or a recipe; its test split scores teacher and students, and its training rows are the
    teacher's examples (`endpoint.shots`). pool: the texts to label; None takes those of the training rows, whose own
    labels then only measure how many of the bought ones are right. Texts that the test split has too are left out.
    methods: the students, by default those of the task. threshold: as of `pseudo_label`. Raises RecipeError for tasks
    without labels.
    """
    recipe = recipes.load(in_memory.recipe_source(source, overrides), overrides)
    task = TASKS[recipe.task]
    if task.row not in (PredictionRow, MultilabelPredictionRow):
        raise RecipeError("distill buys labels", expected="task classification or multilabel", found=recipe.task)
    teacher = training.train(recipe, ["method=endpoint"])
    folder = runs.create(recipe.output_dir, "distill", run_names.short_name(recipe))
    splits = read_splits(recipe)
    if not splits.test:
        raise RecipeError("distill needs a test split", do="set split.test_size above 0")
    rows = splits.train if pool is None else _read(pool, teacher)
    tested = {(example.text, example.text_pair) for example in splits.test}
    kept = [example for example in rows if (example.text, example.text_pair) not in tested]
    if len(kept) < len(rows):
        say(f"pool: left out {counted(len(rows) - len(kept), 'row')} whose text the test split has too")
    _write(folder, POOL, kept, recipe)
    _write(folder, TEST, splits.test, recipe)
    labels = labelling.pseudo_label(
        teacher.path, source=str(folder.path / POOL), threshold=threshold, output=folder.path / TRAIN
    )
    if not labels.report.kept:
        raise DataError(
            "no bought label is kept",
            expected=f"labels with an agreement of at least {threshold:g}",
            found=f"none of {labels.report.rows:,} rows",
            do="lower --threshold",
        )
    comparison = _compare(folder, teacher, recipe, methods)
    return Distillation(teacher, labels, comparison)


def _read(pool: object, teacher: Run) -> Sequence[Example]:
    """Return the rows of a pool, read as the teacher's data was."""
    with in_memory.as_path(pool) as name:
        return new_data.read(new_data.settings(teacher.recipe, name))


def _write(folder: Run, name: str, rows: Sequence[Example], recipe: Recipe) -> None:
    """Write texts, with the labels that they have, as rows that training reads."""
    lines = []
    for example in rows:
        gold = example.gold if isinstance(example.gold, str | tuple) else None
        lines.append(json.dumps(new_data.as_row(example, gold, recipe.data), ensure_ascii=False))
    runs.write_whole(folder.path / name, "".join(f"{printable(line)}\n" for line in lines).encode())


def _compare(folder: Run, teacher: Run, recipe: Recipe, methods: Sequence[str] | None) -> Comparison:
    """Train the students on the bought labels, and report them beside the teacher on its test split."""
    settings: dict[str, str | None] = dict.fromkeys(("path", "validation", "name", "revision", "sha256", "votes"))
    settings |= {"train": str(folder.path / TRAIN), "test": str(folder.path / TEST)}
    words = [f"data.{name}={json.dumps(value)}" for name, value in settings.items()]
    students = TASKS[recipe.task].compared_methods if methods is None else tuple(methods)
    planned = comparisons.plans([recipe], [*words, "split.column=null"], [*students, teacher.manifest.name])
    comparison, plan = comparisons.prepare(planned)
    name, learned = planned[-1]
    training.adopt(learned, Run(comparison.path / name), load_predictor(teacher))
    return comparisons.train_planned(comparison, plan)
