"""`tunesmith sweep`: many settings, ranked on validation; the test split is opened once, for the winner (Optuna)."""

from __future__ import annotations

import fcntl
import itertools
import json
import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith import recipe as recipes, runs
from tunesmith.console import say, warn
from tunesmith.errors import Interrupted, MissingExtra, RecipeError, RunError, TunesmithError
from tunesmith.evaluation import metrics, responses
from tunesmith.pipeline import run_report, seeds
from tunesmith.pipeline.commands.train import Source, open_test
from tunesmith.pipeline.fitting import subprocess
from tunesmith.recipe import Recipe
from tunesmith.reporting import sweep_report as pages
from tunesmith.reporting.schema import SweepReport, Trial
from tunesmith.runs import Run

TRIALS = 20
"""Trials of `random` and `tpe`, unless told otherwise."""
REPEATS = 50
"""Draws in a row that bring nothing new, until no more are tried."""
ITEM = re.compile(r"""\s*("[^"]*"|'[^']*'|[^,]+)""")
"""One of several values; commas within quotes belong to it."""
RANGE = re.compile(r"\s*([-+]?[\d.]+(?:e[-+]?\d+)?)\.\.([-+]?[\d.]+(?:e[-+]?\d+)?)\s*", re.IGNORECASE)
Values = dict[str, str]
"""Setting -> value, as on the command line."""


@dataclass(frozen=True)
class SearchAxis:
    """What one setting may be: some values, or a range between two numbers."""

    name: str
    choices: tuple[str, ...] = ()
    low: float = 0
    high: float = 0
    whole: bool = False

    @property
    def log(self) -> bool:
        """A wide range is searched by order of magnitude."""
        return self.low > 0 and self.high / self.low >= 10

    @property
    def values(self) -> Sequence[str | int] | None:
        """All that it may be; None where there is no end of them."""
        if self.choices:
            return self.choices
        return range(int(self.low), int(self.high) + 1) if self.whole else None

    def suggest(self, trial: Any) -> str:
        """A value for a trial."""
        if self.choices:
            return self.text(trial.suggest_categorical(self.name, self.choices))
        if self.whole:
            return self.text(trial.suggest_int(self.name, int(self.low), int(self.high), log=self.log))
        return self.text(trial.suggest_float(self.name, self.low, self.high, log=self.log))

    def text(self, value: Any) -> str:
        """A value as on the command line."""
        return f"{value:.6g}" if isinstance(value, float) else str(value)


def sweep(
    source: Source,
    settings: Sequence[str],
    *,
    sampler: str = "grid",
    trials: int | None = None,
    storage: str | None = None,
    sweep_dir: str | Path | None = None,
) -> Run:
    """Train a recipe with many settings; gives the sweep's folder, with report.html and sweep.json.

    settings: `name=a,b,c` (values) and `name=low..high` (a range) are searched; others are fixed. sampler: `grid`,
    `random` or `tpe`. storage: an Optuna URL; several workers with one URL and one sweep_dir share the work. The same
    call with the same sweep_dir goes on where it was cut off.
    """
    axes, fixed = parse(settings)
    plan = _Plan(source, fixed, axes, sampler, _count(axes, sampler, trials))
    plan.check()
    folder = Run(Path(sweep_dir)) if sweep_dir else runs.create(plan.base.output_dir, "sweep")
    folder.path.mkdir(parents=True, exist_ok=True)
    study = _study(plan, folder, storage)
    before = -1
    try:
        while before < (ended := len(_ended(study))) < plan.total:  # until a round brings nothing more
            before = ended
            say(f"sweep: {plan.total - ended} of {plan.total} trials to go, in {folder.path}")
            _queue(study, plan, folder)
            _optimize(study, plan, folder)
    except KeyboardInterrupt as stop:
        say(f"sweep: to go on, give the same command with --sweep-dir {folder.path}")
        raise stop.__cause__ or stop from None
    return _finish(study, plan, folder)


def parse(settings: Sequence[str]) -> tuple[list[SearchAxis], list[str]]:
    """The axes and the fixed settings. Raises RecipeError where nothing varies."""
    axes, fixed = [], []
    for setting in settings:
        name, _, text = setting.partition("=")
        values = () if text.lstrip().startswith(("[", "{")) else tuple(map(str.strip, ITEM.findall(text)))
        if numbers := RANGE.fullmatch(text):
            axes.append(_range(name, *numbers.groups()))
        elif len(values) > 1:
            axes.append(SearchAxis(name.strip(), tuple(dict.fromkeys(filter(None, values)))))
        else:
            fixed.append(setting)
    if not axes:
        raise RecipeError(
            "nothing varies", expected="settings such as learning_rate=1e-4,2e-4 or learning_rate=1e-5..1e-3"
        )
    return axes, fixed


def _range(name: str, low: str, high: str) -> SearchAxis:
    try:
        least, most = float(low), float(high)
    except ValueError:
        raise RecipeError(f"{name}={low}..{high}", expected="two numbers, low..high") from None
    if not least < most or not math.isfinite(most - least):
        raise RecipeError(f"{name}={low}..{high}", expected="low..high with low below high")
    whole = all(text.strip().lstrip("-").isdigit() for text in (low, high))
    return SearchAxis(name.strip(), (), least, most, whole)


def _count(axes: Sequence[SearchAxis], sampler: str, trials: int | None) -> int:
    """How many trials there will be: no more than there are different settings."""
    if sampler == "grid" and (ranges := [axis.name for axis in axes if not axis.choices]):
        raise RecipeError(
            f"a grid needs values, not a range, for {', '.join(ranges)}", do="use --sampler random or tpe"
        )
    points = math.prod(math.inf if axis.values is None else len(axis.values) for axis in axes)
    wanted = trials or (points if sampler == "grid" else TRIALS)
    if wanted > points:
        say(f"sweep: there are {points} different settings, so {points} trials and not {wanted}")
    return int(min(points, wanted))


@dataclass(frozen=True)
class _Plan:
    """What is searched, and how."""

    source: Source
    fixed: list[str]
    axes: list[SearchAxis]
    sampler: str
    total: int

    @property
    def base(self) -> Recipe:
        return recipes.load(self.source, self.fixed)

    def recipe(self, values: Mapping[str, str]) -> Recipe:
        settings = [*self.fixed, seeds.one_split(self.base), *(f"{name}={value}" for name, value in values.items())]
        return recipes.load(self.source, settings)

    def points(self) -> list[dict[str, Any]]:
        """What is trained, in a drawn order, where that is a grid or all there is; else nothing, and samplers draw."""
        values = [axis.values for axis in self.axes]
        if None in values or (self.sampler != "grid" and self.total < math.prod(map(len, filter(None, values)))):
            return []
        found = [
            dict(zip([axis.name for axis in self.axes], point, strict=True))
            for point in itertools.product(*filter(None, values))
        ]
        random.Random(self.base.seed).shuffle(found)  # noqa: S311 - nothing secret
        return found[: self.total]

    def run_name(self, params: Mapping[str, Any]) -> str:
        """A folder name: learning_rate-1e-4_r-8."""
        values = {axis.name.split(".")[-1]: axis.text(params[axis.name]) for axis in self.axes}
        return "_".join(f"{name}-{value}".replace("/", "-") for name, value in values.items())

    def check(self) -> None:
        """Every value on an axis must make a recipe of the same rows, before the first one trains."""
        shared = self.recipe({})
        ends = [axis.choices or (f"{axis.low:g}", f"{axis.high:g}") for axis in self.axes]
        for values in itertools.zip_longest(*ends):
            given = {axis.name: value for axis, value in zip(self.axes, values, strict=True) if value is not None}
            recipe = self.recipe(given)
            if (recipe.data, recipe.split) != (shared.data, shared.split):
                raise RecipeError(
                    "trials are ranked on the same rows: nothing of data or split can vary",
                    found=", ".join(given),
                    do="""sweep each by itself; a value with commas stands in quotes: name='"a,b"'""",
                )
        if self.base.split.validation_size == 0 and not self.base.data.validation:
            raise RecipeError("a sweep is ranked on validation", do="set split.validation_size above 0")

    @property
    def metric(self) -> str:
        return self.base.evaluate.metric_for_best_model

    @property
    def higher_is_better(self) -> bool:
        return (metrics.HIGHER_IS_BETTER | responses.HIGHER_IS_BETTER)[self.metric]

    def identity(self) -> str:
        """What must be equal for trials to belong together."""
        fields = {
            "recipe": recipes.dump(self.base),
            "axes": [repr(axis) for axis in self.axes],
            "sampler": self.sampler,
        }
        return json.dumps(fields, sort_keys=True)


def _study(plan: _Plan, folder: Run, storage: str | None) -> Any:
    """The study of this folder, begun or gone on with."""
    try:
        import optuna
    except ImportError:
        raise MissingExtra("a sweep needs optuna", found="not installed", do="pip install 'tunesmith[sweep]'") from None

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # what is to be said of a trial, this module says
    url = storage or f"sqlite:///{(folder.path / 'study.db').resolve()}"
    study = optuna.create_study(
        storage=url,
        study_name=folder.path.resolve().name,
        direction="maximize" if plan.higher_is_better else "minimize",
        load_if_exists=True,
    )
    sampler = optuna.samplers.TPESampler if plan.sampler == "tpe" else optuna.samplers.RandomSampler
    study.sampler = sampler(seed=plan.base.seed + len(study.trials))  # who goes on does not draw the same once more
    known = study.user_attrs.get("plan")
    if known not in (None, plan.identity()):
        raise RunError(
            f"{folder.path} holds a sweep of other settings",
            do="repeat its command to go on, or give another --sweep-dir",
        )
    study.set_user_attr("plan", plan.identity())
    return study


def _queue(study: Any, plan: _Plan, folder: Run) -> None:
    """Put in the queue what a grid has left, and what was cut off: by Ctrl-C, or with the process that trained it."""
    begun = [trial for trial in study.trials if "run" in trial.user_attrs]
    known = _ended(study) | {trial.user_attrs["run"] for trial in begun if trial.state.name == "WAITING"}
    known |= {trial.user_attrs["run"] for trial in begun if _is_held(folder.path / trial.user_attrs["run"])}
    for params in [*plan.points(), *(trial.params for trial in begun if trial.params)]:
        name = plan.run_name(params)
        if name not in known:
            study.enqueue_trial(params, user_attrs={"run": name})
            known.add(name)


def _optimize(study: Any, plan: _Plan, folder: Run) -> None:
    import optuna

    queued = bool(plan.points())

    def objective(trial: Any) -> float:
        if queued and "run" not in trial.user_attrs:
            raise optuna.TrialPruned  # the queue was empty, and this is the sampler's
        values = {axis.name: axis.suggest(trial) for axis in plan.axes}
        path = folder.path / plan.run_name(trial.params)
        trial.set_user_attr("run", path.name)
        if path.name in _ended(study):
            raise optuna.TrialPruned
        with _claimed(path) as lock:
            if lock is None:
                raise optuna.TrialPruned  # another worker drew the same settings, and trains them
            try:
                run = subprocess.train(plan.recipe(values), path, skip_test=True, held=lock)
            except Interrupted as stop:  # not a failure, over which Optuna would go on
                raise KeyboardInterrupt from stop
            except TunesmithError:
                trial.set_user_attr("failed", True)
                raise
        score = (run.finished.validation or {})[plan.metric]
        say(f"sweep: {path.name}: validation {plan.metric} {score:.4f}")
        return score

    def enough(study: Any, trial: Any) -> None:
        states = [other.state.name for other in study.get_trials(deepcopy=False)]
        drained = "WAITING" not in states and (queued or states[-REPEATS:].count("PRUNED") == REPEATS)
        if drained or len(_ended(study)) >= plan.total:
            study.stop()

    study.optimize(objective, callbacks=[enough], catch=(TunesmithError,))


def _finish(study: Any, plan: _Plan, folder: Run) -> Run:
    """The table and the report; by the worker that ends last also the winner's test scores."""
    ended = _ended(study)
    begun = {trial.user_attrs["run"] for trial in study.trials if "run" in trial.user_attrs} - ended
    if running := [name for name in begun if _is_held(folder.path / name)]:
        say(
            f"sweep: {len(running)} trial(s) are still running elsewhere; the worker that ends last opens the test "
            "split, or this command when it is given again"
        )
        return folder
    if len(ended) < plan.total:
        warn(f"{len(ended)} of {plan.total} trials: the sampler draws nothing new")
    done = {trial.user_attrs["run"]: trial for trial in study.trials if trial.value is not None}
    if not done:
        raise TunesmithError("no trial of the sweep succeeded; the reasons stand above", do="mend the recipe")
    failed = ended - set(done)
    if failed:
        warn(f"{len(failed)} trial(s) failed and are left out: {', '.join(sorted(failed))}")
    ranked = sorted(
        done.values(), key=lambda trial: (-trial.value if plan.higher_is_better else trial.value, trial.number)
    )
    winner = open_test(Run(folder.path / ranked[0].user_attrs["run"]))
    report = SweepReport(
        title=run_report.title(winner),
        metric=plan.metric,
        higher_is_better=plan.higher_is_better,
        axes=tuple(axis.name for axis in plan.axes),
        failed=tuple(sorted(failed)),
        trials=tuple(_trial(trial, folder) for trial in ranked),
        test=winner.read("scores.json") if (winner.path / "scores.json").exists() else None,
    )
    folder.write("sweep.json", report)
    folder.write("report.md", pages.markdown(report))
    folder.write("report.html", pages.html(report))
    return folder


def _trial(trial: Any, folder: Run) -> Trial:
    run = Run(folder.path / trial.user_attrs["run"])
    values = {name: str(value) for name, value in trial.params.items()}
    return Trial(run.path.name, values, trial.value, run.finished.costs, run_report.curve(run))


def _ended(study: Any) -> set[str]:
    """The runs that were trained to their end, or failed; not those that were cut off."""
    trials = study.get_trials(deepcopy=False)
    return {
        trial.user_attrs["run"] for trial in trials if trial.state.name == "COMPLETE" or "failed" in trial.user_attrs
    }


@contextmanager
def _claimed(path: Path) -> Iterator[int | None]:
    """Hold a trial's folder: a file descriptor whose lock lasts as long as a process has it; None where others do."""
    with (path.parent / f".{path.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield lock.fileno()


def _is_held(path: Path) -> bool:
    """Whether a trial is being trained, here or elsewhere."""
    with _claimed(path) as lock:
        return lock is None
