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
    """Train once with each seed; return the folder with the runs, seeds.json and report.md."""
    planned = [recipes.load(source, [*overrides, *words]) for words in settings(recipes.load(source, overrides), seeds)]
    subprocess.check_data(planned[:1])
    folder = runs.use(run_dir) if run_dir else runs.create(planned[0].output_dir, "seeds", planned[0].method)
    finished = [subprocess.train(recipe, folder.path / f"seed-{recipe.seed}") for recipe in planned]
    scores = spread(finished)
    folder.write("seeds.json", {"seeds": list(seeds), "scores": scores})
    folder.write("report.md", f"# {run_report.title(finished[0])}, {len(seeds)} seeds\n\n{table({'': scores})}\n")
    return folder


def settings(recipe: Recipe, seeds: Sequence[int]) -> list[list[str]]:
    """Return the overrides of each repetition: its seed, the shared split, and the base model only once."""
    if len(set(seeds)) < 2 or len(set(seeds)) < len(seeds):
        raise RecipeError("--seeds needs two seeds or more, all different", found=", ".join(map(str, seeds)))
    fixed = one_split(recipe)
    return [[f"seed={seed}", fixed, *([] if seed == seeds[0] else ["evaluate.base=false"])] for seed in seeds]


def one_split(recipe: Recipe) -> str:
    """Return the setting that keeps a recipe's split, whatever its seed becomes."""
    return f"split.seed={recipe.seed if recipe.split.seed is None else recipe.split.seed}"


def spread(finished: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """Return the values of each headline metric by run, their mean and their sample standard deviation."""
    scores = [run.read("scores.json")["headline"] for run in finished]
    spreads = {}
    for name in scores[0]:
        values = [score[name]["value"] for score in scores]
        spreads[name] = {"values": values, "mean": statistics.mean(values), "sd": statistics.stdev(values)}
    return spreads


def table(scores_by_method: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Return a Markdown table of the mean, spread and range of every metric, by method."""
    head = ["method", "metric", "mean", "sd", "lowest", "highest"]
    rows = [
        [method, metric, *(f"{value:.4f}" for value in (of["mean"], of["sd"], min(of["values"]), max(of["values"])))]
        for method, scores in scores_by_method.items()
        for metric, of in scores.items()
    ]
    several = any(scores_by_method)
    return markdown.table(head if several else head[1:], rows if several else [row[1:] for row in rows])
