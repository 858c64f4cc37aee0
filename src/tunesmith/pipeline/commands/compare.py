"""`tunesmith compare`: several methods, recipes or finished runs on one frozen split, in one report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tunesmith import recipe as recipes, runs
from tunesmith.console import say
from tunesmith.errors import RecipeError
from tunesmith.pipeline import in_memory, run_report, seeds as repeats
from tunesmith.pipeline.commands.train import short_name
from tunesmith.pipeline.confidence import confidence_of
from tunesmith.pipeline.fitting import base_model, subprocess
from tunesmith.pipeline.fitting.methods import variants
from tunesmith.pipeline.task_table import TASKS, RunReport
from tunesmith.recipe import Recipe, Source
from tunesmith.reporting.format import counted
from tunesmith.runs import Run


@dataclass(frozen=True)
class Comparison:
    """What a comparison found, and where its report lies."""

    path: Path
    report: RunReport

    @property
    def verdict(self) -> str:
        return self.report.verdict

    @property
    def page(self) -> Path:
        return self.path / "report.html"


def compare(
    sources: object,
    overrides: Sequence[str] = (),
    *,
    methods: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> Comparison:
    """Compare methods on one data source, or several recipes, or finished runs.

    sources: one data source (path, name, or table in memory) or one recipe, trained with each of `methods` (default:
    the task's; `generator:lora` and its like name a way to train); or several recipes, trained as they are; or run
    directories, compared as they are. Every training is a process of its own: peak memory is that method's alone.
    seeds: train every method once with each, on one split; the report is that of the first, with the spread over all.
    """
    if in_memory.rows(sources) is not None or not isinstance(sources, Sequence) or isinstance(sources, str):
        sources = [sources]
    if not sources and not overrides:
        raise RecipeError("nothing to compare", expected="a data source, recipes, or run directories")
    sources = [in_memory.recipe_source(source, overrides) for source in sources or [{}]]
    if all(isinstance(source, (str, Path)) and (Path(source) / runs.MANIFEST).is_file() for source in sources):
        if overrides or methods or seeds:
            raise RecipeError("finished runs are compared as they are", do="leave settings, --methods and --seeds out")
        finished = [runs.find(str(source)) for source in sources]
        recipe = finished[0].recipe
        return _report(runs.create(recipe.output_dir, "compare"), finished, recipe)
    planned = plans(sources, overrides, methods)
    subprocess.check_data([recipe for _, recipe in planned])
    folder = runs.create(planned[0][1].output_dir, "compare", short_name(planned[0][1]))
    if seeds is None:
        finished = [subprocess.train(recipe, folder.path / name) for name, recipe in planned]
        return _report(folder, finished, planned[0][1])
    repeated: dict[str, list[Run]] = {}
    for name, recipe in planned:
        seeded = [recipes.load(recipe, words) for words in repeats.settings(recipe, seeds)]
        repeated[name] = [subprocess.train(plan, folder.path / name / f"seed-{plan.seed}") for plan in seeded]
    spread = {name: repeats.spread(runs_of_method) for name, runs_of_method in repeated.items()}
    folder.write("seeds.json", {"seeds": list(seeds), "scores": spread})
    say(f"over {len(seeds)} seeds:\n{repeats.table(spread)}")
    return _report(folder, [runs_of_method[0] for runs_of_method in repeated.values()], planned[0][1])


def plans(
    sources: Sequence[Source], overrides: Sequence[str], methods: Sequence[str] | None
) -> list[tuple[str, Recipe]]:
    """(folder name, recipe) of every run to train; all recipes are checked before the first one trains."""
    if len(sources) == 1:
        chosen = TASKS[_recipe(sources[0], overrides).task].compared_methods if methods is None else tuple(methods)
        if len(set(chosen)) != len(chosen) or not chosen:
            raise RecipeError("compare needs different methods", found=", ".join(chosen) or "none")
        settings = {method: [f"{key}={value}" for key, value in variants(method).items()] for method in chosen}
        return [(method.replace(":", "-"), _recipe(sources[0], [*overrides, *settings[method]])) for method in chosen]
    if methods:
        raise RecipeError("several recipes bring their own methods", do="leave --methods out")
    loaded = [_recipe(source, overrides) for source in sources]
    return [(f"{number}-{recipe.method}", recipe) for number, recipe in enumerate(loaded, 1)]


def _recipe(source: Source, overrides: Sequence[str]) -> Recipe:
    return base_model.unless_asked(recipes.load(source, overrides))


def _report(folder: Run, finished: Sequence[Run], recipe: Recipe) -> Comparison:
    report = run_report.build(finished, confidence_of(recipe))
    run_report.write_comparison(folder, report)
    say(f"compared {counted(len(finished), 'run')} in {folder.path}")
    return Comparison(folder.path, report)
