"""Training in a process of its own: its peak memory is its own, and nothing of it is left behind."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tunesmith import console, recipe as recipes, runs
from tunesmith.console import logger, say
from tunesmith.data import summary
from tunesmith.errors import Interrupted, RecipeError, TunesmithError
from tunesmith.pipeline import audit_summary, slice_scores
from tunesmith.pipeline.fitting import interruption, methods
from tunesmith.pipeline.task_table import TASKS, read_splits
from tunesmith.recipe import Recipe
from tunesmith.runs import Run
from tunesmith.types import Splits


def check_data(planned: Sequence[Recipe]) -> Splits:
    """Read the data before anything trains: it must be there, the same for all, and have rows to test on."""
    checked: dict[str, Splits] = {}
    for recipe in planned:
        key = repr((recipe.data, recipe.split, recipe.seed, recipe.evaluate.slices))
        if key not in checked:
            checked[key] = splits = read_splits(recipe)
            slice_scores.read(recipe, splits.test)
            if not splits.test:
                raise RecipeError("a comparison, of seeds too, needs a test split", do="set split.test_size above 0")
            for line in summary.lines(splits.notes):
                say(f"data: {line}")
            for line in audit_summary.lines(splits):
                say(f"audit: {line}")
    if len({splits.fingerprints["data"] for splits in checked.values()}) > 1:
        raise RecipeError("the recipes do not share one split", do="give all the same data, split and seed")
    return next(iter(checked.values()))


def announce(recipe: Recipe, splits: Splits, runs: int = 1) -> None:
    """Say what should be known before a method is trained so many times. Raises RecipeError to prevent it."""
    if announced := methods.find(recipe).announce(recipe, splits, TASKS[recipe.task].target(splits), runs):
        say(announced)


def train(recipe: Recipe, folder: Path, *, skip_test: bool = False, held: int | None = None) -> Run:
    """Train into `folder`, or go on with the run that was cut off there. Its output goes to the same screen; in a
    notebook, to one line that is drawn over.

    held: a file descriptor that the process inherits, so that a lock on it lasts while it trains.
    Raises Interrupted where a signal ended it.
    """
    words = ["--skip-test"] if skip_test else []
    fds = () if held is None else (held,)
    stderr = subprocess.PIPE if console.in_notebook() and console.can_draw() else None
    with subprocess.Popen(command(recipe, folder, *words), pass_fds=fds, stderr=stderr) as child:  # noqa: S603
        try:
            logged = console.follow(child.stderr, recipe.method) if child.stderr else []
            code = child.wait()
        except KeyboardInterrupt:
            child.wait()  # Ctrl-C reached it too: it ends its step and writes a checkpoint
            raise
    for line in logged if code else []:
        console.relay(line, recipe.method)
    check_end(recipe, folder, code)
    return Run(folder)


def command(recipe: Recipe, folder: Path, *words: str) -> list[str]:
    """Return the command that trains into `folder`, or goes on with the run there; a new run's recipe is written."""
    start = [sys.executable, "-m", "tunesmith", "train"]
    if (folder / runs.MANIFEST).is_file():
        start += ["--resume", str(folder)]
    else:
        plan = Run(folder).write("recipe.yaml", recipes.dump(recipe))
        start += [str(plan), "--run-dir", str(folder)]
    verbosity = ["-v"] if logger.level == logging.DEBUG else ["-q"] if logger.level > logging.INFO else []
    return [*start, "--worker", *verbosity, *words]


def check_end(recipe: Recipe, folder: Path, code: int) -> None:
    """Raise Interrupted where a signal ended a training, and TunesmithError where it failed. code: its exit code."""
    if code - 128 in interruption.SIGNALS:
        raise Interrupted(
            f"training {recipe.method} was stopped", code - 128, do=f"go on with: tunesmith train --resume {folder}"
        )
    if code:
        raise TunesmithError(
            f"training {recipe.method} failed (exit code {code}); see the error above",
            do=f"fix the error above, then rerun this method: tunesmith train {folder / 'recipe.yaml'}",
        )
