"""What the parts of an audit look at."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.recipe import Recipe
from tunesmith.runs import Run
from tunesmith.types import Splits


@dataclass(frozen=True)
class AuditInput:
    """A recipe, its rows as training would see them, and the folder that the audit writes into."""

    recipe: Recipe
    splits: Splits
    folder: Run
    method: str
    """The method of out-of-fold probabilities, as in `compare --methods`."""
    cleaning_gain: bool = False
    """Whether to train without the rows whose labels are suspect, and test the difference."""
    review_jsonl: bool = False
    """Whether to write the review file as JSON Lines too."""
