"""Learning curves: methods trained on nested parts of the training rows, on one test split."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from tunesmith import recipe as recipes, runs
from tunesmith.auditing import learning_curves
from tunesmith.auditing.learning_curves import CurveMetric, LearningCurveAudit, MeasuredCurve, MeasuredLevel
from tunesmith.console import meter, silence, warn
from tunesmith.data import nested_subsets
from tunesmith.data.nested_subsets import NestedOrder
from tunesmith.errors import DataError, RecipeError, RunError, TrainingError, summary
from tunesmith.evaluation import intervals
from tunesmith.evaluation.intervals import Confidence
from tunesmith.pipeline import held_out, seeds as repeats
from tunesmith.pipeline.confidence import confidence_of
from tunesmith.pipeline.curve_scores import NamedMeasure
from tunesmith.pipeline.fitting import methods, subprocess
from tunesmith.pipeline.part_training import PartTrainer
from tunesmith.pipeline.task_table import TASKS
from tunesmith.recipe import Recipe
from tunesmith.reporting import format
from tunesmith.runs import Run
from tunesmith.types import Splits

FOLDER = "learning_curve"
"""Where the scores lie in the folder of an audit or a comparison, so that one that was stopped goes on."""
SEEDS = 3
"""How many orders of the rows are tried, unless seeds are given."""
FEWEST_VALIDATION_ROWS = 20
"""Fewer choose no checkpoint and no threshold."""


@dataclass(frozen=True, slots=True)
class CurvePart:
    """What one training learns from."""

    size: int
    seed: int
    train: tuple[int, ...]
    """Numbers of training rows: fewer than `size` where groups and equal texts stay together."""
    validation: tuple[int, ...]


@dataclass(frozen=True)
class CurvePlan:
    """What is trained."""

    recipes: Mapping[str, Recipe]
    """By the method's name."""
    train: Mapping[int, NestedOrder]
    """The order in which parts take training rows, by seed."""
    validation: Mapping[int, NestedOrder]
    """The same of validation rows."""
    sizes: tuple[int, ...]
    """Training rows, ascending; the last is all."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the orders, and of the trainings."""
        return tuple(self.train)

    def trainings(self, recipe: Recipe) -> list[tuple[int, int]]:
        """Return the sizes and seeds with which a method is trained, the largest size first.

        A method that learns nothing is asked once, and one that always comes to the same with all rows learns from them
        once.
        """
        method, largest = methods.find(recipe), self.sizes[-1]
        sizes = self.sizes[::-1] if method.uses_train(recipe) else (largest,)
        once = method.refits_cheaply or not method.uses_train(recipe)
        return [(size, seed) for size in sizes for seed in (self.seeds[:1] if once and size == largest else self.seeds)]

    def part(self, size: int, seed: int) -> CurvePart:
        """Return a part of the rows. Validation rows are as large a share of all as training rows."""
        rows, largest = self.validation[seed].rows, self.sizes[-1]
        most = rows * size // largest
        if size < largest and most < max(FEWEST_VALIDATION_ROWS, self.validation[seed].covering):
            most = 0
        validation = self.validation[seed].first(most) if most else ()
        return CurvePart(size, seed, tuple(self.train[seed].first(size)), tuple(validation))


@dataclass(frozen=True, slots=True)
class PartScores:
    """learning_curve/METHOD/seed-S-rows-N.json, signed: the score of one training."""

    metric: str
    rows: int
    """Training rows: fewer than N where groups and equal texts stay together."""
    score: float | None
    """None where these rows are too few for the method."""
    resampled: tuple[float, ...] = ()
    """The score on each draw of the test rows."""


def plan(
    by_name: Mapping[str, Recipe], splits: Splits, seeds: Sequence[int] | None = None, smallest: int | None = None
) -> CurvePlan:
    """Check what a curve needs, and return what to train. Raises RecipeError or DataError where there is no curve.

    by_name: the recipe of each method. smallest: the rows of the smallest part, for each label there is; by default an
    eighth to a 128th of all.
    """
    recipe = next(iter(by_name.values()))
    task = TASKS[recipe.task]
    if smallest is not None and smallest < 1:
        raise RecipeError("the smallest part needs rows", expected="--smallest above 0", found=str(smallest))
    if not splits.test:
        raise RecipeError("a learning curve needs a test split", do="set split.test_size above 0")
    if recipe.split.max_train_samples is not None or recipe.split.max_validation_samples is not None:
        do = "leave split.max_train_samples and split.max_validation_samples out"
        raise RecipeError("a learning curve takes parts of the rows itself", do=do)
    if not any(methods.find(each).uses_train(each) for each in by_name.values()):
        do = "add one, such as linear"
        raise RecipeError("nothing here learns from the training rows", found=", ".join(by_name), do=do)
    if unlike := [name for name, each in by_name.items() if task.has_responses and methods.find(each).is_charged]:
        raise RecipeError(
            f"{', '.join(unlike)} cannot be in this learning curve, which shows the loss of the answers",
            do="leave it out: an endpoint does not say how probable given answers are",
        )
    seeds = [recipe.seed + k for k in range(SEEDS)] if seeds is None else list(seeds)
    repeats.settings(recipe, seeds)  # refuses fewer than two
    train, validation = (
        {seed: nested_subsets.order(rows, seed, task.reader.strata) for seed in seeds}
        for rows in (splits.train, splits.validation)
    )
    covering = max(order.covering for order in train.values())
    first = None if smallest is None else smallest * max(1, len(splits.labels))
    if len(splits.train) < (least := learning_curves.least_rows(covering, first)):
        raise DataError(
            "train has too few rows for a learning curve",
            expected=f"at least {least:,} rows: {learning_curves.RANGE} times the smallest part, which has every label",
            found=f"{len(splits.train):,} rows",
            do="leave --learning-curve out" + (", or lower --smallest" if smallest else ""),
        )
    return CurvePlan(by_name, train, validation, learning_curves.sizes(len(splits.train), covering, first))


def measure(
    planned: CurvePlan,
    splits: Splits,
    folder: Run,
    trainer: Callable[[str], PartTrainer] | None = None,
    finished: Mapping[str, Sequence[Run]] | None = None,
) -> LearningCurveAudit:
    """Train each method with each seed on each part, and return what the scores say.

    folder: gets the scores, each when it is there; what it has is not trained again. trainer: gives what trains a
    method in this process, where there is one already. finished: runs with all rows, by method, each with a seed of its
    own.
    """
    trainer = trainer or (lambda name: PartTrainer.of(planned.recipes[name], splits))
    first = next(iter(planned.recipes.values()))
    confidence = confidence_of(first)
    by_metric = partial(TASKS[first.task].curve_score, first, splits)  # as comparisons, by the metric of the first
    measured: list[MeasuredCurve | MeasuredLevel] = []
    metric = ""
    for name, each in planned.recipes.items():
        here = methods.find(each).refits_cheaply or methods.find(each).is_charged
        whole = {run.recipe.seed: run for run in (finished or {}).get(name, ())}
        scorer = Scorer(each, splits, by_metric, confidence, trainer(name) if here else None, whole)
        parts = _scores(planned, name, scorer, Run(folder.path / FOLDER / runs.folder_name(name)))
        (metric,) = {of_part.metric for of_size in parts.values() for of_part in of_size if of_part.score is not None}
        if not methods.find(each).uses_train(each):
            measured.append(_level(name, parts))
        elif len((curve := _measured(name, parts)).rows) > 1:
            measured.append(curve)
        else:
            warn(f"{name} is left out of the learning curve: it has a score with all rows only")
    if all(isinstance(curve, MeasuredLevel) for curve in measured):
        do = "leave --learning-curve out"
        raise TrainingError("no method has a learning curve, only a score with all rows", do=do)
    shown = CurveMetric(metric, format.in_a_sentence(metric), metric not in format.LOWER_IS_BETTER)
    return learning_curves.audit_curves(measured, shown, len(splits.test), planned.seeds, confidence)


def _scores(planned: CurvePlan, name: str, scorer: Scorer, folder: Run) -> dict[int, list[PartScores]]:
    """Return the scores of one method: by size, of each seed."""
    wanted = planned.trainings(scorer.recipe)
    known: dict[tuple[int, int], PartScores] = {}
    has_trained = False
    with meter(f"learning curve of {name}", len(wanted)) as show:
        for done, (size, seed) in enumerate(wanted, 1):
            file = f"seed-{seed}-rows-{size}.json"
            scores = _stored(folder, file)
            if scores is None:
                with silence() if has_trained else nullcontext():  # what the first says, all would
                    scores = scorer.score(planned.part(size, seed), folder)
                has_trained |= size < planned.sizes[-1] or seed not in scorer.whole
                folder.write(file, scores, signed=True)
            known[size, seed] = scores
            show(done)
    first = planned.seeds[0]
    sizes = [size for size in planned.sizes if (size, first) in known]
    return {size: [known.get((size, seed), known[size, first]) for seed in planned.seeds] for size in sizes}


def _stored(folder: Run, file: str) -> PartScores | None:
    """Return the scores that an earlier process wrote; None, with a warning, where they are damaged."""
    if not folder.has(file):
        return None
    try:
        return folder.load(file, PartScores, signed=True)
    except RunError as error:
        warn(f"{summary(error)}; this part of the learning curve is trained again")
        return None


def _level(name: str, parts: Mapping[int, Sequence[PartScores]]) -> MeasuredLevel:
    (scores, *_), *_ = parts.values()
    return MeasuredLevel(name, float(scores.score or 0), np.array(scores.resampled))


def _measured(name: str, parts: Mapping[int, Sequence[PartScores]]) -> MeasuredCurve:
    known = [size for size, of_size in parts.items() if all(scores.score is not None for scores in of_size)]
    if missing := [size for size in parts if size not in known]:
        fewest = format.counted(max(missing), "training row")
        warn(f"{name}: no score with {fewest} or fewer, which are too few for it")
    rows = [round(float(np.mean([scores.rows for scores in parts[size]]))) for size in known]
    distinct = [place for place, count in enumerate(rows) if count not in rows[:place]]
    chosen = [parts[known[place]] for place in distinct]
    return MeasuredCurve(
        method=name,
        rows=tuple(rows[place] for place in distinct),
        scores=np.array([[scores.score for scores in of_size] for of_size in chosen], dtype=np.float64).T,
        resampled=np.array([[s.resampled for s in of_size] for of_size in chosen]).transpose(1, 0, 2),
    )


@dataclass(frozen=True)
class Scorer:
    """Trains a method on parts of the rows, and scores the test rows."""

    recipe: Recipe
    splits: Splits
    measure: Callable[[Sequence[Any]], NamedMeasure]
    confidence: Confidence
    trainer: PartTrainer | None
    """None where the method is trained in a process of its own."""
    whole: Mapping[int, Run]
    """Finished runs with all rows, by seed."""

    def score(self, part: CurvePart, folder: Run) -> PartScores:
        """Return the scores of a part. folder: what is trained in a process of its own lies there meanwhile."""
        rows: list[Any] | None
        if len(part.train) == len(self.splits.train) and part.seed in self.whole:
            rows = self.whole[part.seed].predictions("test", TASKS[self.recipe.task].row)
        else:
            rows = self._here(self.trainer, part) if self.trainer else self._apart(part, folder)
        if rows is None:
            return PartScores("", len(part.train), None)
        shown = self.measure(rows)
        score = float(shown.measure(np.arange(shown.rows, dtype=np.intp)[None])[0])
        draws = intervals.resamples(shown.rows, self.confidence.resamples, self.confidence.seed)
        drawn = np.concatenate([shown.measure(draws_BN) for draws_BN in draws])
        drawn[np.isnan(drawn)] = score  # not defined on these rows
        return PartScores(shown.metric, len(part.train), score, tuple(drawn.tolist()))

    def _here(self, trainer: PartTrainer, part: CurvePart) -> list[Any] | None:
        validation = tuple(self.splits.validation[place] for place in part.validation)
        trainer = replace(
            trainer,
            recipe=trainer.recipe.model_copy(update={"seed": part.seed}),
            splits=replace(trainer.splits, validation=validation),
        )
        try:
            predictor = trainer.train([self.splits.train[place] for place in part.train])
            return held_out.predict(predictor, self.splits.test)
        except TrainingError:
            if len(part.train) == len(self.splits.train):
                raise
            return None

    def _apart(self, part: CurvePart, folder: Run) -> list[Any]:
        task = TASKS[self.recipe.task]
        words = [f"seed={part.seed}", repeats.one_split(self.recipe), "evaluate.base=false"]
        if part.size < len(self.splits.train):
            words += [f"split.max_train_samples={part.size}", f"split.train_samples_seed={part.seed}"]
            words += [f"split.max_validation_samples={len(part.validation)}"]
        if task.has_responses:
            words += ["evaluate.max_responses=0", "evaluate.num_samples=0"]
        run = subprocess.train(recipes.load(self.recipe, words), folder.path / f"seed-{part.seed}-rows-{part.size}")
        rows: list[Any] = run.predictions("test", task.row)
        shutil.rmtree(run.path)
        return rows
