"""Predicting the held-out rows of a run whose texts have labels or numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from tunesmith import hardware, processes
from tunesmith.console import say, warn
from tunesmith.pipeline.fitting import methods
from tunesmith.pipeline.fitting.job import Job, Outcome
from tunesmith.protocols import TextPredictor, TrainResult
from tunesmith.reporting.format import counted, figure, in_a_sentence
from tunesmith.runs import Run
from tunesmith.types import Example

MOST_TRAIN_ROWS = 1000
"""Training rows that are predicted for the report: enough to see over-fitting, whatever a prediction costs."""
DECISION = "decision.json"
Row = TypeVar("Row")
Rows = list[Any]
"""Predictions beside what the data has, of the task's own type."""


def evaluate(
    job: Job, result: TrainResult, watch: hardware.Stopwatch, illustrate: Callable[[Job, Rows, Rows], None]
) -> Outcome:
    """Predict the validation and the test rows. The test split is used here and nowhere else.

    At most MOST_TRAIN_ROWS training rows are predicted too, so that over-fitting shows. illustrate: writes examples
    for the report, from the rows of validation and test; called in the first process only.
    """
    splits, run = job.splits, job.run
    if result.is_saved and result.validation and _has_validation(run):  # written beside the weights
        held_out = run.predictions("validation", job.target.row) if processes.is_main() else []
    elif held_out := predict(result.text_predictor, splits.validation) if needs_validation(job) else []:
        run.write_predictions("validation", held_out)
    with watch.time("predict"):
        rows = predict(result.text_predictor, splits.test)
    run.write_predictions("test", rows)
    if processes.is_main():
        with processes.sharing(False):
            illustrate(job, held_out, rows)
    validation = job.headline(held_out) if held_out else None
    if not rows:
        return Outcome(validation, 0)
    if methods.find(job.recipe).is_charged:  # nothing was trained that could over-fit
        return Outcome(validation, len(rows))
    seen = predict(result.text_predictor, drawn(splits.train, MOST_TRAIN_ROWS, job.recipe.seed))
    train = job.headline(seen)
    known = {f"train ({counted(len(seen), 'row')})": train, "validation": validation}
    known["test"] = job.headline(rows)
    name = next(iter(train))
    shown = [f"{split} {figure(name, scores[name])}" for split, scores in known.items() if scores]
    say(f"{in_a_sentence(name)}: {', '.join(shown)}")
    return Outcome(validation, len(rows), train)


def _has_validation(run: Run) -> bool:
    """Return whether the run has predictions of the validation split, as the first process sees its folder."""
    (known,) = processes.share(["predictions/validation.jsonl"], lambda names: [run.has(name) for name in names])
    return known


def needs_validation(job: Job) -> bool:
    """Return whether validation rows are predicted: where predictions cost money, only if something depends on it."""
    return job.recipe.decide.is_set or not (methods.find(job.recipe).is_charged and job.splits.test)


def chosen(rows: Sequence[Row], places: Sequence[int] | None) -> list[Row]:
    """Return the rows at these places, from 0; all where there are none given."""
    return list(rows) if places is None else [rows[place] for place in places]


def drawn(rows: Sequence[Row], most: int, seed: int) -> list[Row]:
    """Return at most so many rows, drawn with the seed, in their order."""
    places = np.random.default_rng(seed).permutation(len(rows))[:most]
    return [rows[place] for place in sorted(places.tolist())]


def decide(job: Job, result: TrainResult) -> TrainResult:
    """Return the result with what its target chooses by the validation rows, such as thresholds; not yet saved."""
    recipe, examples = job.recipe, job.splits.validation
    settings = recipe.decide
    if not (job.target.decides(settings) and recipe.gives_probabilities):
        return result
    if methods.find(recipe).is_charged and not settings.is_set:
        return result
    if not examples:
        if settings.is_set:
            warn("nothing is decided: there is no validation split to choose calibration or thresholds on")
        return result
    trained: Any = result.text_predictor
    predictor = replace(trained, target=job.target)  # without what an interrupted run has chosen
    rows = predict(predictor, examples)
    if without := sum(not row.probabilities for row in rows):
        warn(f"nothing is decided: {without:,} of {len(rows):,} predictions of validation rows have no probabilities")
        return result
    target, fit = job.target.decide(rows, settings, job.recipe.seed)
    if fit is not None:
        job.run.write(DECISION, fit)
        for remark in fit.remarks:
            warn(remark)
    return replace(result, predictor=replace(predictor, target=target), is_saved=False, validation=None)


def predict(predictor: TextPredictor, examples: Sequence[Example]) -> Rows:
    """Return the prediction for each example, beside what the data has."""
    return predictor.target.rows(examples, predictor.predict(examples)) if examples else []
