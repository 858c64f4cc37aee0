"""The tasks by name. A new task is a row in TASKS; its name is listed in `recipe.names.TASKS`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith import data, hardware
from tunesmith.data import annotator_votes, shuffled_stream
from tunesmith.errors import RunError
from tunesmith.evaluation import metrics, multilabel_scores, responses, slices, value_scores
from tunesmith.evaluation.intervals import Confidence
from tunesmith.evaluation.metrics import ClassificationScores
from tunesmith.evaluation.multilabel_scores import MultilabelScores
from tunesmith.evaluation.responses import GenerationScores
from tunesmith.evaluation.slices import SliceMetric
from tunesmith.evaluation.value_scores import RegressionScores
from tunesmith.pipeline import classification_runs, curve_scores, instruction_runs, multilabel_runs, regression_runs
from tunesmith.pipeline.curve_scores import NamedMeasure
from tunesmith.pipeline.fitting import base_model
from tunesmith.pipeline.fitting.job import Job, Metrics, Outcome
from tunesmith.protocols import TrainResult
from tunesmith.recipe import Recipe
from tunesmith.reporting import (
    classification_report,
    generation_report,
    model_card,
    multilabel_report,
    regression_report,
)
from tunesmith.reporting.schema import (
    ClassificationReport,
    ExportedModel,
    GenerationReport,
    MultilabelReport,
    RegressionReport,
)
from tunesmith.runs import Run
from tunesmith.tasks.classification import SingleLabel
from tunesmith.tasks.multilabel import MultiLabel
from tunesmith.tasks.regression import Number
from tunesmith.tasks.text_targets import Target
from tunesmith.types import MultilabelPredictionRow, PredictionRow, ResponseRow, Splits, ValuePredictionRow

Scores = ClassificationScores | MultilabelScores | RegressionScores | GenerationScores
RunReport = ClassificationReport | MultilabelReport | RegressionReport | GenerationReport
"""What comparison.json holds, and the pages show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is predicted: all that the commands know of it."""

    reader: data.TaskReader
    """How rows become examples, and how splits are stratified."""
    has_responses: bool
    """Whether texts are answered (by a TextGenerator), and not given a label or number (by a TextPredictor)."""
    row: type[PredictionRow | MultilabelPredictionRow | ValuePredictionRow | ResponseRow]
    """A line of predictions/test.jsonl."""
    evaluate: Callable[[Job, TrainResult, hardware.Stopwatch], Outcome]
    """Predicts the held-out rows, and writes the predictions into the run. Called in all processes of a training; the
    run of the first alone writes."""
    scores: type[Scores]
    """What scores.json holds."""
    score: Callable[..., Scores]
    """Scores the stored predictions of a run's test split, or of another that is named, with intervals; or, with
    `places`, those of some of its rows."""
    remarks: Callable[[Run, Any], Iterable[str]] = lambda run, scores: ()
    """What the terminal says of a run and its scores."""
    slice_metric: Callable[[Sequence[Any]], SliceMetric] | None = None
    """What is measured on slices of such rows; None where there are no slices."""
    metrics: Metrics
    """Those that may decide between checkpoints and between trials, and how they are computed."""
    target: Callable[[Splits], Target]
    """What is learned for each text."""
    report: Callable[[Mapping[str, Run], Confidence], RunReport]
    """The report on finished runs by name, with a paired test of every two of them."""
    report_kind: type[RunReport]
    html: Callable[[Any], str]
    markdown: Callable[[Any], str]
    card: Callable[[Any, ExportedModel | None], str]
    """The model card of the one run in such a report, or of what it was exported to."""
    compared_methods: tuple[str, ...]
    """What `compare` trains where no methods are named."""
    curve_score: Callable[[Recipe, Splits, Sequence[Any]], NamedMeasure]
    """What a learning curve shows of predicted test rows."""


TASKS = {
    "classification": Task(
        reader=data.LABELLED,
        has_responses=False,
        row=PredictionRow,
        evaluate=classification_runs.evaluate,
        scores=ClassificationScores,
        score=classification_runs.score,
        remarks=classification_runs.remarks,
        slice_metric=slices.accuracy,
        metrics=Metrics(metrics.HIGHER_IS_BETTER, classification_runs.headline, ("train_loss", "log_loss")),
        target=lambda splits: SingleLabel(splits.labels, values=splits.label_values),
        report=classification_runs.report,
        report_kind=ClassificationReport,
        html=classification_report.html,
        markdown=classification_report.markdown,
        card=model_card.classification,
        compared_methods=("linear", "probe", "encoder"),
        curve_score=curve_scores.of_labels,
    ),
    "multilabel": Task(
        reader=data.LABEL_LISTS,
        has_responses=False,
        row=MultilabelPredictionRow,
        evaluate=multilabel_runs.evaluate,
        scores=MultilabelScores,
        score=multilabel_runs.score,
        slice_metric=slices.micro_f1,
        metrics=Metrics(multilabel_scores.HIGHER_IS_BETTER, multilabel_runs.headline, ("train_loss", "log_loss")),
        target=lambda splits: MultiLabel(splits.labels),
        report=multilabel_runs.report,
        report_kind=MultilabelReport,
        html=multilabel_report.html,
        markdown=multilabel_report.markdown,
        card=model_card.multilabel,
        compared_methods=("linear", "probe", "encoder"),
        curve_score=curve_scores.of_label_sets,
    ),
    "regression": Task(
        reader=data.NUMBERS,
        has_responses=False,
        row=ValuePredictionRow,
        evaluate=regression_runs.evaluate,
        scores=RegressionScores,
        score=regression_runs.score,
        slice_metric=slices.rmse,
        metrics=Metrics(value_scores.HIGHER_IS_BETTER, regression_runs.headline, ("train_rmse", "rmse")),
        target=lambda splits: Number.of(splits.train),
        report=regression_runs.report,
        report_kind=RegressionReport,
        html=regression_report.html,
        markdown=regression_report.markdown,
        card=model_card.regression,
        compared_methods=("linear", "probe", "encoder"),
        curve_score=curve_scores.of_values,
    ),
    "instruction": Task(
        reader=data.CONVERSATIONS,
        has_responses=True,
        row=ResponseRow,
        evaluate=instruction_runs.evaluate,
        scores=base_model.RunScores,
        score=base_model.score,
        metrics=Metrics(responses.HIGHER_IS_BETTER, lambda rows, target: {}, ("train_loss", "loss")),
        target=lambda splits: SingleLabel(()),
        report=instruction_runs.report,
        report_kind=GenerationReport,
        html=generation_report.html,
        markdown=generation_report.markdown,
        card=model_card.generation,
        compared_methods=("generator:untuned", "generator"),
        curve_score=curve_scores.of_responses,
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
    task = TASKS[recipe.task]
    return Job(recipe, splits, run, task.metrics, task.target(splits))


def read_splits(recipe: Recipe) -> Splits:
    """Read a recipe's data as its task does; of a stream the beginning."""
    if recipe.data.streaming:
        return shuffled_stream.read_head(recipe.data, recipe.split)
    used_later = [*recipe.evaluate.slices, *annotator_votes.columns(recipe.data.votes)]
    return data.read(recipe.data, recipe.split, recipe.seed, TASKS[recipe.task].reader, used_later)


def check_data(splits: Splits, run: Run) -> None:
    """Raise RunError unless the splits are those that a run began with."""
    before = run.manifest.data.fingerprint
    if before != splits.fingerprints["data"]:
        raise RunError(
            f"the data of {run.path} has changed since it began",
            expected=f"fingerprint {before[:12]}",
            found=splits.fingerprints["data"][:12],
            do="restore the data, or start a new run",
        )
