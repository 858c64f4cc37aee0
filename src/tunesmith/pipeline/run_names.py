"""Names for runs that are shown side by side: those of their methods, told apart by the settings that differ."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from functools import reduce
from typing import Any

from tunesmith import recipe as recipes, runs as run_folders
from tunesmith.errors import shorten
from tunesmith.pipeline.fitting.methods import METHODS
from tunesmith.recipe import Recipe
from tunesmith.reporting.header import DifferingSettings
from tunesmith.runs import Run

UNRELATED = (
    *("output_dir", "data", "split", "costs", "judge", "serve", "engine.save_strategy", "engine.save_steps"),
    *("engine.save_total_limit", "evaluate.base", "evaluate.bootstrap_samples", "evaluate.confidence"),
    *("evaluate.logging_steps", "evaluate.max_responses", "evaluate.metrics", "evaluate.num_samples"),
    *("evaluate.metric_for_comparison", "evaluate.report_to", "evaluate.slices", "model.generator"),
)
"""Sections and settings that do not change what a run learns or how it predicts; that data and split are the same is
checked by their fingerprints."""
SHORT, LONG = 40, 200
"""Characters of a value in a name, and in a table."""


def unique(runs: Sequence[Run], otherwise: Sequence[str] = ()) -> tuple[list[str], tuple[DifferingSettings, ...]]:
    """Return a name for each finished run, and the settings that differ where names do not say them.

    Runs of one method are told apart by their model, or by the one setting that differs: `linear (linear.C=1)`. Where
    neither does, they have numbers, or the names in `otherwise`.
    """
    manifests = [run.finished for run in runs]
    names, tables = [manifest.name for manifest in manifests], []
    for name in [name for name, count in Counter(names).items() if count > 1]:
        places = [place for place, manifest in enumerate(manifests) if manifest.name == name]
        recipes_of_method = [runs[place].recipe for place in places]
        values = differing(recipes_of_method)
        telling = [[f"{name} {METHODS[recipe.method].model(recipe)}" for recipe in recipes_of_method]]
        if len(values) == 1:
            ((setting, shown),) = values.items()
            telling.append([f"{name} ({setting}={value})" for value in shown if len(value) <= SHORT])
        others = [[otherwise[place] for place in places]] if otherwise else []
        numbered = [f"{name} {number}" for number in range(1, len(places) + 1)]
        named = next(chosen for chosen in [*telling, *others, numbered] if len(set(chosen)) == len(places))
        for place, of_run in zip(places, named, strict=True):
            names[place] = of_run
        if len(values) > 1 or (values and named not in telling):
            tables.append(DifferingSettings(name, tuple(named), values))
    return names, tuple(tables)


def differing(several: Sequence[Recipe]) -> dict[str, tuple[str, ...]]:
    """Return the settings that are not the same in all recipes, with the value in each as text."""
    by_name = {
        name: [reduce(getattr, name.split("."), recipe) for recipe in several]
        for name, _ in recipes.fields()
        if not any(name == other or name.startswith(f"{other}.") for other in UNRELATED)
    }
    return {
        name: tuple(shorten(_shown(value), LONG) for value in values)
        for name, values in by_name.items()
        if any(value != values[0] for value in values)
    }


def _shown(value: Any) -> str:
    """Return a value as it may stand on a command line."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.12g}"
    return json.dumps(value, ensure_ascii=False)


def source_name(recipe: Recipe) -> str:
    """Return what the data is called in manifests and reports."""
    return recipe.data.path or recipe.data.train or "memory"


def short_name(recipe: Recipe) -> str:
    """Return what the data is called in the name of a run directory."""
    return run_folders.data_name(source_name(recipe)).split(".")[0]
