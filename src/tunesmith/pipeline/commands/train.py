"""`tunesmith train`: one recipe -> one run directory with a model, its scores and a report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tunesmith import __version__, hardware, processes, recipe as recipes, records, runs
from tunesmith.console import say, warn
from tunesmith.data import sources as data_sources, summary
from tunesmith.errors import Interrupted, RecipeError, RunError, summary as summary_of
from tunesmith.manifest import Costs, FinishedManifest, Manifest, Status
from tunesmith.pipeline import audit_summary, custom_metrics, held_out, in_memory, leaked_rows, run_report, slice_scores
from tunesmith.pipeline.fitting import methods
from tunesmith.pipeline.fitting.job import Job, SilentRun
from tunesmith.pipeline.fitting.method_interface import Method
from tunesmith.pipeline.run_names import short_name, source_name
from tunesmith.pipeline.task_table import TASKS, check_data, job_of, read_splits
from tunesmith.pipeline.trained_run import TrainedRun
from tunesmith.processes import ProcessIdentity
from tunesmith.protocols import Predictor, TrainResult
from tunesmith.recipe import Recipe
from tunesmith.runs import Run
from tunesmith.types import Splits


def train(
    source: object = None,
    overrides: Sequence[str] = (),
    *,
    run_dir: str | Path | None = None,
    resume: str | Path | None = None,
    continue_from: str | Path | None = None,
    quiet: bool = False,
    skip_test: bool = False,
    take_over: bool = False,
    **settings: object,
) -> TrainedRun:
    """Train, evaluate and report as the recipe says; everything it makes lies in the run directory.

    source: a recipe (YAML file, settings, or Recipe) or data: a path, a name, or a table in memory (a pandas or polars
    DataFrame, an Arrow table, a `datasets.Dataset` or DatasetDict, a list of dicts, a dict of lists).
    settings: those of the recipe by their last names, as in `text_column="review", label_column="stars",
    method="linear", learning_rate=1e-4`; those of one section as a dict, as in `linear={"C": 3}`.
    overrides: the same as `section.name=value`, as on the command line.
    run_dir: an empty or new folder to use instead of a time-stamped one under `output_dir`.
    resume: instead of a source, a run that was cut off; it goes on from its newest good checkpoint and ends as it would
    have. continue_from: instead of a source, a finished run whose recipe and weights a new run begins with.
    quiet: hide data warnings.
    skip_test: leave the test split alone; `open_test` looks at it later, for the one run of many that is kept.
    take_over: resume a run although a process on another machine may train it, which only you can know to have ended.

    Raises RecipeError for settings that do not fit, DataError for rows that cannot be learned, and RunError for runs
    that cannot be resumed or continued.
    """
    overrides = [*overrides, *recipes.overrides_of(settings)]
    if take_over and not resume:
        raise RecipeError("take_over is for a run that is resumed", do="give resume (--resume RUN) too")
    if resume:
        return _go_on(*_resumed(resume, source, overrides, take_over=take_over), skip_test=skip_test)
    parent = None
    if continue_from:
        recipe, parent = _continued(continue_from, source, overrides)
    elif source is None and not overrides:
        do = "give a recipe or a data source, or a run to go on with (--resume RUN)"
        raise RecipeError("nothing to train", do=do)
    else:
        recipe = recipes.load(in_memory.recipe_source({} if source is None else source, overrides), overrides)
    method, splits = methods.find(recipe), read_splits(recipe)
    if not quiet:
        _announce(recipe, splits)
    if parent:
        _check_parent(parent, splits)
    path = ""
    if processes.is_main():
        words = filter(None, (recipe.method, method.model(recipe), short_name(recipe)))
        run = runs.use(run_dir, _claim(recipe, splits)) if run_dir else runs.create(recipe.output_dir, *words)
        run.write("recipe.yaml", recipes.dump(recipe))
        if parent:
            run.record_decision("parent", str(parent.path))
        path = str(run.path)
    run = fit(recipe, splits, Run(Path(processes.agree(path))), skip_test=skip_test)
    return TrainedRun(run.path)


def _announce(recipe: Recipe, splits: Splits) -> None:
    """Say what the data looks like, and what training on it will cost."""
    columns = TASKS[recipe.task].reader.columns(recipe.data, recipe.split)
    for line in summary.describe(summary.summarize(splits, source_name(recipe)), columns):
        say(line)
    for line in summary.lines(splits.notes):
        say(f"data: {line}")
    for line in audit_summary.lines(splits):
        say(f"audit: {line}")
    if announced := methods.find(recipe).announce(recipe, splits, TASKS[recipe.task].target(splits)):
        say(announced)


def fit(recipe: Recipe, splits: Splits, run: Run, *, skip_test: bool = False) -> Run:
    """Train on splits that were read already."""
    job = job_of(recipe, splits, run if processes.is_main() else SilentRun(run.path))
    method = methods.find(recipe)
    if processes.is_main():
        run.save_manifest(_manifest(recipe, splits, run.decision("parent")))
    with _end_recorded(run):
        custom_metrics.load(recipe)  # what cannot be imported should fail before the training
        slice_values = slice_scores.read(recipe, splits.test)  # and so should unknown columns
        _fit(method, job, slice_values, skip_test=skip_test)
    return run


def adopt(recipe: Recipe, run: Run, predictor: Predictor) -> None:
    """Finish a new run with a model that another run made: it is saved, scored and reported, and not trained."""
    splits = read_splits(recipe)
    run.save_manifest(_manifest(recipe, splits))
    watch = hardware.Stopwatch()
    watch.seconds["train"] = 0.0
    with _end_recorded(run):
        slice_values = slice_scores.read(recipe, splits.test)
        runs.write_folder(run.model, predictor.save)
        result = TrainResult(predictor, parameters=0, trainable=0, is_saved=True)
        _finish(job_of(recipe, splits, run), result, watch, slice_values)


def _manifest(recipe: Recipe, splits: Splits, parent: str | None = None) -> Manifest:
    """Return the manifest of a run that begins in this process."""
    method = methods.find(recipe)
    return Manifest(
        tunesmith=__version__,
        name=method.name(recipe),
        task=recipe.task,
        method=recipe.method,
        description=method.describe(recipe),
        seed=recipe.seed,
        trust_remote_code=recipe.model.trust_remote_code,
        data=summary.summarize(splits, source_name(recipe), data_sources.is_published(recipe.data)),
        parent=parent,
        status="running",
        process=ProcessIdentity.current(),
    )


def _claim(recipe: Recipe, splits: Splits) -> Callable[[Run], None]:
    """Return what writes the manifest of a run that begins in this process."""
    return lambda run: run.save_manifest(_manifest(recipe, splits))


@contextmanager
def _end_recorded(run: Run) -> Iterator[None]:
    """Write into the manifest how training ended, unless it finished."""
    try:
        yield
    except BaseException as error:
        if processes.is_main() and (manifest := run.manifest).status == "running":
            stopped = isinstance(error, KeyboardInterrupt | Interrupted)
            status: Status = "interrupted" if stopped else "failed"
            run.save_manifest(replace(manifest, status=status, reason=summary_of(error), process=None))
        raise


def _fit(method: Method, job: Job, slice_values: Mapping[str, Sequence[str]], *, skip_test: bool) -> None:
    """Train, save the model, predict and score the held-out rows, and report."""
    recipe, splits, run = job.recipe, job.splits, job.run
    with processes.loading():
        method.prepare(recipe)
    labels = f", {len(splits.labels)} labels" if splits.labels else ""
    rows = "training rows of a stream" if splits.is_stream else f"{len(splits.train):,} training rows"
    say(f"{recipe.method}: {method.describe(recipe)}; {rows}{labels}")
    watch = hardware.Stopwatch()
    with watch.time("train"):
        result = method.fit(job)
    watch.seconds["train"] += result.earlier_seconds
    if result.notes.steps is None and result.parameters:  # others say it before the first step
        say(f"{result.trainable:,} of {result.parameters:,} parameters were trained")
    if method.is_charged:  # one process asks
        processes.leave()
        if not processes.is_main():
            return
    if result.notes.fallback:
        name, description = method.fallback(recipe)
        run.save_manifest(replace(run.manifest, name=name, description=description))
    with processes.sharing(not method.is_charged):
        result = held_out.decide(job, result)
    if not result.is_saved and processes.is_main():
        runs.write_folder(run.model, result.predictor.save)
    if result.notes.dtype not in (None, "float32"):  # saved so, but always computed with in float32
        if not method.is_charged:
            processes.wait()
        result = replace(result, predictor=method.load(run.model, recipe), validation=None)
    job = replace(job, splits=replace(splits, test=())) if skip_test else job
    _finish(job, result, watch, slice_values)


def open_test(run: Run) -> Run:
    """Predict and score the test split of a run that was trained with `skip_test`. Others are left as they are."""
    if run.has("README.md"):  # the last file to be written
        return run
    recipe = run.recipe
    splits = read_splits(recipe)
    check_data(splits, run)
    manifest = run.finished
    costs = manifest.costs
    result = TrainResult(methods.load_predictor(run), costs.parameters, costs.trainable, manifest.notes)
    watch = hardware.Stopwatch()
    watch.seconds["train"] = costs.train_seconds or 0.0
    slice_values = slice_scores.read(recipe, splits.test)
    _finish(job_of(recipe, splits, run), result, watch, slice_values, costs.peak_memory_mb)
    return run


def _resumed(resume: str | Path, source: object, overrides: Sequence[str], *, take_over: bool) -> tuple[Recipe, Run]:
    """Return the recipe and the run to go on with. Only what cannot change the result may be set anew."""
    if source is not None:
        raise RecipeError("a resumed run has its recipe", found=str(source), do="leave the recipe out")
    if other := [word for word in overrides if not word.startswith("engine.")]:
        raise RecipeError(
            f"a resumed run keeps its settings: {', '.join(other)}",
            do=f"train its model further in a new run: tunesmith train --continue {resume} {' '.join(other)}",
        )
    run = runs.find(resume)
    trained_by = run.manifest.process if run.manifest.state()[0] == "running" else None
    current = ProcessIdentity.current()
    if processes.is_main() and trained_by is not None and trained_by != current:
        is_elsewhere = trained_by.host != current.host
        if not (is_elsewhere and take_over):
            do = "if that process has ended, add --take-over" if is_elsewhere else ""
            raise RunError(f"{run.path} is being trained", found=str(trained_by), do=do)
        warn(f"taking {run.path} over from {trained_by}")
    return recipes.load(run.recipe, overrides), run


def _go_on(recipe: Recipe, run: Run, *, skip_test: bool) -> TrainedRun:
    """Finish a run that was cut off."""
    if run.manifest.status == "finished":
        say(f"{run.path} has finished already")
        if processes.is_main() and not run.has("README.md"):  # killed while it wrote its report
            run_report.write_run(run)
        return TrainedRun(run.path)
    splits = read_splits(recipe)
    check_data(splits, run)
    return TrainedRun(fit(recipe, splits, run, skip_test=skip_test).path)


def _continued(path: str | Path, source: object, overrides: Sequence[str]) -> tuple[Recipe, Run]:
    """Return the recipe of a run that begins with another one's weights, and that run. The schedule starts again."""
    if source is not None:
        raise RecipeError("a continued run has its parent's recipe", found=str(source), do="leave the recipe out")
    parent = runs.find(path)
    if parent.finished.notes.steps is None:
        raise RunError(f"cannot continue {path}: {parent.manifest.description} was not trained in steps")
    parent.verify_model()
    recipe = parent.recipe
    own = {
        "name_or_path": str(parent.model / methods.find(recipe).weights),
        "generator": None,
        "revision": None,
        "from_config": None,
        "state_dict": None,
    }
    return recipes.load(recipe.model_copy(update={"model": recipe.model.model_copy(update=own)}), overrides), parent


def _check_parent(parent: Run, splits: Splits) -> None:
    before = parent.manifest.data
    if tuple(before.labels) != splits.labels:
        raise RunError(
            f"cannot continue {parent.path} on other labels",
            expected=", ".join(before.labels),
            found=", ".join(splits.labels),
        )
    if before.fingerprint != splits.fingerprints["data"]:
        warn(f"{parent.path} was trained on other rows or another split: it may have learned rows of this test split")


def _finish(
    job: Job,
    result: TrainResult,
    watch: hardware.Stopwatch,
    slice_values: Mapping[str, Sequence[str]],
    peak: float | None = None,
) -> None:
    """Predict and score the held-out splits, and report. peak: of the process that trained, where that was another."""
    task = TASKS[job.recipe.task]
    with processes.sharing(not methods.find(job.recipe).is_charged):
        outcome = task.evaluate(job, result, watch)
    processes.leave()
    if not processes.is_main():
        return
    if job.splits.test:
        scores = task.score(job.run)
        job.run.write("scores.json", scores)
        for line in task.remarks(job.run, scores):
            say(line)
        leaked_rows.keep(job.run, job.splits)
        leaked_rows.write_scores(job.run, scores)
        slice_scores.keep(job.run, slice_values)
        slice_scores.write_test(job.run)
        if custom := custom_metrics.load(job.recipe):
            values = custom_metrics.score(custom, job.run.predictions("test", task.row))
            job.run.write(custom_metrics.FILE, values)
            say(f"test: {', '.join(f'{name} {value:.4f}' for name, value in values.items())}")
    endpoint = methods.find(job.recipe).account(job, result.predictor, watch)
    costs = Costs(
        train_seconds=watch.seconds["train"],
        seconds_per_1000=watch.seconds["predict"] / outcome.predicted * 1000 if outcome.predicted else None,
        base_seconds=watch.seconds.get("base"),
        peak_memory_mb=hardware.peak_memory_mb() if peak is None else peak,
        parameters=result.parameters,
        trainable=result.trainable,
        size_mb=runs.size(job.run.model) / 2**20,
        side_by_side=hardware.side_by_side(),
        endpoint=endpoint,
    )
    job.run.save_manifest(
        FinishedManifest(
            **records.fields_of(Manifest, job.run.manifest) | {"status": "finished", "process": None},
            validation=outcome.validation,
            train=outcome.train,
            costs=costs,
            notes=result.notes,
            environment=hardware.environment(result.notes.device or "cpu"),
        )
    )
    run_report.write_run(job.run)
