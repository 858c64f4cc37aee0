"""The tasks by name: how each is evaluated, predicted and compared. A new task is a row in TASKS.

How its rows become examples is a row in `data.dataset.READERS`, how it is reported one in `run_report.REPORTS`; its
name is listed in `recipe.names.TASKS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tunesmith import hardware
from tunesmith.pipeline.fitting import final_evaluation
from tunesmith.pipeline.fitting.final_evaluation import Outcome
from tunesmith.pipeline.fitting.job import Job
from tunesmith.protocols import TrainResult
from tunesmith.runs import Run


@dataclass(frozen=True, slots=True)
class Task:
    """What is predicted: all that the commands know of it."""

    has_responses: bool
    """Whether texts are answered (by a TextGenerator), and not labelled (by a Classifier)."""
    evaluate: Callable[[Job, TrainResult, hardware.Stopwatch], Outcome]
    """Predicts the held-out rows, and writes predictions and scores.json into the run."""
    compared_methods: tuple[str, ...]
    """What `compare` trains where no methods are named."""


TASKS = {
    "classification": Task(
        has_responses=False,
        evaluate=final_evaluation.classification,
        compared_methods=("linear", "probe", "encoder"),
    ),
    "instruction": Task(
        has_responses=True,
        evaluate=final_evaluation.instruction,
        compared_methods=("generator:untuned", "generator"),
    ),
}


def task_of(run: Run) -> Task:
    """The task that a run was trained for."""
    return TASKS[run.recipe.task]
