"""The active labelling part of an audit: which rows of an unlabelled pool to label next."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunesmith import runs
from tunesmith.auditing import active_labelling
from tunesmith.auditing.active_labelling import ActiveLabellingAudit, ChosenRow
from tunesmith.console import say, silence, track
from tunesmith.data import personal_data
from tunesmith.errors import DataError, RecipeError
from tunesmith.evaluation.intervals import Floats
from tunesmith.pipeline import new_data, prediction_stream
from tunesmith.pipeline.audit_sections.audit_input import AuditInput
from tunesmith.pipeline.commands import predict
from tunesmith.pipeline.fitting import methods, text_features
from tunesmith.pipeline.part_training import PartTrainer
from tunesmith.pipeline.task_table import TASKS
from tunesmith.recipe import Recipe
from tunesmith.reporting.format import counted, quantity
from tunesmith.tasks import classification
from tunesmith.tasks.multilabel import MultiLabel, indicators
from tunesmith.tasks.text_targets import Target
from tunesmith.types import Example, MultilabelPrediction, Splits, ValuePrediction

FILE = "next.csv"
SHOWN = 10
COMMITTEE = 5
"""Models, each of other training rows, whose predicted numbers say how sure a number is."""
CLEAR = 0.5
"""Of a row whose label is ahead of the next by more than this it is not said that two labels are likely."""
REASON = "reason"
ADDED = (
    prediction_stream.LABEL,
    prediction_stream.LABELS,
    prediction_stream.VALUE,
    prediction_stream.PROBABILITY,
    REASON,
)
"""The columns that are added to those of the pool."""


@dataclass(frozen=True)
class Pool:
    """Rows without labels."""

    source: str
    examples: tuple[Example, ...]
    """Those whose text is new."""
    columns: dict[str, dict[str, object]]
    """Every column of each row, by id."""
    read: int
    same_as_labelled: int
    repeated: int
    asked: int


def read(recipe: Recipe, splits: Splits, method: str, source: str, count: int) -> Pool:
    """Read the pool as the data was read. Raises DataError or RecipeError where there is nothing to choose from.

    method: as in `compare --methods`; chooses the rows.
    """
    if TASKS[recipe.task].has_responses:
        raise RecipeError(
            "--unlabelled is for texts that get labels or numbers",
            found=f"task {recipe.task}",
            do="leave --unlabelled out",
        )
    chosen_by = methods.of_method(recipe, method)
    methods.check_probabilities(chosen_by, "choose rows to label")
    if not methods.find(chosen_by).refits_cheaply and not splits.labels:
        able = " or ".join(methods.refitting(recipe))
        raise RecipeError(f"{method} does not say how sure it is of a number", expected=able, do="set --method")
    if count < 1:
        raise RecipeError(f"--next is {count}", expected="1 or more")
    settings = new_data.settings(recipe, source)
    columns = new_data.columns(settings)
    _check_columns(recipe, runs.data_name(source), {name for row in columns.values() for name in row})
    examples = new_data.read(settings)
    kept, same, repeated = active_labelling.without_duplicates(
        examples, [*splits.train, *splits.validation, *splits.test]
    )
    if not kept:
        raise DataError(
            f"{runs.data_name(source)}: nothing to label",
            expected="texts that no labelled row has",
            found=f"{counted(len(examples), 'row')}, {same:,} of them with the text of a labelled row",
            do="give other rows",
        )
    if known := sum(examples[place].gold is not None for place in kept):
        say(f"data: labels of the unlabelled rows are not used: {known:,}")
    return Pool(source, tuple(examples[place] for place in kept), columns, len(examples), same, repeated, count)


def _check_columns(recipe: Recipe, name: str, columns: set[str]) -> None:
    """Raise DataError where unlabelled rows lack a column with text, or have one that predictions are written to."""
    texts = [column for column in (recipe.data.text, recipe.data.text_pair) if column is not None]
    if columns and (missing := [column for column in texts if column not in columns]):
        raise DataError(
            f"{name}: unlabelled rows without column {' and '.join(map(repr, missing))}",
            expected="the columns of the data",
            found=", ".join(sorted(columns)),
            do="give the column with the text the name that it has in the data",
        )
    if taken := sorted(set(ADDED) & columns):
        raise DataError(
            f"{name}: columns that predictions are written to",
            expected="other names",
            found=", ".join(taken),
            do="rename them in the unlabelled rows",
        )


def audit(data: AuditInput, pool: Pool) -> ActiveLabellingAudit:
    """Choose rows of the pool, write them, and say what they are."""
    trainer = data.trainer(data.plan.method)
    recipe = trainer.recipe
    method = methods.find(recipe).name(recipe)
    say(f"active labelling: {method} is trained to choose of {counted(len(pool.examples), 'row')}")
    predictor = trainer.train(data.splits.train)
    predictions = predictor.predict(pool.examples)
    errors_NK = errors_of(predictor.labels, predictions) if predictor.labels else _disagreement(trainer, pool.examples)
    features = text_features.table(predictor, pool.examples, recipe.linear)
    chosen = active_labelling.choose(errors_NK, features, pool.asked, data.recipe.seed)
    rows = [_added(predictor.target, predictions[place], errors_NK[place]) for place in chosen]
    examples = [pool.examples[place] for place in chosen]
    table = [pool.columns[example.id] | row for example, row in zip(examples, rows, strict=True)]
    text = predict.table(table, ".csv", do="remove it before you train on these rows")
    runs.write_whole(data.folder.path / FILE, text.encode(errors="backslashreplace"))
    answers = [_answers(predictions[place]) for place in chosen]
    shown = [
        ChosenRow(
            example.id,
            personal_data.masked(example.text),
            ", ".join(answer),
            row.get(prediction_stream.PROBABILITY),
            row[REASON],
        )
        for example, answer, row in zip(examples[:SHOWN], answers, rows, strict=False)
    ]
    return ActiveLabellingAudit(
        source=pool.source,
        method=method,
        pool=pool.read,
        same_as_labelled=pool.same_as_labelled,
        repeated=pool.repeated,
        asked=pool.asked,
        chosen=len(chosen),
        file=FILE,
        shown=tuple(shown),
        predicted=dict(Counter(itertools.chain(*answers)).most_common()) if predictor.labels else {},
    )


def _disagreement(trainer: PartTrainer, examples: Sequence[Example]) -> Floats:
    """Return the standard deviation, N x 1, of the numbers that models give which learned from other draws of rows.

    Query by committee (Seung, Opper and Sompolinsky 1992), for numbers as in Burbidge, Rowland and King 2007.
    """
    train, generator = trainer.splits.train, np.random.default_rng(trainer.recipe.seed)
    numbers = []
    for _ in track(range(COMMITTEE), "committee"):
        drawn = sorted(generator.integers(len(train), size=len(train)).tolist())
        with silence():
            numbers.append([each.value for each in trainer.train([train[n] for n in drawn]).predict(examples)])
    return np.asarray(np.std(numbers, axis=0)[:, None], dtype=np.float64)


def errors_of(labels: Sequence[str], predictions: Sequence[Any]) -> Floats:
    """Return the probability of each label, minus 1 where it is predicted: N x K."""
    classification.check_probabilities(predictions, "choose rows to label")
    errors_NK = np.array([prediction.probabilities for prediction in predictions], dtype=np.float64)
    return errors_NK - indicators([[a for a in _answers(each) if a in labels] for each in predictions], labels)


def _answers(prediction: Any) -> tuple[str, ...]:
    """Return the predicted label, labels or number in words."""
    if isinstance(prediction, ValuePrediction):
        return (quantity(prediction.value),)
    return prediction.labels if isinstance(prediction, MultilabelPrediction) else (prediction.label,)


def _added(target: Target, prediction: Any, error_K: Floats) -> dict[str, Any]:
    """Return the columns that are added to a row."""
    if isinstance(prediction, ValuePrediction):
        return {prediction_stream.VALUE: prediction.value, REASON: f"models differ by {quantity(float(error_K[0]))}"}
    labels, probabilities = target.labels, prediction.probabilities
    if isinstance(prediction, MultilabelPrediction):
        assert isinstance(target, MultiLabel)
        unsure = int(np.abs(error_K).argmax())
        said = f"not sure of {labels[unsure]} ({probabilities[unsure]:.2f})"
        certainty = target.certainty(prediction)
        return {
            prediction_stream.LABELS: list(prediction.labels),
            prediction_stream.PROBABILITY: certainty,
            REASON: said,
        }
    best, second = sorted(range(len(labels)), key=lambda k: -probabilities[k])[:2]
    said = f"between {labels[best]} ({probabilities[best]:.2f}) and {labels[second]} ({probabilities[second]:.2f})"
    if probabilities[best] - probabilities[second] > CLEAR:
        said = f"unlike the rows chosen before; {labels[best]} ({probabilities[best]:.2f})"
    probability = classification.probability(prediction, labels)
    return {prediction_stream.LABEL: prediction.label, prediction_stream.PROBABILITY: probability, REASON: said}
