"""What training one method needs, whatever the method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tunesmith.data import labels
from tunesmith.recipe import Recipe
from tunesmith.runs import Run
from tunesmith.types import Splits


@dataclass(frozen=True)
class Job:
    """A recipe, the rows it is about, and the run directory it writes to."""

    recipe: Recipe
    splits: Splits
    run: Run

    def weights(self) -> Any:
        """The class weights, one per label."""
        return labels.class_weights(self.splits.train, self.splits.labels, self.recipe.train.class_weights)
