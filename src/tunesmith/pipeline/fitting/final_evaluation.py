"""What a trained model is held to, by task: predict the held-out rows, store what was said, and score it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tunesmith import hardware
from tunesmith.evaluation import metrics, responses
from tunesmith.pipeline import generated_responses, run_report
from tunesmith.pipeline.confidence import confidence_of
from tunesmith.pipeline.fitting import base_model
from tunesmith.pipeline.fitting.job import Job
from tunesmith.protocols import TrainResult
from tunesmith.types import Example

Outcome = Callable[[Job, TrainResult, hardware.Stopwatch], dict[str, Any]]
"""Writes predictions and scores.json into the run; gives what the manifest keeps: `validation` and `predicted`."""


def classification(job: Job, fitted: TrainResult, watch: hardware.Stopwatch) -> dict[str, Any]:
    """Labels of the validation and the test rows. The test split is looked at here and nowhere else."""
    recipe, splits, run = job.recipe, job.splits, job.run
    validation = None
    if splits.validation:
        predictions = fitted.classifier.predict(splits.validation)
        gold = _gold(splits.validation)
        run.write_predictions("validation", predictions, gold)
        validation = metrics.headline(gold, predictions, splits.labels)
    with watch.time("predict"):
        predictions = fitted.classifier.predict(splits.test)
    gold = _gold(splits.test)
    run.write_predictions("test", predictions, gold)
    if splits.test:
        run.write("scores.json", metrics.score(gold, predictions, splits.labels, confidence_of(recipe)))
    run.write("worst.json", {"worst": run_report.worst(splits.test, predictions)})
    return {"validation": validation, "predicted": len(splits.test)}


def instruction(job: Job, fitted: TrainResult, watch: hardware.Stopwatch) -> dict[str, Any]:
    """The loss of the validation and test answers, and the model's own answers to the test prompts; and the base's."""
    splits, run, generator = job.splits, job.run, fitted.generator
    rows = generated_responses.response_rows(generator, splits.test, job.recipe, watch)
    run.write_responses("test", rows)
    held_out = generated_responses.losses(generator, splits.validation)
    base_model.answer(job, generator, fitted.trainable > 0, watch)
    if rows:
        run.write("scores.json", base_model.score(run))
    validation = {"loss": responses.mean_loss(held_out)} if held_out else None
    return {"validation": validation, "predicted": sum(row.response is not None for row in rows)}


def _gold(examples: Sequence[Example]) -> list[str]:
    return [str(example.label) for example in examples]


OUTCOMES: dict[str, Outcome] = {"classification": classification, "instruction": instruction}
