"""The tasks by name. A new task is a row in TASKS; its name is listed in `recipe.names.TASKS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith import data, hardware
from tunesmith.evaluation import metrics, responses
from tunesmith.evaluation.intervals import Confidence
from tunesmith.evaluation.metrics import ClassificationScores
from tunesmith.evaluation.responses import GenerationScores
from tunesmith.pipeline import classification_runs, instruction_runs
from tunesmith.pipeline.fitting import base_model
from tunesmith.pipeline.fitting.job import Job, Outcome
from tunesmith.protocols import TrainResult
from tunesmith.recipe import Recipe
from tunesmith.reporting import classification_report, generation_report, model_card
from tunesmith.reporting.schema import ClassificationReport, ExportedModel, GenerationReport
from tunesmith.runs import Run
from tunesmith.types import Splits

Scores = ClassificationScores | GenerationScores
RunReport = ClassificationReport | GenerationReport
"""What comparison.json holds, and the pages show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is predicted: all that the commands know of it."""

    reader: data.TaskReader
    """How rows become examples, and how splits are stratified."""
    has_responses: bool
    """Whether texts are answered (by a TextGenerator), and not labelled (by a Classifier)."""
    evaluate: Callable[[Job, TrainResult, hardware.Stopwatch], Outcome]
    """Predicts the held-out rows, and writes the predictions into the run."""
    scores: type[Scores]
    """What scores.json holds."""
    score: Callable[[Run], Scores]
    """Scores the stored predictions of the test split, with intervals."""
    higher_is_better: Mapping[str, bool]
    """The metrics that may decide between checkpoints and between trials, and which way is better."""
    report: Callable[[Mapping[str, Run], Confidence], RunReport]
    """The report on finished runs by name, with a paired test of every two of them."""
    html: Callable[[Any], str]
    markdown: Callable[[Any], str]
    card: Callable[[Any, ExportedModel | None], str]
    """The model card of the one run in such a report, or of what it was exported to."""
    compared_methods: tuple[str, ...]
    """What `compare` trains where no methods are named."""


TASKS = {
    "classification": Task(
        reader=data.LABELLED,
        has_responses=False,
        evaluate=classification_runs.evaluate,
        scores=ClassificationScores,
        score=classification_runs.score,
        higher_is_better=metrics.HIGHER_IS_BETTER,
        report=classification_runs.report,
        html=classification_report.html,
        markdown=classification_report.markdown,
        card=model_card.classification,
        compared_methods=("linear", "probe", "encoder"),
    ),
    "instruction": Task(
        reader=data.CONVERSATIONS,
        has_responses=True,
        evaluate=instruction_runs.evaluate,
        scores=base_model.RunScores,
        score=base_model.score,
        higher_is_better=responses.HIGHER_IS_BETTER,
        report=instruction_runs.report,
        html=generation_report.html,
        markdown=generation_report.markdown,
        card=model_card.generation,
        compared_methods=("generator:untuned", "generator"),
    ),
}


def task_of(run: Run) -> Task:
    """The task that a run was trained for."""
    return TASKS[run.recipe.task]


def scores_of(run: Run) -> Scores | None:
    """The scores of a run's test split; None if it was not tested."""
    return run.load("scores.json", task_of(run).scores) if run.has("scores.json") else None


def job_of(recipe: Recipe, splits: Splits, run: Run) -> Job:
    """What training needs."""
    return Job(recipe, splits, run, TASKS[recipe.task].higher_is_better)


def read_splits(recipe: Recipe) -> Splits:
    """Read a recipe's data as its task does."""
    return data.read(recipe.data, recipe.split, recipe.seed, TASKS[recipe.task].reader)
