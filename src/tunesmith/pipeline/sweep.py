"""`tunesmith sweep`: many settings, ranked on validation; the test split is opened once, for the winner (Optuna)."""

from __future__ import annotations

import fcntl
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith import __version__, recipe as recipes, runs
from tunesmith.console import say, warn
from tunesmith.errors import MissingExtra, RecipeError, RunError, TunesmithError
from tunesmith.evaluation import metrics, responses, trials as pages
from tunesmith.pipeline import apart, reporting
from tunesmith.pipeline.train import Source, open_test
from tunesmith.recipe import Recipe
from tunesmith.runs import Run

TRIALS = 20
"""Trials of `random` and `tpe`, unless told otherwise."""
HEARTBEAT, SILENCE = 15, 60
"""Seconds between signs of life of a trial, and without one until another worker takes it for dead."""
Values = dict[str, str]
"""Setting -> value, as on the command line."""


@dataclass(frozen=True)
class Axis:
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

    def suggest(self, trial: Any) -> str:
        """A value for a trial."""
        if self.choices:
            return str(trial.suggest_categorical(self.name, self.choices))
        if self.whole:
            return str(trial.suggest_int(self.name, int(self.low), int(self.high), log=self.log))
        return f"{trial.suggest_float(self.name, self.low, self.high, log=self.log):.6g}"


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
    with _optuna_quiet():
        study = _study(plan, folder, storage)
        if (left := plan.total - _ended(study)) > 0:
            say(f"sweep: {left} of {plan.total} trials to go, in {folder.path}")
            _optimize(study, plan, folder)
    return _finish(study, plan, folder)


def parse(settings: Sequence[str]) -> tuple[list[Axis], list[str]]:
    """The axes and the fixed settings. Raises RecipeError where nothing varies."""
    axes, fixed = [], []
    for setting in settings:
        name, _, text = setting.partition("=")
        low, dots, high = text.partition("..")
        if dots:
            axes.append(_range(name, low, high))
        elif "," in text and not text.lstrip().startswith(("[", "{")):
            values = tuple(dict.fromkeys(value.strip() for value in text.split(",") if value.strip()))
            axes.append(Axis(name.strip(), values))
        else:
            fixed.append(setting)
    if not axes:
        raise RecipeError(
            "nothing varies", expected="settings such as learning_rate=1e-4,2e-4 or learning_rate=1e-5..1e-3"
        )
    return axes, fixed


def _range(name: str, low: str, high: str) -> Axis:
    try:
        least, most = float(low), float(high)
    except ValueError:
        raise RecipeError(f"{name}={low}..{high}", expected="two numbers, low..high") from None
    if not least < most or not math.isfinite(most - least):
        raise RecipeError(f"{name}={low}..{high}", expected="low..high with low below high")
    whole = all(text.strip().lstrip("-").isdigit() for text in (low, high))
    return Axis(name.strip(), (), least, most, whole)


def _count(axes: Sequence[Axis], sampler: str, trials: int | None) -> int:
    """How many trials there will be."""
    if sampler != "grid":
        return trials or TRIALS
    if ranges := [axis.name for axis in axes if not axis.choices]:
        raise RecipeError(
            f"a grid needs values, not a range, for {', '.join(ranges)}", do="use --sampler random or tpe"
        )
    points = math.prod(len(axis.choices) for axis in axes)
    return min(points, trials or points)


@dataclass(frozen=True)
class _Plan:
    """What is searched, and how."""

    source: Source
    fixed: list[str]
    axes: list[Axis]
    sampler: str
    total: int

    @property
    def base(self) -> Recipe:
        return recipes.load(self.source, self.fixed)

    def recipe(self, values: Mapping[str, str]) -> Recipe:
        return recipes.load(self.source, [*self.fixed, *(f"{name}={value}" for name, value in values.items())])

    def check(self) -> None:
        """Every value on an axis must make a recipe, before the first one trains."""
        ends = [axis.choices or (f"{axis.low:g}", f"{axis.high:g}") for axis in self.axes]
        for values in itertools.zip_longest(*ends):
            self.recipe({axis.name: value for axis, value in zip(self.axes, values, strict=True) if value is not None})
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
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url = storage or f"sqlite:///{(folder.path / 'study.db').resolve()}"
    choices = {axis.name: axis.choices for axis in plan.axes}
    seed = plan.base.seed
    samplers: dict[str, Callable[[], Any]] = {
        "grid": lambda: optuna.samplers.GridSampler(choices, seed=seed),
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
        "tpe": lambda: optuna.samplers.TPESampler(seed=seed),
    }
    again = optuna.storages.RetryHeartbeatStaleTrialCallback()
    kept = optuna.storages.RDBStorage(
        url, heartbeat_interval=HEARTBEAT, grace_period=SILENCE, heartbeat_stale_trial_callback=again
    )
    study = optuna.create_study(
        storage=kept, sampler=samplers[plan.sampler](), study_name=folder.path.resolve().name,
        direction="maximize" if plan.higher_is_better else "minimize", load_if_exists=True,
    )  # fmt: skip
    known = study.user_attrs.get("plan")
    if known not in (None, plan.identity()):
        raise RunError(
            f"{folder.path} holds a sweep of other settings",
            do="repeat its command to go on, or give another --sweep-dir",
        )
    study.set_user_attr("plan", plan.identity())
    return study


def _optimize(study: Any, plan: _Plan, folder: Run) -> None:
    def objective(trial: Any) -> float:
        values = {axis.name: axis.suggest(trial) for axis in plan.axes}
        path = folder.path / _title(values)
        trial.set_user_attr("run", path.name)
        with _claimed(path):
            run = apart.train(plan.recipe(values), path, closed_test=True)
        score = float(run.manifest["validation"][plan.metric])
        say(f"sweep: {path.name}: validation {plan.metric} {score:.4f}")
        return score

    def enough(study: Any, trial: Any) -> None:
        if _ended(study) >= plan.total:
            study.stop()

    study.optimize(objective, callbacks=[enough], catch=(TunesmithError,))


def _finish(study: Any, plan: _Plan, folder: Run) -> Run:
    """The table and the report; by the worker that ends last also the winner's test scores."""
    import optuna

    running = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.RUNNING]
    if running:
        say(f"sweep: {len(running)} trial(s) are running elsewhere; the worker that ends last opens the test split")
        return folder
    done = {trial.user_attrs["run"]: trial for trial in study.trials if trial.value is not None}
    if not done:
        raise TunesmithError("no trial of the sweep succeeded; the reasons stand above", do="mend the recipe")
    failed = {trial.user_attrs["run"] for trial in study.trials if trial.state == optuna.trial.TrialState.FAIL} - set(
        done
    )
    if failed:
        warn(f"{len(failed)} trial(s) failed and are left out: {', '.join(sorted(failed))}")
    ranked = sorted(
        done.values(), key=lambda trial: (-trial.value if plan.higher_is_better else trial.value, trial.number)
    )
    winner = open_test(Run(folder.path / ranked[0].user_attrs["run"]))
    content = {
        "title": reporting.title(winner),
        "created": time.strftime("%Y-%m-%d %H:%M"),
        "version": __version__,
        "command": reporting.command(),
        "metric": plan.metric,
        "higher_is_better": plan.higher_is_better,
        "axes": [axis.name for axis in plan.axes],
        "failed": sorted(failed),
        "trials": [_row(trial, folder) for trial in ranked],
        "test": winner.read("scores.json") if (winner.path / "scores.json").exists() else None,
    }
    folder.write("sweep.json", content)
    folder.write("report.md", pages.markdown(content))
    folder.write("report.html", pages.html(content))
    return folder


def _row(trial: Any, folder: Run) -> dict[str, Any]:
    run = Run(folder.path / trial.user_attrs["run"])
    manifest = run.manifest
    return {
        "run": run.path.name,
        "values": {name: str(value) for name, value in trial.params.items()},
        "score": trial.value,
        "costs": manifest["costs"],
        "curve": reporting.curve(run),
    }


def _ended(study: Any) -> int:
    """Different settings that were tried to their end, or failed."""
    ended = [trial for trial in study.trials if trial.state.name in ("COMPLETE", "FAIL") and not _retried(study, trial)]
    return len({trial.user_attrs["run"] for trial in ended if "run" in trial.user_attrs})


def _retried(study: Any, trial: Any) -> bool:
    """A trial that died and was begun anew does not count."""
    return any(trial.number in other.system_attrs.get("retry_history", ()) for other in study.trials)


def _title(values: Values) -> str:
    """A folder name: learning_rate-1e-4_r-8."""
    return "_".join(f"{name.split('.')[-1]}-{value}".replace("/", "-") for name, value in values.items())


@contextmanager
def _claimed(path: Path) -> Iterator[None]:
    """Hold a trial's folder; another worker that drew the same settings leaves them to us."""
    import optuna

    path.mkdir(parents=True, exist_ok=True)
    with (path.parent / f".{path.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise optuna.TrialPruned from None
        yield


@contextmanager
def _optuna_quiet() -> Iterator[None]:
    """Without what Optuna says of its newer features being experimental."""
    import warnings

    try:
        import optuna
    except ImportError:
        raise MissingExtra("a sweep needs optuna", found="not installed", do="pip install 'tunesmith[sweep]'") from None

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
