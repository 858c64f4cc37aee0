"""What the report of a run says whatever its task: title, environment, costs, and the course of training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from tunesmith import records
from tunesmith.evaluation import determinism
from tunesmith.evaluation.clean_scores import CleanScores
from tunesmith.evaluation.determinism import Determinism
from tunesmith.evaluation.intervals import Confidence
from tunesmith.evaluation.slices import SliceScores
from tunesmith.hardware import Environment
from tunesmith.reporting import clean_report, slice_report
from tunesmith.reporting.schema import Curve, SeededEnvironment
from tunesmith.runs import Run, data_name

Part = TypeVar("Part")


def title(run: Run) -> str:
    """Return what a page about this run is called: its data's name."""
    return data_name(run.manifest.data.source)


def report(kind: Callable[..., Part], run: Run, confidence: Confidence, **content: Any) -> Part:
    """Return a report of some kind: its content, and what the run says about data and machine."""
    manifest = run.finished
    environment = SeededEnvironment(**records.fields_of(Environment, manifest.environment), seed=confidence.seed)
    header = {"task": manifest.task, "title": title(run), "data": manifest.data, "environment": environment}
    return kind(**header, **content)


def method(kind: Callable[..., Part], run: Run, name: str, **content: Any) -> Part:
    """Return a method of a report: its content, and what the run says about its training."""
    manifest = run.finished
    return kind(
        name=name,
        run=str(run.path),
        description=manifest.description,
        train=manifest.train,
        validation=manifest.validation,
        costs=manifest.costs,
        determinism=run.load(determinism.FILE, Determinism) if run.has(determinism.FILE) else None,
        curve=curve(run),
        notes=manifest.notes,
        clean=run.load(clean_report.FILE, CleanScores) if run.has(clean_report.FILE) else None,
        slices=run.load(slice_report.FILE, SliceScores) if run.has(slice_report.FILE) else None,
        **content,
    )


def curve(run: Run) -> Curve | None:
    """Return loss and deciding metric over the steps; None for methods that do not train in steps."""
    lines = run.metrics()
    if not lines:
        return None
    metric = run.recipe.evaluate.metric_for_best_model
    return Curve(
        loss=tuple((line.step, line.loss) for line in lines if line.loss is not None),
        validation=tuple((line.step, line.validation[metric]) for line in lines if metric in line.validation),
        validation_metric=metric,
    )
