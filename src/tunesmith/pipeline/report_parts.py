"""What the report of a run says whatever its task: title, environment, costs, and the course of training."""

from __future__ import annotations

from typing import Any

from tunesmith import records
from tunesmith.evaluation.intervals import Confidence
from tunesmith.reporting.schema import Curve, SeededEnvironment
from tunesmith.runs import Run, data_name


def title(run: Run) -> str:
    """Return what a page about this run is called: its data's name."""
    return data_name(run.manifest.data.source)


def header(run: Run, confidence: Confidence) -> dict[str, Any]:
    """Return what a report says about the data and the machine: fields of `Report`."""
    manifest = run.finished
    environment = SeededEnvironment(**records.dump(manifest.environment), seed=confidence.seed)
    return {"task": manifest.task, "title": title(run), "data": manifest.data, "environment": environment}


def method(run: Run, name: str) -> dict[str, Any]:
    """Return what a report says about a method beside its scores: fields of `MethodResult`."""
    manifest = run.finished
    return {
        "name": name,
        "run": str(run.path),
        "description": manifest.description,
        "validation": manifest.validation,
        "costs": manifest.costs,
        "curve": curve(run),
        "notes": manifest.notes,
    }


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
