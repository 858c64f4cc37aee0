"""The evaluation of a trained model by task: predict the held-out rows, store the predictions, score them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tunesmith import hardware
from tunesmith.console import say
from tunesmith.evaluation import metrics, responses
from tunesmith.pipeline import generated_responses, run_report
from tunesmith.pipeline.confidence import confidence_of
from tunesmith.pipeline.fitting import base_model
from tunesmith.pipeline.fitting.job import Job
from tunesmith.protocols import TrainResult
from tunesmith.reporting import terminal
from tunesmith.reporting.format import counted, metric
from tunesmith.tasks import classification as labels

MOST_TRAIN_ROWS = 1000
"""Training rows that are predicted for the report: enough to see over-fitting, whatever a prediction costs."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the manifest keeps of an evaluation; predictions and scores.json are in the run."""

    validation: dict[str, float] | None
    """Metrics of the validation split, where there is one."""
    predicted: int
    """Test rows that were predicted."""
    train: dict[str, float] | None = None
    """Metrics of training rows drawn at random."""


def classification(job: Job, result: TrainResult, watch: hardware.Stopwatch) -> Outcome:
    """Predict the labels of the validation and the test rows. The test split is used here and nowhere else.

    At most MOST_TRAIN_ROWS training rows are predicted too, so that over-fitting shows.
    """
    recipe, splits, run = job.recipe, job.splits, job.run
    train = validation = None
    held_out = []
    if splits.validation:
        held_out = result.classifier.predict(splits.validation)
        gold = labels.gold(splits.validation)
        run.write_predictions("validation", held_out, gold)
        validation = metrics.headline(gold, held_out, splits.labels)
    with watch.time("predict"):
        predictions = result.classifier.predict(splits.test)
    gold = labels.gold(splits.test)
    run.write_predictions("test", predictions, gold)
    run.write("worst.json", run_report.worst(splits.test, predictions))
    split, rows = ("validation", splits.validation) if splits.validation else ("test", splits.test)
    samples = run_report.sample_predictions(split, rows, held_out or predictions, splits.labels, recipe.seed)
    run.write("sample_predictions.json", samples)
    if samples.rows:
        say(terminal.sample_predictions(samples))
    if splits.test:
        scores = metrics.score(gold, predictions, splits.labels, confidence_of(recipe))
        run.write("scores.json", scores)
        drawn = np.random.default_rng(recipe.seed).permutation(len(splits.train))[:MOST_TRAIN_ROWS]
        seen = [splits.train[place] for place in sorted(drawn.tolist())]
        train = metrics.headline(labels.gold(seen), result.classifier.predict(seen), splits.labels)
        by_split = {f"train ({counted(len(seen), 'row')})": train, "validation": validation}
        known = [f"{name} {metric(values['accuracy'])}" for name, values in by_split.items() if values]
        say(f"accuracy: {', '.join(known)}, test {metric(scores.headline['accuracy'].value)}")
    return Outcome(validation, len(splits.test), train)


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
