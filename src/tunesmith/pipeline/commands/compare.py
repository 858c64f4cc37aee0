"""`tunesmith compare`: several methods, recipes or finished runs on one frozen split, in one report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith import recipe as recipes, runs
from tunesmith.auditing.learning_curves import LearningCurveAudit
from tunesmith.console import say
from tunesmith.data import frames
from tunesmith.errors import RecipeError, RunError, TunesmithError
from tunesmith.pipeline import curve_training, custom_metrics, in_memory, run_names, run_report, seeds as repeats
from tunesmith.pipeline.confidence import confidence_of
from tunesmith.pipeline.fitting import base_model, parallel as side_by_side, subprocess
from tunesmith.pipeline.fitting.methods import defaults_for, variants
from tunesmith.pipeline.fitting.parallel import PlannedTraining
from tunesmith.pipeline.run_names import short_name
from tunesmith.pipeline.task_table import TASKS, RunReport, check_data, read_splits
from tunesmith.pipeline.trained_run import TrainedRun
from tunesmith.recipe import CostRates, Recipe, Source
from tunesmith.records import omitted_if_none
from tunesmith.reporting import format, notebook, terminal
from tunesmith.reporting.notebook import ReportPage
from tunesmith.runs import Run

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False)
class Comparison(ReportPage):
    """What a comparison found, and where its report lies."""

    path: Path
    report: RunReport

    @property
    def verdict(self) -> str:
        """The conclusion in words: which method has the best score, and which differences are significant."""
        return self.report.verdict

    @property
    def page(self) -> Path:
        """The report."""
        return self.path / "report.html"

    @property
    def runs(self) -> dict[str, TrainedRun]:
        """The runs by the names of the report, such as `linear`; of methods trained with several seeds the first."""
        return {method.name: TrainedRun(Path(method.run)) for method in self.report.methods if not method.is_base}

    @property
    def best(self) -> TrainedRun:
        """The run with the best score on the validation split, by `evaluate.metric_for_best_model` (unless set, macro
        F1, of regression RMSE, of instructions the loss).

        The test split has no part in the choice, so that the test scores of this run are not those of a winner by
        luck. They may still be lower than another run's: `verdict` says which differences are more than chance, and a
        cheaper method that is not significantly different may be the better choice. Raises RunError where a run has no
        such score.
        """
        runs = self.runs
        recipe = next(iter(runs.values())).recipe
        metric, higher_is_better = custom_metrics.deciding(recipe, TASKS[recipe.task].metrics.higher_is_better)
        scores = {}
        for name, run in runs.items():
            scores[name] = (run.finished.validation or {}).get(metric)
            if scores[name] is None:
                do = "choose one of comparison.runs yourself, or compare with a validation split"
                raise RunError(f"{name} has no {metric} of a validation split, by which the best is chosen", do=do)
        return runs[(max if higher_is_better else min)(scores, key=lambda name: scores[name] or 0.0)]

    def table(self) -> pd.DataFrame:
        """Return one row for each method as a pandas DataFrame, whose index is the methods' names.

        Each headline metric of the test split (`accuracy`, `macro_f1`, ...) has three columns: its value, and the ends
        of its confidence interval (`accuracy_low`, `accuracy_high`). `train_seconds` and `seconds_per_1000` (to predict
        1,000 rows) are in seconds, `peak_memory_mb` and `size_mb` (of the saved model) in MB; `parameters` and
        `trainable` count weights. What is not known is missing.
        """
        metrics = format.columns(method.scores.headline for method in self.report.methods)
        columns: dict[str, list[object]] = {}
        for name in metrics:
            estimates = [method.scores.headline.get(name) for method in self.report.methods]
            for suffix, end in (("", "value"), ("_low", "low"), ("_high", "high")):
                columns[f"{name}{suffix}"] = [getattr(each, end, None) for each in estimates]
        for name in COSTS:
            columns[name] = [getattr(method.costs, name) for method in self.report.methods]
        return frames.data_frame(columns, index=[method.name for method in self.report.methods]).rename_axis("method")

    def __repr__(self) -> str:
        return f"{terminal.table(self.report)}\n\n{self.verdict}\n\nreport: {self.page}"

    def _repr_html_(self) -> str:
        rows, confidence = self.report.methods[0].scores.rows, self.report.methods[0].scores.confidence
        about = f"{format.counted(rows, 'test row')}, {format.level(confidence)} intervals"
        return notebook.card(
            self.report.title, about, terminal.method_rows(self.report), self.page, text=self.report.verdict
        )


def load_comparison(path: str | Path) -> Comparison:
    """Return the comparison in a folder that `tunesmith.compare` wrote. Raises RunError where there is none."""
    folder = Run(Path(path))
    if not (folder.path / run_report.FILE).is_file():
        raise RunError(f"{path} is not the folder of a comparison", expected=f"a folder with {run_report.FILE}")
    return Comparison(folder.path, run_report.read(folder))


@dataclass(frozen=True, slots=True)
class ComparisonPlan:
    """plan.json: what a comparison trains; the recipes lie in the folders of the runs."""

    runs: dict[str, tuple[str, ...]]
    """The folders of each method's runs: one, or one for each seed."""
    seeds: tuple[int, ...] = ()
    smallest: int | None = omitted_if_none()
    """Of a learning curve, the rows of the smallest part for each label there is; None without a curve."""


COSTS = ("train_seconds", "seconds_per_1000", "peak_memory_mb", "size_mb", "parameters", "trainable")
"""What a table says of the costs of a method."""
PLAN = "plan.json"
SMALLEST = 8
"""Rows of the smallest part of a learning curve, for each label there is: where few-shot methods are compared."""


def compare(
    sources: object = (),
    overrides: Sequence[str] = (),
    *,
    methods: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    learning_curve: bool = False,
    smallest: int | None = None,
    resume: str | Path | None = None,
    parallel: int = 1,
    **settings: object,
) -> Comparison:
    """Compare methods on one data source, or several recipes, or finished runs.

    sources: one data source (path, name, or table in memory, as in `train`) or one recipe, trained with each of
    `methods` (default: the task's; `generator:lora` and its like name a way to train); or several recipes, trained as
    they are; or run directories, compared as they are, but for `costs`. Every training is a process of its own: peak
    memory is that method's alone. overrides, settings: as in `train`, for all recipes.
    seeds: train every method once with each, on one split; the report is that of the first, with the spread over all.
    learning_curve: also train the methods on nested parts of the training rows, from `smallest` rows for each label
    there is (default: 8) to all, with each seed (default: three), and report where one method overtakes another. What
    learns nothing from training rows is asked once.
    resume: instead of sources, the folder of a comparison that was stopped; what it lacks is trained.
    parallel: trainings side by side, each with its share of the cores or a GPU of its own. The parts of a learning
    curve are trained one after the other all the same.
    """
    overrides = [*overrides, *recipes.overrides_of(settings)]
    side_by_side.check(parallel)
    if in_memory.rows(sources) is not None or not isinstance(sources, Sequence) or isinstance(sources, str):
        sources = [sources]
    if resume is not None:
        if sources or overrides or methods or seeds or learning_curve:
            raise RecipeError("a resumed comparison keeps its sources and settings", do="leave all but --resume out")
        folder = Run(Path(resume))
        if not (folder.path / PLAN).is_file():
            raise RunError(f"{resume} is not the folder of a comparison", expected=f"a folder with {PLAN}")
        return train_planned(folder, folder.load(PLAN, ComparisonPlan), parallel)
    if smallest is not None and not learning_curve:
        do = "give learning_curve (--learning-curve) too"
        raise RecipeError("smallest is the smallest part of a learning curve", do=do)
    if not sources and not overrides:
        raise RecipeError("nothing to compare", expected="a data source, recipes, or run directories")
    sources = [in_memory.recipe_source(source, overrides) for source in sources or [{}]]
    if given := [source for source in sources if isinstance(source, (str, Path)) and runs.is_run(source)]:
        if methods or seeds or learning_curve or parallel > 1:
            do = "leave --methods, --seeds, --learning-curve and --parallel out"
            raise RecipeError("finished runs are compared as they are", do=do)
        if len(given) < len(sources):
            raise RecipeError(
                "runs are compared with runs, recipes with recipes",
                found=f"{len(given)} of {len(sources)} are runs",
                do="train the others first: tunesmith train",
            )
        finished = [runs.find(source) for source in given]
        rates = _rates(finished[0].recipe, overrides)
        report = run_report.build(finished, confidence_of(finished[0].recipe), rates)
        return _written(runs.create(finished[0].recipe.output_dir, "compare"), report)
    smallest = SMALLEST if learning_curve and smallest is None else smallest
    return train_planned(*prepare(plans(sources, overrides, methods), seeds, smallest), parallel)


def prepare(
    planned: Sequence[tuple[str, Recipe]], seeds: Sequence[int] | None = None, smallest: int | None = None
) -> tuple[Run, ComparisonPlan]:
    """Check the data of planned runs, say what they cost, and write their recipes and the plan into a new folder.

    smallest: of a learning curve, the rows of the smallest part for each label there is.
    """
    splits = subprocess.check_data([recipe for _, recipe in planned])
    if smallest is not None and splits.is_stream:
        raise RecipeError("a learning curve needs all rows", found="data.streaming=true", do="leave one of them out")
    curve = None if smallest is None else curve_training.plan(dict(planned), splits, seeds, smallest)
    seeds = curve.seeds if curve else seeds
    everything = len(splits.train)
    by_place: dict[str, dict[str, Recipe]] = {}
    for name, recipe in planned:
        trainings = curve.trainings(recipe) if curve else [(everything, seed) for seed in seeds or ()]
        whole = {seed for size, seed in trainings if size == everything}
        subprocess.announce(recipe, splits, len(trainings) or 1)
        repetitions = [recipes.load(recipe, words) for words in repeats.settings(recipe, seeds)] if seeds else []
        by_place[name] = {f"{name}/seed-{each.seed}": each for each in repetitions if each.seed in whole}
        by_place[name] = by_place[name] or {name: recipe}
    folder = runs.create(planned[0][1].output_dir, "compare", short_name(planned[0][1]))
    for places in by_place.values():
        for place, recipe in places.items():
            folder.write(f"{place}/recipe.yaml", recipes.dump(recipe))
    plan = ComparisonPlan({name: tuple(places) for name, places in by_place.items()}, tuple(seeds or ()), smallest)
    folder.write(PLAN, plan)
    return folder, plan


def train_planned(folder: Run, plan: ComparisonPlan, parallel: int = 1) -> Comparison:
    """Train what the plan has and the folder lacks, so many at a time, and report."""
    finished = {name: [Run(folder.path / place) for place in places] for name, places in plan.runs.items()}
    lacking = [
        PlannedTraining(place, run.recipe, run.path)
        for name, places in plan.runs.items()
        for place, run in zip(places, finished[name], strict=True)
        if not ((run.path / runs.MANIFEST).is_file() and run.manifest.status == "finished")
    ]
    with _resumable(folder, parallel):
        if parallel == 1:
            for training in lacking:
                subprocess.train(training.recipe, training.folder)
        else:
            side_by_side.train(lacking, parallel)
    first = [runs_of_method[0] for runs_of_method in finished.values()]
    repeated = {name: runs_of_method for name, runs_of_method in finished.items() if len(runs_of_method) > 1}
    if repeated:
        spread = {name: repeats.spread(runs_of_method) for name, runs_of_method in repeated.items()}
        folder.write("seeds.json", {"seeds": plan.seeds, "scores": spread})
        shown = dict(zip(finished, run_names.unique(first)[0], strict=True))
        named = {shown[name]: of_method for name, of_method in spread.items()}
        say(f"over {len(plan.seeds)} seeds:\n{repeats.table(named)}")
    report = run_report.build(first, confidence_of(first[0].recipe))
    if plan.smallest:
        with _resumable(folder, parallel):
            curve = _learning_curve(folder, plan, list(finished.values()))
        crossings = [crossing.sentence(curve.train_rows) for crossing in curve.crossings]
        report = replace(report, learning_curve=curve, verdict=" ".join([report.verdict, *crossings]))
    return _written(folder, report)


@contextmanager
def _resumable(folder: Run, parallel: int) -> Iterator[None]:
    """Say how to go on where training ends early."""
    try:
        yield
    except (KeyboardInterrupt, TunesmithError):
        option = f" --parallel {parallel}" if parallel > 1 else ""
        say(f"compare: to train the rest and finish the comparison: tunesmith compare --resume {folder.path}{option}")
        raise


def _learning_curve(folder: Run, plan: ComparisonPlan, finished: Sequence[Sequence[Run]]) -> LearningCurveAudit:
    """Train the methods of finished runs on parts of their rows too."""
    names, _ = run_names.unique([runs_of_method[0] for runs_of_method in finished])
    by_name = dict(zip(names, finished, strict=True))
    recipe_of = {name: runs_of_method[0].recipe for name, runs_of_method in by_name.items()}
    splits = read_splits(recipe_of[names[0]])
    check_data(splits, by_name[names[0]][0])
    planned = curve_training.plan(recipe_of, splits, plan.seeds, plan.smallest)
    return curve_training.measure(planned, splits, folder, finished=by_name)


def plans(
    sources: Sequence[Source], overrides: Sequence[str], methods: Sequence[str] | None
) -> list[tuple[str, Recipe]]:
    """(folder name, recipe) of every run to train; all recipes are checked before the first one trains."""
    if len(sources) == 1:
        base = _recipe(sources[0], overrides)
        chosen = TASKS[base.task].compared_methods if methods is None else tuple(methods)
        if len(set(chosen)) != len(chosen) or not chosen:
            raise RecipeError("compare needs different methods", found=", ".join(chosen) or "none")
        planned = []
        for method in chosen:
            variant = [f"{key}={value}" for key, value in variants(method).items()]
            words = [*defaults_for(variant, base), *overrides, *variant]
            planned.append((runs.folder_name(method), _recipe(sources[0], words)))
        return planned
    if methods:
        raise RecipeError("several recipes bring their own methods", do="leave --methods out")
    loaded = [_recipe(source, overrides) for source in sources]
    return [(f"{number}-{recipe.method}", recipe) for number, recipe in enumerate(loaded, 1)]


def _recipe(source: Source, overrides: Sequence[str]) -> Recipe:
    return base_model.unless_asked(recipes.load(source, overrides))


def _rates(recipe: Recipe, overrides: Sequence[str]) -> CostRates | None:
    """Return what computing costs by the overrides, which can set nothing else once runs are finished."""
    changed = recipes.load(recipe, overrides)
    if changed.model_copy(update={"costs": recipe.costs}) != recipe:
        raise RecipeError(
            "finished runs are compared as they are",
            expected="no settings but those of costs",
            found=", ".join(overrides),
            do="leave the other settings out",
        )
    return changed.costs if overrides else None


def _written(folder: Run, report: RunReport) -> Comparison:
    run_report.write_comparison(folder, report)
    say(f"compared {format.counted(len(report.methods), 'run')} in {folder.path}")
    return Comparison(folder.path, report)
