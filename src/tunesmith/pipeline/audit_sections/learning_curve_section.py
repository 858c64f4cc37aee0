"""The learning curve part of an audit."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.auditing.learning_curves import LearningCurveAudit
from tunesmith.errors import RecipeError
from tunesmith.pipeline import curve_training
from tunesmith.pipeline.audit_sections.audit_input import AuditInput, CurveSettings
from tunesmith.pipeline.curve_training import CurvePlan
from tunesmith.pipeline.fitting import methods, subprocess
from tunesmith.pipeline.task_table import TASKS
from tunesmith.recipe import Recipe
from tunesmith.types import Splits


def plan(recipe: Recipe, splits: Splits, settings: CurveSettings) -> CurvePlan:
    """Check what a curve needs, say what it will cost, and return what to train.

    Raises RecipeError or DataError where there is no curve. By default the methods are those that are fitted to parts
    in little time, or where the task has none all that it compares.
    """
    planned = curve_training.plan(_recipes(recipe, settings.methods), splits, settings.seeds, settings.smallest)
    for each in planned.recipes.values():
        subprocess.announce(each, splits, len(planned.trainings(each)))
    return planned


def audit(data: AuditInput, planned: CurvePlan) -> LearningCurveAudit:
    """Train each method with each seed on each part, and return what the scores say."""
    return curve_training.measure(planned, data.splits, data.folder, data.trainer)


def _recipes(recipe: Recipe, names: Sequence[str] | None) -> dict[str, Recipe]:
    """Return the recipe of each method, as `compare --methods` names it."""
    if names is None and not (names := methods.refitting(recipe)):
        compared = TASKS[recipe.task].compared_methods
        return {name: each for name, each in _recipes(recipe, compared).items() if methods.find(each).uses_train(each)}
    if len(set(names)) != len(names) or not names:
        raise RecipeError("a learning curve needs different methods", found=", ".join(names) or "none")
    return {name: methods.of_method(recipe, name) for name in names}
