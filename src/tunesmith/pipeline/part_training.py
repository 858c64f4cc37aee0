"""Training a method on parts of the training rows, for what its predictions say; no run is kept."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tunesmith.pipeline import held_out
from tunesmith.pipeline.fitting import methods
from tunesmith.pipeline.fitting.job import Job
from tunesmith.pipeline.task_table import job_of
from tunesmith.protocols import TextPredictor, TrainResult
from tunesmith.recipe import Recipe
from tunesmith.runs import Run
from tunesmith.types import Example, Splits


@dataclass(frozen=True)
class PartTrainer:
    """Trains a method on rows, with the validation split as it is; what parts share is computed once."""

    recipe: Recipe
    splits: Splits
    fit: Callable[[Job], TrainResult]

    @classmethod
    def of(cls, recipe: Recipe, splits: Splits, method: str | None = None) -> PartTrainer:
        """Return what trains a method, as `compare --methods` names it, or the recipe's own, with its settings.

        Raises RecipeError if it cannot learn the recipe's task.
        """
        recipe = methods.of_method(recipe, method) if method else recipe
        chosen = methods.find(recipe)
        chosen.prepare(recipe)
        return cls(recipe, splits, chosen.refits(recipe))

    def train(self, rows: Sequence[Example], *, decide: bool = True) -> TextPredictor:
        """Return a model of these rows. decide: whether it has the thresholds and the like that a run would have.

        Raises TrainingError where the rows are too few for the method.
        """
        engine = self.recipe.engine.model_copy(update={"save_strategy": "no"})
        evaluate = self.recipe.evaluate.model_copy(update={"report_to": (), "base": False})
        recipe = self.recipe.model_copy(update={"engine": engine, "evaluate": evaluate})
        with tempfile.TemporaryDirectory() as folder:
            job = job_of(recipe, replace(self.splits, train=tuple(rows), test=()), Run(Path(folder)))
            result = self.fit(job)
            return (held_out.decide(job, result) if decide else result).text_predictor
