"""`--seeds`: the same run with several seeds on one split; how much of a score is chance."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunesmith import recipe as recipes, runs
from tunesmith.errors import RecipeError
from tunesmith.pipeline import run_report
from tunesmith.pipeline.commands.train import Source
from tunesmith.pipeline.fitting import subprocess
from tunesmith.recipe import Recipe
from tunesmith.reporting import markdown
from tunesmith.runs import Run


def repeat(source: Source, overrides: Sequence[str], seeds: Sequence[int], *, run_dir: str | Path | None = None) -> Run:
    """Train once with each seed; gives the folder with the runs, seeds.json and report.md."""
    planned = [recipes.load(source, [*overrides, *words]) for words in settings(recipes.load(source, overrides), seeds)]
    subprocess.check_data(planned[:1])
    folder = runs.use(run_dir) if run_dir else runs.create(planned[0].output_dir, "seeds", planned[0].method)
    finished = [subprocess.train(recipe, folder.path / f"seed-{recipe.seed}") for recipe in planned]
    found = spread(finished)
    folder.write("seeds.json", {"seeds": list(seeds), "scores": found})
    folder.write("report.md", f"# {run_report.title(finished[0])}, {len(seeds)} seeds\n\n{table({'': found})}\n")
    return folder


def settings(recipe: Recipe, seeds: Sequence[int]) -> list[list[str]]:
    """The overrides of each repetition: its seed, one split for all, and the base model (the same for all) once."""
    if len(set(seeds)) < 2 or len(set(seeds)) < len(seeds):
        raise RecipeError("--seeds needs two seeds or more, all different", found=", ".join(map(str, seeds)))
    fixed = one_split(recipe)
    return [[f"seed={seed}", fixed, *([] if seed == seeds[0] else ["evaluate.base=false"])] for seed in seeds]


def one_split(recipe: Recipe) -> str:
    """The setting that keeps a recipe's split, whatever its seed becomes."""
    return f"split.seed={recipe.seed if recipe.split.seed is None else recipe.split.seed}"


def spread(finished: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """Per headline metric its values by run, their mean and standard deviation (of the sample)."""
    scores = [run.read("scores.json")["headline"] for run in finished]
    found = {}
    for name in scores[0]:
        values = [score[name]["value"] for score in scores]
        found[name] = {"values": values, "mean": statistics.mean(values), "sd": statistics.stdev(values)}
    return found


def table(found: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Mean, spread and range of every metric, by method."""
    head = ["method", "metric", "mean", "sd", "lowest", "highest"]
    rows = [
        [method, name, *(f"{value:.4f}" for value in (one["mean"], one["sd"], min(one["values"]), max(one["values"])))]
        for method, scores in found.items()
        for name, one in scores.items()
    ]
    several = any(found)
    return markdown.table(head if several else head[1:], rows if several else [row[1:] for row in rows])
