"""`--seeds`: the same run with several seeds on one split; how much of a score is chance."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunesmith import recipe as recipes, runs
from tunesmith.errors import RecipeError
from tunesmith.pipeline import in_memory, report_parts
from tunesmith.pipeline.fitting import subprocess
from tunesmith.pipeline.task_table import task_of
from tunesmith.recipe import Recipe
from tunesmith.reporting import markdown
from tunesmith.runs import Run


@dataclass(frozen=True, slots=True)
class Spread:
    """A metric over several seeds."""

    values: tuple[float, ...]
    """By run."""
    mean: float
    sd: float
    """Standard deviation of the sample."""


def repeat(source: object, overrides: Sequence[str], seeds: Sequence[int], *, run_dir: str | Path | None = None) -> Run:
    """Train once with each seed; return the folder with the runs, seeds.json and report.md."""
    source = in_memory.recipe_source(source, overrides)
    planned = [recipes.load(source, [*overrides, *words]) for words in settings(recipes.load(source, overrides), seeds)]
    subprocess.announce(planned[0], subprocess.check_data(planned[:1]), len(planned))
    folder = runs.use(run_dir) if run_dir else runs.create(planned[0].output_dir, "seeds", planned[0].method)
    finished = [subprocess.train(recipe, folder.path / f"seed-{recipe.seed}") for recipe in planned]
    scores = spread(finished)
    folder.write("seeds.json", {"seeds": list(seeds), "scores": scores})
    title = markdown.plain(report_parts.title(finished[0]))
    folder.write("report.md", f"# {title}, {len(seeds)} seeds\n\n{table({'': scores})}\n")
    return folder


def settings(recipe: Recipe, seeds: Sequence[int]) -> list[list[str]]:
    """Return the overrides of each repetition: its seed, one split for all, and the (shared) base model once."""
    if len(set(seeds)) < 2 or len(set(seeds)) < len(seeds):
        raise RecipeError("--seeds needs two seeds or more, all different", found=", ".join(map(str, seeds)))
    fixed = one_split(recipe)
    return [[f"seed={seed}", fixed, *([] if seed == seeds[0] else ["evaluate.base=false"])] for seed in seeds]


def one_split(recipe: Recipe) -> str:
    """Return the setting that keeps a recipe's split, whatever its seed becomes."""
    return f"split.seed={recipe.seed if recipe.split.seed is None else recipe.split.seed}"


def spread(finished: Sequence[Run]) -> dict[str, Spread]:
    """Return the spread of every headline metric that all runs have."""
    headlines = [run.load("scores.json", task_of(run).scores).headline for run in finished]
    common = [name for name in headlines[0] if all(name in headline for headline in headlines)]
    values = {name: [headline[name].value for headline in headlines] for name in common}
    return {
        name: Spread(tuple(of_one), statistics.mean(of_one), statistics.stdev(of_one))
        for name, of_one in values.items()
    }


def table(spreads: Mapping[str, Mapping[str, Spread]]) -> str:
    """Return mean, spread and range of every metric, by method; a single method may be called ""."""
    head = ["method", "metric", "mean", "sd", "lowest", "highest"]
    rows = [
        [method, name, *(f"{value:.4f}" for value in (metric.mean, metric.sd, min(metric.values), max(metric.values)))]
        for method, metrics in spreads.items()
        for name, metric in metrics.items()
    ]
    first = 0 if any(spreads) else 1
    return markdown.table(head[first:], [row[first:] for row in rows])
