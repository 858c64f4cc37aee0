"""Runs of task `regression`: numbers of held-out rows, their scores, and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tunesmith import hardware
from tunesmith.evaluation import value_scores
from tunesmith.evaluation.intervals import Confidence
from tunesmith.evaluation.value_scores import RegressionScores
from tunesmith.pipeline import held_out, report_parts
from tunesmith.pipeline.confidence import confidence_of
from tunesmith.pipeline.fitting import methods
from tunesmith.pipeline.fitting.job import Job, Outcome
from tunesmith.protocols import TrainResult
from tunesmith.reporting import conclusions
from tunesmith.reporting.schema import ErrorRow, LargestErrors, RegressionReport, RegressionResult
from tunesmith.runs import Run
from tunesmith.tasks.regression import Number
from tunesmith.types import Example, ValuePredictionRow

WORST = 10
"""Examples with the largest errors that a report shows for each method."""
MOST_POINTS = 1000
"""Rows in a chart, drawn with the seed where there are more."""


def headline(rows: Sequence[ValuePredictionRow], target: Number) -> dict[str, float]:
    """Return the headline metrics of predictions beside the numbers of the data."""
    return value_scores.headline(rows)


def evaluate(job: Job, result: TrainResult, watch: hardware.Stopwatch) -> Outcome:
    """Predict the numbers of the held-out rows, and write the largest errors."""
    return held_out.evaluate(job, result, watch, _illustrate)


def _illustrate(job: Job, validation: Sequence[ValuePredictionRow], test: Sequence[ValuePredictionRow]) -> None:
    job.run.write("worst.json", worst(job.splits.test, test))


def worst(examples: Sequence[Example], rows: Sequence[ValuePredictionRow]) -> LargestErrors:
    """Return the examples with the largest errors, largest first."""
    ranked = sorted(zip(examples, rows, strict=True), key=lambda pair: (-abs(pair[1].value - pair[1].gold), pair[0].id))
    return LargestErrors(
        tuple(ErrorRow(e.id, e.text, e.text_pair, gold=row.gold, predicted=row.value) for e, row in ranked[:WORST])
    )


def score(run: Run, split: str = "test", places: Sequence[int] | None = None) -> RegressionScores:
    """Return the scores of the stored predictions of a split. places: the rows to score, from 0; by default all."""
    rows = held_out.chosen(run.predictions(split, ValuePredictionRow), places)
    return value_scores.score(rows, confidence_of(run.recipe))


def report(runs: Mapping[str, Run], confidence: Confidence) -> RegressionReport:
    """Return the report on runs by name: scores, the largest errors, pairs, and the verdict."""
    predictions = {name: run.predictions("test", ValuePredictionRow) for name, run in runs.items()}
    rows = len(next(iter(predictions.values())))
    drawn = np.sort(np.random.default_rng(confidence.seed).permutation(rows)[:MOST_POINTS]).tolist()
    results = tuple(
        report_parts.method(
            RegressionResult,
            run,
            name,
            scores=run.load("scores.json", RegressionScores),
            worst=run.load("worst.json", LargestErrors).worst,
            points=tuple((predictions[name][place].gold, predictions[name][place].value) for place in drawn),
            library=methods.library(run.manifest.name),
        )
        for name, run in runs.items()
    )
    pairs = value_scores.compare(predictions, confidence) if len(runs) > 1 else []
    return report_parts.report(
        RegressionReport,
        next(iter(runs.values())),
        confidence,
        verdict=conclusions.of_metric(
            results, pairs, "rmse", ("Always answering the mean", results[0].scores.baseline_rmse)
        ),
        methods=results,
        pairs=tuple(pairs),
    )
