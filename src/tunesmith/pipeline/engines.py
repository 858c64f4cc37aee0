"""What computes a finished run: its own model, or an export that lies in the run, matches it and is faster."""

from __future__ import annotations

import importlib.util
import json

from tunesmith import integrity, processes, records
from tunesmith.console import say, warn
from tunesmith.errors import RecipeError, RunError
from tunesmith.exporting import parity
from tunesmith.pipeline.commands.export import FOLDER, ROWS
from tunesmith.pipeline.fitting.methods import METHODS, load_predictor
from tunesmith.protocols import Predictor
from tunesmith.runs import Run

PACKAGES = {"onnx": "onnxruntime", "onnx-int8": "onnxruntime", "openvino": "openvino"}
"""Export target that computes a model -> the package that it needs."""
ENGINES = ("auto", "torch", *PACKAGES)
"""What can be asked for."""


def load(run: Run, engine: str, setting: str, least_agreement: float = parity.AGREE) -> Predictor:
    """Return what computes a run's labels or answers.

    engine: one of ENGINES. `auto` is the fastest of the run and its exports that match it, compared on as many rows as
    `export` takes by default. setting: where the engine was chosen, for messages. least_agreement: share of the
    compared answers that an export needs for `auto` to take it.

    Raises RunError where the chosen export does not exist.
    """
    _check(run, engine, setting)
    name = _fastest(run, least_agreement) if engine == "auto" else engine
    if name == "torch":
        return load_predictor(run)
    folder = run.path / FOLDER / name
    if not folder.is_dir():
        raise RunError(
            f"{run.path} has no {name} export", do=f"tunesmith export {run.path} --to {name}, or {setting}torch"
        )
    integrity.verify(folder)
    say(f"{run.path}: computed by {PACKAGES[name]}, from {folder}")
    with processes.loading():
        return METHODS[run.recipe.method].load_graph(folder, run.recipe)


def _fastest(run: Run, least_agreement: float) -> str:
    """Return the engine with the highest speed that was measured when a model was exported."""
    speeds = {"torch": 1.0}
    splits = run.manifest.data.splits
    held_out = next((splits[split].rows for split in ("test", "validation") if splits[split].rows), ROWS)
    for export, package in PACKAGES.items():
        file = run.path / FOLDER / export / parity.FILE
        if not (file.is_file() and importlib.util.find_spec(package)):
            continue
        if integrity.enabled() and (problem := integrity.damage(file.parent)):
            warn(f"{file.parent} is not used: it is damaged: {problem}")
            continue
        content = {"exact": export != "onnx-int8"} | json.loads(file.read_text(encoding="utf-8"))
        report = records.load(parity.ParityReport, content, str(file))
        matches = parity.problem(report) is None and report.agreement >= least_agreement
        if matches and report.rows >= min(ROWS, held_out):
            speeds[export] = report.speed or 0.0
    return max(speeds, key=lambda name: speeds[name])


def _check(run: Run, engine: str, setting: str) -> None:
    if engine not in ENGINES:
        raise RecipeError(f"{setting}{engine}: no such engine", expected=", ".join(ENGINES), do=f"{setting}auto")
    if engine in PACKAGES and engine not in METHODS[run.recipe.method].export_targets:
        able = [name for name, method in METHODS.items() if engine in method.export_targets]
        raise RunError(
            f"{run.path} cannot be computed by {setting}{engine}",
            expected=f"a run of method {' or '.join(able)}",
            found=f"a {run.recipe.method} run",
            do=f"{setting}auto",
        )
