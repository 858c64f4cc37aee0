"""The learning curve part of an audit: methods trained on nested parts of the training rows, on one test split."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunesmith import recipe as recipes, runs
from tunesmith.auditing import learning_curves
from tunesmith.auditing.learning_curves import CurveMetric, LearningCurveAudit, MeasuredCurve
from tunesmith.console import meter, silence, warn
from tunesmith.data import nested_subsets
from tunesmith.data.nested_subsets import NestedOrder
from tunesmith.errors import DataError, RecipeError, TrainingError
from tunesmith.evaluation import intervals
from tunesmith.evaluation.intervals import Confidence
from tunesmith.pipeline import held_out, seeds as repeats
from tunesmith.pipeline.audit_sections.audit_input import AuditInput
from tunesmith.pipeline.confidence import confidence_of
from tunesmith.pipeline.fitting import methods, subprocess
from tunesmith.pipeline.part_training import PartTrainer
from tunesmith.pipeline.task_table import TASKS
from tunesmith.recipe import Recipe
from tunesmith.reporting import format
from tunesmith.runs import Run
from tunesmith.types import Splits

FOLDER = "learning_curve"
"""Where the scores lie in the folder of the audit, so that an audit that was stopped goes on."""
SEEDS = 3
"""How many orders of the rows are tried, unless seeds are given."""


@dataclass(frozen=True)
class CurvePlan:
    """What is trained."""

    recipes: dict[str, Recipe]
    """By the method's name in `--methods`."""
    orders: dict[int, NestedOrder]
    """The order in which parts take training rows, by seed."""
    sizes: tuple[int, ...]
    """Training rows, ascending; the last is all."""


@dataclass(frozen=True, slots=True)
class PartScores:
    """learning_curve/METHOD/seed-S-rows-N.json: the score of one training."""

    metric: str
    rows: int
    """Training rows: fewer than N where groups and equal texts stay together."""
    score: float | None
    """None where these rows are too few for the method."""
    resampled: tuple[float, ...] = ()
    """The score on each draw of the test rows."""


def plan(
    recipe: Recipe, splits: Splits, method_names: Sequence[str] | None = None, seeds: Sequence[int] | None = None
) -> CurvePlan:
    """Check what a curve needs, and return what to train. Raises RecipeError or DataError where there is no curve.

    method_names: as in `compare --methods`; by default those that are fitted to parts in little time, or where the task
    has none all that it compares.
    """
    task = TASKS[recipe.task]
    if not splits.test:
        raise RecipeError("a learning curve needs a test split", do="set split.test_size above 0")
    if recipe.split.max_train_samples is not None:
        raise RecipeError("a learning curve takes parts of train itself", do="leave split.max_train_samples out")
    if method_names is None:
        compared = [name for name in task.compared_methods if methods.learns(methods.of_method(recipe, name))]
        method_names = methods.refitting(recipe) or compared
    if len(set(method_names)) != len(method_names) or not method_names:
        raise RecipeError("a learning curve needs different methods", found=", ".join(method_names) or "none")
    by_name = {name: methods.of_method(recipe, name) for name in method_names}
    for name, each in by_name.items():
        methods.find(each)
        if not methods.learns(each):
            raise RecipeError(
                f"{name} learns nothing, so that it has no learning curve", do="leave it out of --methods"
            )
    seeds = [recipe.seed + k for k in range(SEEDS)] if seeds is None else list(seeds)
    repeats.settings(recipe, seeds)  # refuses fewer than two
    orders = {seed: nested_subsets.order(splits.train, seed, task.reader.strata) for seed in seeds}
    covering = max(order.covering for order in orders.values())
    if len(splits.train) < learning_curves.least_rows(covering):
        raise DataError(
            "train has too few rows for a learning curve",
            expected=f"at least {learning_curves.least_rows(covering):,} rows: {learning_curves.RANGE} times the "
            "smallest part, which has every label",
            found=f"{len(splits.train):,} rows",
            do="audit without --learning-curve",
        )
    return CurvePlan(by_name, orders, learning_curves.sizes(len(splits.train), covering))


def audit(data: AuditInput, planned: CurvePlan) -> LearningCurveAudit:
    """Train each method with each seed on each part, and return what the scores say."""
    confidence = confidence_of(data.recipe)
    curves = []
    metric = ""
    for name, recipe in planned.recipes.items():
        parts = _train(data, planned, name, recipe, confidence)
        known = [size for size in planned.sizes if all(scores.score is not None for scores in parts[size])]
        if missing := [size for size in planned.sizes if size not in known]:
            fewest = format.counted(max(missing), "training row")
            warn(f"{name}: no score with {fewest} or fewer, which are too few for it")
        rows = [round(float(np.mean([scores.rows for scores in parts[size]]))) for size in known]
        distinct = [place for place, count in enumerate(rows) if count not in rows[:place]]
        chosen = [parts[known[place]] for place in distinct]
        metric = chosen[-1][0].metric
        curves.append(
            MeasuredCurve(
                method=name,
                rows=tuple(rows[place] for place in distinct),
                scores=np.array([[scores.score for scores in of_size] for of_size in chosen], dtype=np.float64).T,
                resampled=np.array([[s.resampled for s in of_size] for of_size in chosen]).transpose(1, 0, 2),
            )
        )
    higher = metric not in format.LOWER_IS_BETTER
    shown = CurveMetric(metric, format.in_a_sentence(metric), higher)
    return learning_curves.audit_curves(curves, shown, len(data.splits.test), tuple(planned.orders), confidence)


def _train(
    data: AuditInput, planned: CurvePlan, name: str, recipe: Recipe, confidence: Confidence
) -> dict[int, list[PartScores]]:
    """Return the scores of one method: by size, of each seed. What the folder has is not trained again."""
    largest, first = planned.sizes[-1], next(iter(planned.orders))
    wanted = [(size, seed) for size in reversed(planned.sizes) for seed in planned.orders]
    if methods.find(recipe).refits_cheaply:  # with all rows the seeds do not differ
        wanted = [(size, seed) for size, seed in wanted if size < largest or seed == first]
    folder = Run(data.folder.path / FOLDER / runs.folder_name(name))
    found: dict[tuple[int, int], PartScores] = {}
    with meter(f"learning curve of {name}", len(wanted)) as show:
        scorer = Scorer(data, recipe, data.trainer(name) if methods.find(recipe).refits_cheaply else None)
        for done, (size, seed) in enumerate(wanted, 1):
            file = f"seed-{seed}-rows-{size}.json"
            if folder.has(file):
                found[size, seed] = folder.load(file, PartScores)
            else:
                found[size, seed] = scorer.score(planned.orders[seed].first(size), size, seed, folder, confidence)
                folder.write(file, found[size, seed])
            show(done)
    return {
        size: [found[size, seed if (size, seed) in found else first] for seed in planned.orders]
        for size in planned.sizes
    }


@dataclass(frozen=True)
class Scorer:
    """Trains a method on parts of the training rows."""

    data: AuditInput
    recipe: Recipe
    trainer: PartTrainer | None
    """None where the method is trained in a process of its own."""

    def score(self, places: Sequence[int], size: int, seed: int, folder: Run, confidence: Confidence) -> PartScores:
        """Train on the rows at `places`, a part of `size` rows, and score the test rows."""
        rows = self._here(self.trainer, places) if self.trainer else self._apart(size, seed, folder)
        if rows is None:
            return PartScores("", len(places), None)
        shown = TASKS[self.recipe.task].curve_score(self.recipe, self.data.splits, rows)
        score = float(shown.measure(np.arange(shown.rows, dtype=np.intp)[None])[0])
        draws = intervals.resamples(shown.rows, confidence.resamples, confidence.seed)
        drawn = np.concatenate([shown.measure(draws_BN) for draws_BN in draws])
        drawn[np.isnan(drawn)] = score  # not defined on these rows
        return PartScores(shown.metric, len(places), score, tuple(drawn.tolist()))

    def _here(self, trainer: PartTrainer, places: Sequence[int]) -> list[Any] | None:
        whole = len(places) == len(self.data.splits.train)
        try:
            with nullcontext() if whole else silence():  # what the first says, all would
                predictor = trainer.train([self.data.splits.train[place] for place in places])
                return held_out.predict(predictor, self.data.splits.test)
        except TrainingError:
            if whole:
                raise
            return None

    def _apart(self, size: int, seed: int, folder: Run) -> list[Any]:
        task = TASKS[self.recipe.task]
        words = [f"seed={seed}", repeats.one_split(self.recipe), "evaluate.base=false"]
        if size < len(self.data.splits.train):
            words += [f"split.max_train_samples={size}", f"split.train_samples_seed={seed}"]
        if task.has_responses:
            words += ["evaluate.max_responses=0", "evaluate.num_samples=0"]
        run = subprocess.train(recipes.load(self.recipe, words), folder.path / f"seed-{seed}-rows-{size}")
        rows: list[Any] = run.predictions("test", task.row)
        shutil.rmtree(run.path)
        return rows
