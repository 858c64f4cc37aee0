"""Runs of task `classification`: labels of held-out rows, their scores, and the report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate

from tunesmith import hardware
from tunesmith.console import say, silence
from tunesmith.errors import RunError
from tunesmith.evaluation import decision_scores, label_pairs, metric_pairs, metrics
from tunesmith.evaluation.intervals import Confidence, Floats, Index
from tunesmith.evaluation.label_pairs import LabelPair
from tunesmith.evaluation.metric_pairs import MetricPair
from tunesmith.evaluation.metrics import ClassificationScores
from tunesmith.pipeline import held_out, report_parts
from tunesmith.pipeline.confidence import confidence_of
from tunesmith.pipeline.fitting import methods
from tunesmith.pipeline.fitting.job import Job, Outcome
from tunesmith.pipeline.held_out import DECISION
from tunesmith.prediction import attribution
from tunesmith.protocols import TextPredictor, TrainResult
from tunesmith.reporting import conclusions, decision_report, terminal, word_marks
from tunesmith.reporting.format import in_a_sentence
from tunesmith.reporting.schema import (
    ClassificationReport,
    ClassificationResult,
    Mistake,
    SamplePrediction,
    SamplePredictions,
    WorstMistakes,
)
from tunesmith.runs import Run
from tunesmith.tasks import decisions
from tunesmith.tasks.classification import SingleLabel, probability
from tunesmith.tasks.decisions import DecisionFit
from tunesmith.types import Example, PredictionRow

WORST = 10
"""Confidently wrong examples that a report shows for each method."""
ACCURACY = "accuracy"
EXPLAINING, POINTS = 1000, 16
"""Predictions that marking their words may cost, and points of integrated gradients."""
SAMPLES, TOP_LABELS = 3, 4
"""Held-out examples that are shown, and how many labels each."""


def headline(rows: Sequence[PredictionRow], target: SingleLabel) -> dict[str, float]:
    """Return the headline metrics of predictions beside their gold labels."""
    return metrics.headline([row.gold for row in rows], rows, target.labels, target.values)


def evaluate(job: Job, result: TrainResult, watch: hardware.Stopwatch) -> Outcome:
    """Predict the labels of the held-out rows, and write the worst mistakes and a few samples."""
    return held_out.evaluate(job, result, watch, partial(_illustrate, result.text_predictor))


def _illustrate(
    predictor: TextPredictor, job: Job, validation: Sequence[PredictionRow], test: Sequence[PredictionRow]
) -> None:
    splits = job.splits
    mistakes = worst(splits.test, test, splits.labels, job.recipe.seed).worst
    job.run.write("worst.json", WorstMistakes(explained(predictor, mistakes)))
    split, examples = ("validation", splits.validation) if validation else ("test", splits.test)
    samples = sample_predictions(split, examples, validation or test, splits.labels, job.recipe.seed)
    job.run.write("sample_predictions.json", samples)
    if samples.rows:
        say(terminal.sample_predictions(samples))


def worst(
    examples: Sequence[Example], predictions: Sequence[PredictionRow], labels: Sequence[str], seed: int
) -> WorstMistakes:
    """Return the most confidently wrong examples, worst first; without probabilities, some drawn with the seed."""
    wrong = [
        Mistake(e.id, e.text, e.text_pair, gold=p.gold, predicted=p.label, probability=probability(p, labels))
        for e, p in zip(examples, predictions, strict=True)
        if p.gold != p.label
    ]
    if any(mistake.probability is None for mistake in wrong):
        shown = [replace(mistake, probability=None) for mistake in held_out.drawn(wrong, WORST, seed)]
    else:
        shown = sorted(wrong, key=lambda mistake: (-(mistake.probability or 0), mistake.id))[:WORST]
    return WorstMistakes(tuple(shown))


def explained(predictor: TextPredictor, mistakes: Sequence[Mistake]) -> tuple[Mistake, ...]:
    """Return mistakes with their marked words: as many of the first as EXPLAINING predictions suffice for.

    None of a model that is asked for the label by a prompt, as its predictions cost much, or that has no probabilities.
    """
    examples = [Example(mistake.id, mistake.text, mistake.text_pair) for mistake in mistakes]
    if not examples or mistakes[0].probability is None or predictor.rendered_prompt(examples[0]) is not None:
        return tuple(mistakes)
    costs = accumulate(attribution.cost(predictor, example, POINTS) for example in examples)
    count = sum(cost <= EXPLAINING for cost in costs)
    with silence():
        explanations = attribution.explain(predictor, examples[:count], points=(POINTS, POINTS))
    marked = [word_marks.visible(explanation.words) for explanation in explanations]
    explained = [replace(mistake, words=words) for mistake, words in zip(mistakes, marked, strict=False)]
    return (*explained, *mistakes[count:])


def sample_predictions(
    split: str, examples: Sequence[Example], predictions: Sequence[PredictionRow], labels: Sequence[str], seed: int
) -> SamplePredictions:
    """Return a few examples of a split, drawn with the seed, with their most probable labels."""
    rows = []
    for example, prediction in held_out.drawn(list(zip(examples, predictions, strict=True)), SAMPLES, seed):
        top: Sequence[tuple[str, float | None]] = [(prediction.label, None)]
        if prediction.probabilities:
            top = sorted(zip(labels, prediction.probabilities, strict=True), key=lambda pair: -pair[1])[:TOP_LABELS]
        rows.append(SamplePrediction(example.id, example.text, example.text_pair, prediction.gold, tuple(top)))
    return SamplePredictions(split, tuple(rows))


def score(run: Run, split: str = "test", places: Sequence[int] | None = None) -> ClassificationScores:
    """Return the scores of the stored predictions of a split. places: the rows to score, from 0; by default all."""
    rows, data = held_out.chosen(run.predictions(split, PredictionRow), places), run.manifest.data
    confidence = confidence_of(run.recipe)
    scores = metrics.score([row.gold for row in rows], rows, data.labels, confidence, data.label_values)
    if not run.has(DECISION) or scores.without_probabilities:
        return scores
    decide, fit = run.recipe.decide, run.load(DECISION, DecisionFit)
    decided = decision_scores.score(rows, data.labels, fit.decision, _costs(run), decide.conformal, confidence)
    cost = {} if decided.costs is None else {"cost": decided.costs.cost}
    return replace(scores, decisions=decided, headline=scores.headline | cost)


def remarks(run: Run, scores: ClassificationScores) -> Iterator[str]:
    """Yield what the decisions of a run came to."""
    if scores.decisions is not None:
        yield from decision_report.lines(run.load(DECISION, DecisionFit), scores.decisions)


def _costs(run: Run) -> Floats | None:
    """Return what predicting a label (column) for a label (row) costs; None where the recipe does not say."""
    data, costs = run.manifest.data, run.recipe.decide.costs
    return None if costs is None else decisions.cost_matrix(data.labels, costs, data.label_values)


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
            decision=run.load(DECISION, DecisionFit) if run.has(DECISION) else None,
            library=methods.library(run.manifest.name),
        )
        for name, run in runs.items()
    )
    first = next(iter(runs.values()))
    pairs: list[LabelPair] = []
    ranked: list[MetricPair] = []
    metric = _ranked_by(first, results)
    if len(runs) > 1:
        predictions = {name: run.predictions("test", PredictionRow) for name, run in runs.items()}
        gold = [row.gold for row in next(iter(predictions.values()))]
        pairs = label_pairs.compare(gold, predictions, first.manifest.data.labels, confidence)
        if metric != ACCURACY:
            ids = {name: [row.id for row in rows] for name, rows in predictions.items()}
            measures = {name: _measure(first, gold, rows, metric) for name, rows in predictions.items()}
            ranked = metric_pairs.compare(ids, measures, confidence)
    return report_parts.report(
        ClassificationReport,
        first,
        confidence,
        verdict=conclusions.of_labels(results, pairs)
        if metric == ACCURACY
        else conclusions.of_metric(results, ranked, metric),
        methods=results,
        pairs=tuple(pairs),
        ranked_by=None if metric == ACCURACY else metric,
        ranked_pairs=tuple(ranked) or None,
    )


def _ranked_by(run: Run, results: Sequence[ClassificationResult]) -> str:
    """Return the metric that ranks the methods, by the recipe of the first. Raises RunError where one lacks it."""
    recipe = run.recipe
    metric = recipe.evaluate.metric_for_comparison or ("cost" if recipe.decide.costs else ACCURACY)
    if len(results) == 1 and metric not in results[0].scores.headline:
        return ACCURACY
    if lacking := [result.name for result in results if metric not in result.scores.headline]:
        raise RunError(
            f"{', '.join(lacking)}: no {in_a_sentence(metric)} to compare by",
            expected="the same decide.costs, labels with an order, or probabilities, in every run",
            do="train it again with these settings, or set evaluate.metric_for_comparison",
        )
    return metric


def _measure(
    run: Run, gold: Sequence[str], rows: Sequence[PredictionRow], metric: str
) -> Callable[[Index], dict[str, Floats]]:
    """Return what measures one metric on drawn rows; costs and order are those of the run."""
    data, costs_KK = run.manifest.data, _costs(run)
    if metric == "cost" and costs_KK is not None:
        costs_N = decision_scores.PER * decision_scores.row_costs(rows, data.labels, costs_KK)
        return lambda draws_BN: {metric: costs_N[draws_BN].mean(axis=1)}
    table = metrics.tabulate(gold, rows, data.labels, data.label_values)
    return lambda draws_BN: {metric: metrics.measure(table, draws_BN)[metric]}
