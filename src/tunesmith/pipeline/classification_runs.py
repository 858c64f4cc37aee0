"""Runs of task `classification`: labels of held-out rows, their scores, and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tunesmith import hardware
from tunesmith.console import say
from tunesmith.evaluation import label_pairs, metrics
from tunesmith.evaluation.intervals import Confidence
from tunesmith.evaluation.metrics import ClassificationScores
from tunesmith.pipeline import held_out, report_parts
from tunesmith.pipeline.confidence import confidence_of
from tunesmith.pipeline.fitting import methods
from tunesmith.pipeline.fitting.job import Job, Outcome
from tunesmith.protocols import TrainResult
from tunesmith.reporting import conclusions, terminal
from tunesmith.reporting.schema import (
    ClassificationReport,
    ClassificationResult,
    Mistake,
    SamplePrediction,
    SamplePredictions,
    WorstMistakes,
)
from tunesmith.runs import Run
from tunesmith.types import Example, PredictionRow

WORST = 10
"""Confidently wrong examples that a report shows for each method."""
SAMPLES, TOP_LABELS = 3, 4
"""Held-out examples that are shown, and how many labels each."""


def headline(rows: Sequence[PredictionRow], labels: Sequence[str]) -> dict[str, float]:
    """Return the headline metrics of predictions beside their gold labels."""
    return metrics.headline([row.gold for row in rows], rows, labels)


def evaluate(job: Job, result: TrainResult, watch: hardware.Stopwatch) -> Outcome:
    """Predict the labels of the held-out rows, and write the worst mistakes and a few samples."""
    return held_out.evaluate(job, result, watch, _illustrate)


def _illustrate(job: Job, validation: Sequence[PredictionRow], test: Sequence[PredictionRow]) -> None:
    splits = job.splits
    job.run.write("worst.json", worst(splits.test, test))
    split, examples = ("validation", splits.validation) if validation else ("test", splits.test)
    samples = sample_predictions(split, examples, validation or test, splits.labels, job.recipe.seed)
    job.run.write("sample_predictions.json", samples)
    if samples.rows:
        say(terminal.sample_predictions(samples))


def worst(examples: Sequence[Example], predictions: Sequence[PredictionRow]) -> WorstMistakes:
    """Return the most confidently wrong examples, worst first."""
    wrong = [(e, p) for e, p in zip(examples, predictions, strict=True) if p.gold != p.label]
    wrong.sort(key=lambda pair: (-max(pair[1].probabilities), pair[0].id))
    return WorstMistakes(
        tuple(
            Mistake(e.id, e.text, e.text_pair, gold=p.gold, predicted=p.label, probability=max(p.probabilities))
            for e, p in wrong[:WORST]
        )
    )


def sample_predictions(
    split: str, examples: Sequence[Example], predictions: Sequence[PredictionRow], labels: Sequence[str], seed: int
) -> SamplePredictions:
    """Return a few examples of a split, drawn with the seed, with their most probable labels."""
    drawn = np.random.default_rng(seed).permutation(len(examples))[:SAMPLES]
    rows = []
    for place in sorted(drawn.tolist()):
        example, prediction = examples[place], predictions[place]
        top = sorted(zip(labels, prediction.probabilities, strict=True), key=lambda pair: -pair[1])[:TOP_LABELS]
        rows.append(SamplePrediction(example.id, example.text, example.text_pair, prediction.gold, tuple(top)))
    return SamplePredictions(split, tuple(rows))


def score(run: Run, split: str = "test") -> ClassificationScores:
    """Return the scores of the stored predictions of a split."""
    rows = run.predictions(split, PredictionRow)
    return metrics.score([row.gold for row in rows], rows, run.manifest.data.labels, confidence_of(run.recipe))


def report(runs: Mapping[str, Run], confidence: Confidence) -> ClassificationReport:
    """Return the report on runs by name: scores, the worst mistakes, pairs, and the verdict."""
    results = tuple(
        report_parts.method(
            ClassificationResult,
            run,
            name,
            scores=run.load("scores.json", ClassificationScores),
            worst=run.load("worst.json", WorstMistakes).worst,
            sample_predictions=run.load("sample_predictions.json", SamplePredictions)
            if run.has("sample_predictions.json")
            else None,
            library=methods.library(run.manifest.name),
        )
        for name, run in runs.items()
    )
    first, pairs = next(iter(runs.values())), []
    if len(runs) > 1:
        predictions = {name: run.predictions("test", PredictionRow) for name, run in runs.items()}
        gold = [row.gold for row in next(iter(predictions.values()))]
        pairs = label_pairs.compare(gold, predictions, first.manifest.data.labels, confidence)
    return report_parts.report(
        ClassificationReport,
        first,
        confidence,
        verdict=conclusions.of_labels(results, pairs),
        methods=results,
        pairs=tuple(pairs),
    )
