"""The evaluation of a trained model by task: predict the held-out rows, store the predictions, score them."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith import hardware
from tunesmith.evaluation import metrics, responses
from tunesmith.pipeline import generated_responses, run_report
from tunesmith.pipeline.confidence import confidence_of
from tunesmith.pipeline.fitting import base_model
from tunesmith.pipeline.fitting.job import Job
from tunesmith.protocols import TrainResult
from tunesmith.tasks import classification as labels


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the manifest keeps of an evaluation; predictions and scores.json are in the run."""

    validation: dict[str, float] | None
    """Metrics of the validation split, where there is one."""
    predicted: int
    """Test rows that were predicted."""


def classification(job: Job, result: TrainResult, watch: hardware.Stopwatch) -> Outcome:
    """Predict the labels of the validation and the test rows. The test split is used here and nowhere else."""
    recipe, splits, run = job.recipe, job.splits, job.run
    validation = None
    if splits.validation:
        predictions = result.classifier.predict(splits.validation)
        gold = labels.gold(splits.validation)
        run.write_predictions("validation", predictions, gold)
        validation = metrics.headline(gold, predictions, splits.labels)
    with watch.time("predict"):
        predictions = result.classifier.predict(splits.test)
    gold = labels.gold(splits.test)
    run.write_predictions("test", predictions, gold)
    if splits.test:
        run.write("scores.json", metrics.score(gold, predictions, splits.labels, confidence_of(recipe)))
    run.write("worst.json", run_report.worst(splits.test, predictions))
    return Outcome(validation, len(splits.test))


def instruction(job: Job, result: TrainResult, watch: hardware.Stopwatch) -> Outcome:
    """Measure the loss of validation and test answers, and let the model and its base answer the test prompts."""
    splits, run, generator = job.splits, job.run, result.generator
    rows = generated_responses.response_rows(generator, splits.test, job.recipe, watch)
    run.write_responses("test", rows)
    held_out = generated_responses.losses(generator, splits.validation)
    base_model.answer(job, generator, result.trainable > 0, watch)
    if rows:
        run.write("scores.json", base_model.score(run))
    validation = {"loss": responses.mean_loss(held_out)} if held_out else None
    return Outcome(validation, sum(row.response is not None for row in rows))
