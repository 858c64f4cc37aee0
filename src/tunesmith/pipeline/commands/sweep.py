"""`tunesmith sweep`: hyperparameter search with Optuna, ranked on validation; only the winner is tested."""

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
from functools import partial
from pathlib import Path
from typing import Any

from tunesmith import disk, recipe as recipes, runs
from tunesmith.console import say, warn
from tunesmith.errors import Interrupted, RecipeError, RunError, TunesmithError
from tunesmith.pipeline import in_memory, report_parts, seeds, sweep_storage
from tunesmith.pipeline.commands.train import open_test
from tunesmith.pipeline.fitting import subprocess
from tunesmith.pipeline.task_table import TASKS, scores_of
from tunesmith.recipe import Recipe, Source
from tunesmith.reporting import sweep_report as pages
from tunesmith.reporting.sweep_schema import SweepReport, Trial
from tunesmith.runs import Run

TRIALS = 20
"""Default number of trials of `random` and `tpe`."""
MAX_TRIALS = 10_000
"""Trials of a sweep, each of which is a training."""
REPEATS = 50
"""Stop after this many draws in a row without a new setting."""
ITEM = re.compile(r"""\s*("[^"]*"|'[^']*'|[^,]+)""")
"""One of several values; commas in quotes are part of it."""
RANGE = re.compile(r"\s*([-+]?[\d.]+(?:e[-+]?\d+)?)\.\.([-+]?[\d.]+(?:e[-+]?\d+)?)\s*", re.IGNORECASE)
STUDY = "study.db"
"""Optuna's own record of a sweep in its folder."""
Values = dict[str, str]
"""Setting -> value, as on the command line."""


@dataclass(frozen=True)
class SearchAxis:
    """The values to try of one setting: a list, or a range between two numbers."""

    name: str
    choices: tuple[str, ...] = ()
    low: float = 0
    high: float = 0
    whole: bool = False

    @property
    def log(self) -> bool:
        """Whether to search on a log scale: the range spans a factor of ten or more."""
        return self.low > 0 and self.high / self.low >= 10

    @property
    def values(self) -> Sequence[str | int] | None:
        """All values; None for a continuous range."""
        if self.choices:
            return self.choices
        return range(int(self.low), int(self.high) + 1) if self.whole else None

    def suggest(self, trial: Any) -> str:
        """Return the value for a trial."""
        if self.choices:
            return self.text(trial.suggest_categorical(self.name, self.choices))
        if self.whole:
            return self.text(trial.suggest_int(self.name, int(self.low), int(self.high), log=self.log))
        return self.text(trial.suggest_float(self.name, self.low, self.high, log=self.log))

    def text(self, value: Any) -> str:
        """Return a value as on the command line."""
        return f"{value:.6g}" if isinstance(value, float) else str(value)


def sweep(
    source: object,
    settings: Sequence[str],
    *,
    sampler: str = "grid",
    trials: int | None = None,
    storage: str | None = None,
    sweep_dir: str | Path | None = None,
) -> Run:
    """Train a recipe with many settings; return the sweep's folder, with report.html and sweep.json.

    settings: `name=a,b,c` (values) and `name=low..high` (a range) are searched; others are fixed. sampler: `grid`,
    `random` or `tpe`. storage: the URL of a database for Optuna, or `journal:PATH`, a file; several workers with one
    storage and one sweep_dir share the work. The same call with the same sweep_dir resumes an interrupted sweep.
    """
    plan = _Plan.of(in_memory.recipe_source(source, settings), settings, sampler, trials)
    folder = Run(disk.make_folder(Path(sweep_dir))) if sweep_dir else runs.create(plan.base.output_dir, "sweep")
    with sweep_storage.errors_explained(storage or str(folder.path / STUDY)):
        search = _Search(plan, folder, _study(plan, folder, storage))
        before = -1
        try:
            while before < (ended := len(search.ended())) < plan.total:  # until a round adds nothing
                before = ended
                say(f"sweep: {plan.total - ended} of {plan.total} trials to go, in {folder.path}")
                search.queue()
                search.optimize()
        except KeyboardInterrupt as stop:
            say(f"sweep: to resume, give the same command with --sweep-dir {folder.path}")
            raise stop.__cause__ or stop from None
        search.finish()
    return folder


def parse(settings: Sequence[str]) -> tuple[list[SearchAxis], list[str]]:
    """Return the axes and the fixed settings. Raises RecipeError where nothing varies."""
    axes, fixed = [], []
    for setting in settings:
        name, _, text = setting.partition("=")
        values = () if text.lstrip().startswith(("[", "{")) else tuple(map(str.strip, ITEM.findall(text)))
        if numbers := RANGE.fullmatch(text):
            try:
                low, high = map(float, numbers.groups())
            except ValueError:
                raise RecipeError(setting, expected="two numbers, low..high") from None
            if not low < high or not math.isfinite(high - low):
                raise RecipeError(setting, expected="low..high with low below high")
            whole = all(number.lstrip("-").isdigit() for number in numbers.groups())
            axes.append(SearchAxis(name.strip(), (), low, high, whole))
        elif len(values) > 1:
            axes.append(SearchAxis(name.strip(), tuple(dict.fromkeys(filter(None, values)))))
        else:
            fixed.append(setting)
    if not axes:
        raise RecipeError(
            "nothing varies", expected="settings such as learning_rate=1e-4,2e-4 or learning_rate=1e-5..1e-3"
        )
    return axes, fixed


@dataclass(frozen=True)
class _Plan:
    """The settings to search, and how."""

    source: Source
    fixed: list[str]
    axes: list[SearchAxis]
    sampler: str
    total: int

    @classmethod
    def of(cls, source: Source, settings: Sequence[str], sampler: str, trials: int | None) -> _Plan:
        """Return the plan, checked; it has at most as many trials as there are different settings."""
        axes, fixed = parse(settings)
        if sampler == "grid" and (ranges := [axis.name for axis in axes if not axis.choices]):
            raise RecipeError(
                f"a grid needs values, not a range, for {', '.join(ranges)}", do="use --sampler random or tpe"
            )
        points = math.prod(math.inf if axis.values is None else len(axis.values) for axis in axes)
        wanted = trials or (points if sampler == "grid" else TRIALS)
        if wanted > points:
            say(f"sweep: there are {points} different settings, so {points} trials and not {wanted}")
        if min(points, wanted) > MAX_TRIALS:
            raise RecipeError(
                f"a sweep of {min(points, wanted):,} trials",
                expected=f"at most {MAX_TRIALS:,}",
                do="give fewer values, or --trials N with --sampler random or tpe",
            )
        plan = cls(source, fixed, axes, sampler, int(min(points, wanted)))
        plan.check()
        return plan

    @property
    def base(self) -> Recipe:
        return recipes.load(self.source, self.fixed)

    def recipe(self, values: Mapping[str, str]) -> Recipe:
        settings = [*self.fixed, seeds.one_split(self.base), *(f"{name}={value}" for name, value in values.items())]
        return recipes.load(self.source, settings)

    def points(self) -> list[dict[str, Any]]:
        """Return every setting to train, shuffled, for a grid or an exhaustive search; nothing where samplers draw."""
        values = [axis.values for axis in self.axes]
        if None in values or (self.sampler != "grid" and self.total < math.prod(map(len, filter(None, values)))):
            return []
        grid = [
            dict(zip([axis.name for axis in self.axes], point, strict=True))
            for point in itertools.product(*filter(None, values))
        ]
        random.Random(self.base.seed).shuffle(grid)  # noqa: S311 - nothing secret
        return grid[: self.total]

    def run_name(self, params: Mapping[str, Any]) -> str:
        """Return the folder name of a trial: learning_rate-1e-4_r-8."""
        values = {axis.name.split(".")[-1]: axis.text(params[axis.name]) for axis in self.axes}
        return "_".join(f"{name}-{value}".replace("/", "-") for name, value in values.items())

    def check(self) -> None:
        """Check before training that every value makes a valid recipe, and that all use the same rows."""
        shared = self.recipe({})
        ends = [axis.choices or (f"{axis.low:g}", f"{axis.high:g}") for axis in self.axes]
        for values in itertools.zip_longest(*ends):
            chosen = {axis.name: value for axis, value in zip(self.axes, values, strict=True) if value is not None}
            recipe = self.recipe(chosen)
            if (recipe.data, recipe.split) != (shared.data, shared.split):
                raise RecipeError(
                    "trials are ranked on the same rows: nothing of data or split can vary",
                    found=", ".join(chosen),
                    do="""sweep each by itself; put a value with commas in quotes: name='"a,b"'""",
                )
        if self.base.split.validation_size == 0 and not self.base.data.validation:
            raise RecipeError("a sweep is ranked on validation", do="set split.validation_size above 0")

    @property
    def metric(self) -> str:
        return self.base.evaluate.metric_for_best_model

    @property
    def higher_is_better(self) -> bool:
        table = TASKS[self.base.task].metrics.higher_is_better
        if self.metric not in table:
            raise RecipeError("a sweep is ranked by a metric of its task", expected=", ".join(table), found=self.metric)
        return table[self.metric]

    def identity(self) -> str:
        """Return what must be equal for trials to belong together."""
        fields = {
            "recipe": recipes.dump(self.base),
            "axes": [repr(axis) for axis in self.axes],
            "sampler": self.sampler,
        }
        return json.dumps(fields, sort_keys=True)


def _study(plan: _Plan, folder: Run, storage: str | None) -> Any:
    """Create or load the study of this folder. Raises RunError where it holds other settings."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # this module reports on trials
    url = storage or f"sqlite:///{(folder.path / STUDY).resolve()}"
    study = optuna.create_study(
        storage=sweep_storage.open_storage(url),
        study_name=folder.path.resolve().name,
        direction="maximize" if plan.higher_is_better else "minimize",
        load_if_exists=True,
    )
    sampler = optuna.samplers.TPESampler if plan.sampler == "tpe" else optuna.samplers.RandomSampler
    study.sampler = sampler(seed=plan.base.seed + len(study.trials))  # a resumed sweep does not repeat its draws
    known = study.user_attrs.get("plan")
    if known not in (None, plan.identity()):
        raise RunError(
            f"{folder.path} holds a sweep of other settings",
            do="repeat its command to resume it, or give another --sweep-dir",
        )
    study.set_user_attr("plan", plan.identity())
    return study


@dataclass(frozen=True)
class _Search:
    """The trials of a plan, trained in one folder."""

    plan: _Plan
    folder: Run
    study: Any

    def ended(self) -> set[str]:
        """Return the runs that finished or failed; not those that were interrupted."""
        trials = self.study.get_trials(deepcopy=False)
        return {trial.user_attrs["run"] for trial in trials if {"score", "failed"} & trial.user_attrs.keys()}

    def queue(self) -> None:
        """Queue the rest of a grid, and trials that were interrupted by Ctrl-C or died with their process."""
        begun = [trial for trial in self.study.trials if "run" in trial.user_attrs]
        known = self.ended() | {trial.user_attrs["run"] for trial in begun if trial.state.name == "WAITING"}
        known |= {trial.user_attrs["run"] for trial in begun if self._is_held(trial.user_attrs["run"])}
        for params in [*self.plan.points(), *(trial.params for trial in begun if trial.params)]:
            name = self.plan.run_name(params)
            if name not in known:
                self.study.enqueue_trial(params, user_attrs={"run": name})
                known.add(name)

    def optimize(self) -> None:
        """Train queued trials, or those that the sampler draws, until there are enough."""
        queued = bool(self.plan.points())

        def should_stop(study: Any, trial: Any) -> None:
            states = [other.state.name for other in study.get_trials(deepcopy=False)]
            drained = "WAITING" not in states and (queued or states[-REPEATS:].count("PRUNED") == REPEATS)
            if drained or len(self.ended()) >= self.plan.total:
                study.stop()

        self.study.optimize(partial(self._train, queued=queued), callbacks=[should_stop], catch=(TunesmithError,))

    def _train(self, trial: Any, *, queued: bool) -> float:
        """Return the validation score of a trial. queued: only trials of the queue are trained."""
        import optuna

        if queued and "run" not in trial.user_attrs:
            raise optuna.TrialPruned  # the queue is empty: this trial is the sampler's
        values = {axis.name: axis.suggest(trial) for axis in self.plan.axes}
        path = self.folder.path / self.plan.run_name(trial.params)
        trial.set_user_attr("run", path.name)
        if path.name in self.ended():
            raise optuna.TrialPruned
        with _claimed(path) as lock:
            if lock is None:
                raise optuna.TrialPruned  # another worker is training the same settings
            try:
                run = subprocess.train(self.plan.recipe(values), path, skip_test=True, held=lock)
                score = (run.finished.validation or {})[self.plan.metric]
                trial.set_user_attr("score", score)  # before others can claim it: Optuna notes the value too late
            except Interrupted as stop:  # not a failure, after which Optuna would continue
                raise KeyboardInterrupt from stop
            except TunesmithError:
                trial.set_user_attr("failed", True)
                raise
        say(f"sweep: {path.name}: validation {self.plan.metric} {score:.4f}")
        return score

    def finish(self) -> None:
        """Write the report; the last worker to finish also tests the winner."""
        plan, folder, ended = self.plan, self.folder, self.ended()
        begun = {trial.user_attrs["run"] for trial in self.study.trials if "run" in trial.user_attrs} - ended
        if running := [name for name in begun if self._is_held(name)]:
            say(
                f"sweep: {len(running)} trial(s) are still running elsewhere; the last worker to finish tests the "
                "winner, or run this command again"
            )
            return
        if len(ended) < plan.total:
            warn(f"{len(ended)} of {plan.total} trials: the sampler found no new settings")
        done = {trial.user_attrs["run"]: trial for trial in self.study.trials if "score" in trial.user_attrs}
        if not done:
            raise TunesmithError("no trial of the sweep succeeded; see the errors above", do="fix the recipe")
        if failed := ended - set(done):
            warn(f"{len(failed)} trial(s) failed and are left out: {', '.join(sorted(failed))}")
        queue = dict.fromkeys(map(plan.run_name, plan.points())) | done  # of equals the first of the queue wins
        scored = filter(None, queue.values())
        ranked = sorted(scored, key=lambda trial: trial.user_attrs["score"], reverse=plan.higher_is_better)
        winner = open_test(Run(folder.path / ranked[0].user_attrs["run"]))
        trials = []
        for trial in ranked:
            run = Run(folder.path / trial.user_attrs["run"])
            values = {name: str(value) for name, value in trial.params.items()}
            trials.append(
                Trial(run.path.name, values, trial.user_attrs["score"], run.finished.costs, report_parts.curve(run))
            )
        report = SweepReport(
            title=report_parts.title(winner),
            metric=plan.metric,
            higher_is_better=plan.higher_is_better,
            axes=tuple(axis.name for axis in plan.axes),
            failed=tuple(sorted(failed)),
            trials=tuple(trials),
            test=scores_of(winner),
        )
        folder.write("sweep.json", report)
        folder.write("report.md", pages.markdown(report))
        folder.write("report.html", pages.html(report))
        for name in ended:  # nobody claims these again
            (folder.path / f".{name}.lock").unlink(missing_ok=True)

    def _is_held(self, name: str) -> bool:
        """Return whether a trial is being trained, here or elsewhere."""
        with _claimed(self.folder.path / name) as lock:
            return lock is None


@contextmanager
def _claimed(path: Path) -> Iterator[int | None]:
    """Lock a trial's folder: yield the file descriptor that holds the lock, or None where another process does."""
    with (path.parent / f".{path.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield lock.fileno()
