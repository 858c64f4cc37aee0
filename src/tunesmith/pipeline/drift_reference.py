"""What a run's inputs and predictions were like when it was evaluated, for the drift of a served model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunesmith.console import warn
from tunesmith.errors import TunesmithError
from tunesmith.pipeline.task_table import task_of
from tunesmith.runs import Run
from tunesmith.serving import drift_monitor
from tunesmith.serving.drift_monitor import Quantity
from tunesmith.types import ResponseRow

CONFIDENCE = [edge / 10 for edge in range(1, 10)]
"""Edges of the bins of probabilities."""


def of_run(run: Run, labels: Sequence[str] = ()) -> list[Quantity]:
    """Return what requests can be compared with: predictions of held-out rows, and lengths of training texts.

    labels: all that the model can predict.
    """
    quantities = []
    responds, splits = task_of(run).has_responses, run.manifest.data.splits
    if (
        not responds
        and (train := splits.get("train")) is not None
        and 0 < train.characters.median < train.characters.p95
    ):
        # the manifest has two quantiles of the lengths
        edges = (float(train.characters.median), float(train.characters.p95))
        reference = tuple(train.rows * share for share in (0.5, 0.45, 0.05))
        quantities.append(Quantity("characters", "training texts", reference, edges=edges))
    split = next((name for name in ("test", "validation") if run.has(f"predictions/{name}.jsonl")), None)
    if split is not None:
        try:
            quantities += _of_predictions(run.predictions(split, task_of(run).row), f"{split} predictions", labels)
        except TunesmithError as error:  # answers do not depend on it
            warn(f"the drift of predictions is not watched: {error}")
    return quantities


def _of_predictions(rows: Sequence[Any], source: str, labels: Sequence[str]) -> list[Quantity]:
    if isinstance(rows[0], ResponseRow):
        numbers = {
            "characters": [len(row.prompt) for row in rows],
            "response_tokens": [row.tokens for row in rows if row.tokens is not None],
        }
    else:
        counted = drift_monitor.counted(rows)
        numbers = {"value": counted["value"]}
        if counted["label"]:
            names = [*labels, *({*counted["label"]} - {*labels})]
            quantities = [drift_monitor.of_labels("label", source, names, counted["label"])]
            if counted["confidence"]:
                quantities.append(drift_monitor.of_numbers("confidence", source, CONFIDENCE, counted["confidence"]))
            return quantities
    return [
        drift_monitor.of_numbers(name, source, drift_monitor.deciles(values), values)
        for name, values in numbers.items()
        if len(values)
    ]
