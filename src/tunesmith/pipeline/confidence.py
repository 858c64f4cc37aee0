"""How a recipe wants intervals and tests computed."""

from __future__ import annotations

from tunesmith.evaluation.intervals import Confidence
from tunesmith.recipe import Recipe


def confidence_of(recipe: Recipe) -> Confidence:
    """The confidence level, the number of bootstrap resamples and the seed of a recipe."""
    return Confidence(recipe.evaluate.confidence, recipe.evaluate.bootstrap_samples, recipe.seed)
