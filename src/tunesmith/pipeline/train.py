"""`tunesmith train`: one recipe -> one run directory with a model, its scores and a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunesmith import __version__, data, hardware, recipe as recipes, runs
from tunesmith.console import say
from tunesmith.data import summary
from tunesmith.evaluation import metrics
from tunesmith.pipeline import reporting
from tunesmith.pipeline.job import Job
from tunesmith.pipeline.methods import METHODS
from tunesmith.recipe import Recipe
from tunesmith.runs import Run
from tunesmith.types import Fitted, Splits

Source = str | Path | Mapping[str, Any] | Recipe


def train(
    source: Source, overrides: Sequence[str] = (), *, run_dir: str | Path | None = None, quiet: bool = False
) -> Run:
    """Train, evaluate and report as the recipe says; everything it makes lies in the run directory.

    source: a recipe file, a nested mapping, or a Recipe. overrides: `section.name=value`. run_dir: an empty or new
    folder to use instead of a time-stamped one under `output_dir`. quiet: do not say what reading changed in the data.
    """
    recipe = recipes.load(source, overrides)
    splits = data.read(recipe.data, recipe.split, recipe.seed)
    for line in () if quiet else summary.lines(splits.changes):
        say(f"data: {line}")
    run = runs.use(run_dir) if run_dir else runs.create(recipe.output_dir, recipe.method, _name(recipe))
    run.write("recipe.yaml", recipes.dump(recipe))
    return fit(recipe, splits, run)


def fit(recipe: Recipe, splits: Splits, run: Run) -> Run:
    """Train on splits that were read already."""
    watch = hardware.Stopwatch()
    method = METHODS[recipe.method]
    say(f"{recipe.method}: {method.describe(recipe)}; {len(splits.train):,} training rows, {len(splits.labels)} labels")
    with watch.time("train"):
        fitted = method.fit(Job(recipe, splits, run))
    fitted.predictor.save(run.model)
    validation = _score_validation(recipe, splits, run, fitted)
    with watch.time("predict"):
        predictions = fitted.predictor.predict(splits.test)
    gold = [str(example.label) for example in splits.test]
    run.write_predictions("test", predictions, gold)
    if splits.test:
        run.write("scores.json", metrics.score(gold, predictions, splits.labels, recipe.evaluate, recipe.seed))
    run.write("worst.json", {"worst": reporting.worst(splits.test, predictions)})
    run.note(
        tunesmith=__version__,
        name=recipe.method,
        method=recipe.method,
        description=method.describe(recipe),
        seed=recipe.seed,
        data=summary.summarize(splits, source_name(recipe)),
        validation=validation,
        costs=_costs(watch, fitted, len(splits.test), run),
        notes=fitted.notes,
        environment=hardware.environment(fitted.notes.get("device", "cpu")),
        status="finished",
    )
    reporting.write_run(run)
    return run


def _score_validation(recipe: Recipe, splits: Splits, run: Run, fitted: Fitted) -> dict[str, float] | None:
    if not splits.validation:
        return None
    predictions = fitted.predictor.predict(splits.validation)
    gold = [str(example.label) for example in splits.validation]
    run.write_predictions("validation", predictions, gold)
    return metrics.headline(gold, predictions, splits.labels)


def _costs(watch: hardware.Stopwatch, fitted: Fitted, num_predicted: int, run: Run) -> dict[str, float | None]:
    predicting = watch.seconds["predict"] / num_predicted * 1000 if num_predicted else None
    return {
        "train_seconds": watch.seconds["train"],
        "seconds_per_1000": predicting,
        "peak_memory_mb": hardware.peak_memory_mb(),
        "parameters": fitted.parameters,
        "trainable": fitted.trainable,
        "size_mb": runs.size(run.model) / 2**20,
    }


def source_name(recipe: Recipe) -> str:
    """What the data is called in manifests and reports."""
    return recipe.data.path or recipe.data.train or "memory"


def _name(recipe: Recipe) -> str:
    return Path(source_name(recipe).removeprefix("pypi:")).name.split(".")[0]
