"""Runs of task `multilabel`: sets of labels of held-out rows, their scores, and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunesmith import hardware
from tunesmith.evaluation import multilabel_scores
from tunesmith.evaluation.intervals import Confidence
from tunesmith.evaluation.multilabel_scores import MultilabelScores
from tunesmith.pipeline import held_out, report_parts
from tunesmith.pipeline.confidence import confidence_of
from tunesmith.pipeline.fitting import methods
from tunesmith.pipeline.fitting.job import Job, Outcome
from tunesmith.protocols import TrainResult
from tunesmith.reporting import conclusions
from tunesmith.reporting.schema import LabelMistake, MultilabelReport, MultilabelResult, WorstLabelMistakes
from tunesmith.runs import Run
from tunesmith.tasks.multilabel import MultiLabel
from tunesmith.types import Example, MultilabelPredictionRow

WORST = 10
"""Examples with the most confidently wrong labels that a report shows for each method."""
THRESHOLDS = "thresholds.json"


@dataclass(frozen=True, slots=True)
class Thresholds:
    """thresholds.json: the probability from which each label is predicted."""

    by_label: dict[str, float]


def headline(rows: Sequence[MultilabelPredictionRow], target: MultiLabel) -> dict[str, float]:
    """Return the headline metrics of predictions beside the labels of the data."""
    return multilabel_scores.headline(rows, target.labels)


def evaluate(job: Job, result: TrainResult, watch: hardware.Stopwatch) -> Outcome:
    """Predict the labels of the held-out rows, and write the worst mistakes and the thresholds."""
    target = result.text_predictor.target
    assert isinstance(target, MultiLabel)
    if job.recipe.gives_probabilities:
        job.run.write(THRESHOLDS, Thresholds(dict(zip(target.labels, target.thresholds, strict=True))))
    return held_out.evaluate(job, result, watch, _illustrate)


def _illustrate(
    job: Job, validation: Sequence[MultilabelPredictionRow], test: Sequence[MultilabelPredictionRow]
) -> None:
    job.run.write("worst.json", worst(job.splits.test, test, job.splits.labels, job.recipe.seed))


def worst(
    examples: Sequence[Example], rows: Sequence[MultilabelPredictionRow], labels: Sequence[str], seed: int
) -> WorstLabelMistakes:
    """Return the examples whose most wrong label is the most confidently wrong, worst first.

    Without probabilities, some wrong examples drawn with the seed.
    """
    pairs = [pair for pair in zip(examples, rows, strict=True) if {*pair[1].gold} != {*pair[1].labels}]
    if not all(row.probabilities for _, row in pairs):
        mistakes = (
            LabelMistake(e.id, e.text, e.text_pair, row.gold, row.labels, label=None, probability=None)
            for e, row in held_out.drawn(pairs, WORST, seed)
        )
        return WorstLabelMistakes(tuple(mistakes))
    found = []
    for example, row in pairs:
        distance = {
            label: (1 - p if label in row.gold else p, p)
            for label, p in zip(labels, row.probabilities, strict=True)
            if label in {*row.gold} ^ {*row.labels}
        }
        label = max(distance, key=lambda name: distance[name][0])
        found.append((-distance[label][0], example, row, label, distance[label][1]))
    found.sort(key=lambda item: (item[0], item[1].id))
    return WorstLabelMistakes(
        tuple(
            LabelMistake(e.id, e.text, e.text_pair, row.gold, row.labels, label, probability)
            for _, e, row, label, probability in found[:WORST]
        )
    )


def score(run: Run, split: str = "test", places: Sequence[int] | None = None) -> MultilabelScores:
    """Return the scores of the stored predictions of a split. places: the rows to score, from 0; by default all."""
    labels = run.manifest.data.labels
    thresholds = run.load(THRESHOLDS, Thresholds).by_label if run.recipe.gives_probabilities else {}
    rows = held_out.chosen(run.predictions(split, MultilabelPredictionRow), places)
    chosen = [thresholds[label] for label in labels if thresholds]
    return multilabel_scores.score(rows, labels, confidence_of(run.recipe), chosen)


def report(runs: Mapping[str, Run], confidence: Confidence) -> MultilabelReport:
    """Return the report on runs by name: scores, the worst mistakes, pairs, and the verdict."""
    results = tuple(
        report_parts.method(
            MultilabelResult,
            run,
            name,
            scores=run.load("scores.json", MultilabelScores),
            worst=run.load("worst.json", WorstLabelMistakes).worst,
            library=methods.library(run.manifest.name),
        )
        for name, run in runs.items()
    )
    first, pairs = next(iter(runs.values())), []
    if len(runs) > 1:
        predictions = {name: run.predictions("test", MultilabelPredictionRow) for name, run in runs.items()}
        pairs = multilabel_scores.compare(predictions, first.manifest.data.labels, confidence)
    return report_parts.report(
        MultilabelReport,
        first,
        confidence,
        verdict=conclusions.of_metric(results, pairs, "macro_f1"),
        methods=results,
        pairs=tuple(pairs),
    )
