"""What computes a finished run: torch, or an export that lies in the run. Nothing else chooses."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

from tunesmith import integrity, processes, records
from tunesmith.console import say, warn
from tunesmith.errors import MissingExtra, RecipeError, RunError
from tunesmith.exporting import parity
from tunesmith.exporting.parity import ParityReport
from tunesmith.pipeline.fitting.methods import METHODS, load_predictor
from tunesmith.pipeline.task_table import task_of
from tunesmith.protocols import Predictor, TextGenerator
from tunesmith.runs import Run

FOLDER = "export"
"""Folder of a run that holds its exports, each under its target's name."""
ROWS = 50
"""Rows on which a run and its export are compared."""


@dataclass(frozen=True, slots=True)
class ExportEngine:
    """Something that computes exports of one target."""

    title: str
    target: str
    package: str
    extra: str
    """Of tunesmith, that installs the package."""
    only_responses: bool = False
    """Whether it is for runs that answer, and not for those that classify."""


ENGINES = {
    "onnx": ExportEngine("ONNX Runtime", "onnx", "onnxruntime", "export"),
    "onnx-int8": ExportEngine("ONNX Runtime", "onnx-int8", "onnxruntime", "export"),
    "openvino": ExportEngine("OpenVINO", "openvino", "openvino", "openvino"),
    "llama-cpp": ExportEngine("llama.cpp", "gguf", "llama_cpp", "llama-cpp", only_responses=True),
}
"""What computes in place of torch, by name."""


def load(run: Run, name: str, setting: str, least_agreement: float = parity.AGREE) -> Predictor:
    """Return what computes a run's labels or answers.

    name: `torch`, `auto`, or a key of ENGINES; `auto` is the fastest of torch and the exports that match the run,
    compared on as many rows as `export` takes by default. setting: the one with this value, for messages.
    least_agreement: share of the compared answers that an export needs for `auto`. Raises RecipeError for another name,
    RunError where there is no such export, or the run can have none; MissingExtra without the engine's package.
    """
    if name == "auto":
        name = fastest(run, least_agreement)
    if name == "torch":
        return load_predictor(run)
    if name not in ENGINES:
        expected = ", ".join(["auto", "torch", *ENGINES])
        raise RecipeError(f"{setting}={name}: no such engine", expected=expected, do=f"{setting}=auto")
    engine = ENGINES[name]
    if not _can_compute(engine, run):
        able = [method for method, other in METHODS.items() if engine.target in other.export_targets]
        raise RunError(
            f"{run.path} cannot be computed by {setting}={name}",
            expected=f"a run of method {', '.join(able)}{', with responses' if engine.only_responses else ''}",
            found=f"a {run.recipe.method} run{' that classifies' if engine.only_responses else ''}",
            do=f"{setting}=auto",
        )
    folder = _folder(run, engine)
    if not folder.is_dir():
        raise RunError(
            f"{run.path} has no {engine.target} export",
            do=f"tunesmith export {run.path} --to {engine.target}, or {setting}=torch",
        )
    if not _is_installed(engine):
        raise MissingExtra(
            f"{setting}={name} needs {engine.title}", do=f"pip install 'tunesmith[{engine.extra}]', or {setting}=torch"
        )
    integrity.verify(folder)
    with processes.loading():
        predictor = METHODS[run.recipe.method].load_graph(folder, run.recipe)
    say(f"{run.path}: computed by {engine.title}, from {folder}")
    return predictor


def load_generator(run: Run, name: str = "torch", setting: str = "generate.engine") -> TextGenerator:
    """Return what computes the answers of a run, as `load` does. Raises RunError for a run of another task."""
    if not task_of(run).has_responses:
        raise RunError(f"{run.path} is not a text generator", found=f"a run of task {run.recipe.task}")
    predictor = load(run, name, setting)
    assert isinstance(predictor, TextGenerator)
    return predictor


def fastest(run: Run, least_agreement: float = parity.AGREE) -> str:
    """Return what `auto` means for a run; a message has the reason where there are exports."""
    speeds, reasons = {"torch": 1.0}, []
    for name, engine in ENGINES.items():
        folder = _folder(run, engine)
        if not _can_compute(engine, run) or not (folder / parity.FILE).is_file():
            continue
        if not _is_installed(engine):
            reasons.append(f"{name}: pip install 'tunesmith[{engine.extra}]'")
        elif integrity.enabled() and (damage := integrity.damage(folder)):
            warn(f"{folder} is not used: it is damaged: {damage}")
        else:
            report = _report(folder / parity.FILE, exact=name != "onnx-int8")
            if problem := parity.problem(report):
                reasons.append(f"{name}: {problem}")
            elif report.agreement < least_agreement or report.has_rounded_numbers:
                reasons.append(f"{name}: {parity.agreement(report)}")
            elif report.rows < min(ROWS, _held_out(run)):
                reasons.append(f"{name}: compared on {report.rows} rows only")
            elif report.speed is None:
                reasons.append(f"{name}: its speed was not measured; export again with {engine.title} installed")
            else:
                speeds[name] = report.speed
                reasons.append(f"{name}: {report.speed:.2f} times the speed, the same answers")
    fastest = max(speeds, key=lambda name: speeds[name])
    if reasons:
        say(f"{run.path}: the fastest engine is {fastest} ({'; '.join(reasons)})")
    return fastest


def _report(path: Path, exact: bool) -> ParityReport:
    """Return a parity report. exact: what those of earlier versions leave out."""
    return records.load(ParityReport, {"exact": exact} | json.loads(path.read_text(encoding="utf-8")), str(path))


def _held_out(run: Run) -> int:
    """Return how many rows a run has to be compared on, without those that it was trained on if there are others."""
    splits = run.manifest.data.splits
    return next((splits[split].rows for split in ("test", "validation") if splits[split].rows), ROWS)


def _can_compute(engine: ExportEngine, run: Run) -> bool:
    able = engine.target in METHODS[run.recipe.method].export_targets
    return able and (task_of(run).has_responses or not engine.only_responses)


def _is_installed(engine: ExportEngine) -> bool:
    return importlib.util.find_spec(engine.package) is not None


def _folder(run: Run, engine: ExportEngine) -> Path:
    return run.path / FOLDER / engine.target
