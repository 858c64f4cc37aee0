"""Runs of task `classification`: labels of held-out rows, their scores, and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tunesmith import hardware
from tunesmith.evaluation import label_pairs, metrics
from tunesmith.evaluation.intervals import Confidence
from tunesmith.evaluation.metrics import ClassificationScores
from tunesmith.pipeline import report_parts
from tunesmith.pipeline.confidence import confidence_of
from tunesmith.pipeline.fitting.job import Job, Outcome
from tunesmith.protocols import Classifier, TrainResult
from tunesmith.reporting import conclusions
from tunesmith.reporting.schema import ClassificationReport, ClassificationResult, Mistake, WorstMistakes
from tunesmith.runs import Run
from tunesmith.types import Example, PredictionRow

WORST = 10
"""Confidently wrong examples that a report shows for each method."""


def evaluate(job: Job, result: TrainResult, watch: hardware.Stopwatch) -> Outcome:
    """Predict the labels of the validation and the test rows. The test split is used here and nowhere else."""
    splits, run = job.splits, job.run
    validation = None
    if splits.validation:
        rows = predict(result.classifier, splits.validation)
        run.write_predictions("validation", rows)
        validation = metrics.headline([row.gold for row in rows], rows, splits.labels)
    with watch.time("predict"):
        rows = predict(result.classifier, splits.test)
    run.write_predictions("test", rows)
    run.write("worst.json", worst(splits.test, rows))
    return Outcome(validation, len(rows))


def predict(classifier: Classifier, examples: Sequence[Example]) -> list[PredictionRow]:
    """Return the prediction for each labelled example, beside its label."""
    return [
        PredictionRow(prediction.id, prediction.label, prediction.probabilities, str(example.label))
        for example, prediction in zip(examples, classifier.predict(examples), strict=True)
    ]


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


def score(run: Run, split: str = "test") -> ClassificationScores:
    """Return the scores of the stored predictions of a split."""
    rows = run.predictions(split, PredictionRow)
    return metrics.score([row.gold for row in rows], rows, run.manifest.data.labels, confidence_of(run.recipe))


def report(runs: Mapping[str, Run], confidence: Confidence) -> ClassificationReport:
    """Return the report on runs by name: scores, the worst mistakes, pairs, and the verdict."""
    methods = tuple(
        report_parts.method(
            ClassificationResult,
            run,
            name,
            scores=run.load("scores.json", ClassificationScores),
            worst=run.load("worst.json", WorstMistakes).worst,
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
        verdict=conclusions.of_labels(methods, pairs),
        methods=methods,
        pairs=tuple(pairs),
    )
