"""Predicting the held-out rows of a run whose texts have labels or numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tunesmith import hardware
from tunesmith.console import say
from tunesmith.pipeline.fitting.job import Job, Outcome
from tunesmith.protocols import TextPredictor, TrainResult
from tunesmith.reporting.format import NAMES, QUANTITIES, counted, figure
from tunesmith.types import Example

MOST_TRAIN_ROWS = 1000
"""Training rows that are predicted for the report: enough to see over-fitting, whatever a prediction costs."""
Rows = list[Any]
"""Predictions beside what the data has, of the task's own type."""


def evaluate(
    job: Job, result: TrainResult, watch: hardware.Stopwatch, illustrate: Callable[[Job, Rows, Rows], None]
) -> Outcome:
    """Predict the validation and the test rows. The test split is used here and nowhere else.

    At most MOST_TRAIN_ROWS training rows are predicted too, so that over-fitting shows. illustrate: writes examples
    for the report, from the rows of validation and test.
    """
    splits, run = job.splits, job.run
    if result.is_saved and result.validation and run.has("predictions/validation.jsonl"):  # written beside the weights
        held_out = run.predictions("validation", job.target.row)
    elif held_out := predict(result.text_predictor, splits.validation):
        run.write_predictions("validation", held_out)
    with watch.time("predict"):
        rows = predict(result.text_predictor, splits.test)
    run.write_predictions("test", rows)
    illustrate(job, held_out, rows)
    validation = job.metrics.headline(held_out, splits.labels) if held_out else None
    if not rows:
        return Outcome(validation, 0)
    drawn = np.random.default_rng(job.recipe.seed).permutation(len(splits.train))[:MOST_TRAIN_ROWS]
    seen = predict(result.text_predictor, [splits.train[place] for place in sorted(drawn.tolist())])
    train = job.metrics.headline(seen, splits.labels)
    known = {f"train ({counted(len(seen), 'row')})": train, "validation": validation}
    known["test"] = job.metrics.headline(rows, splits.labels)
    name = next(iter(train))
    shown = [f"{split} {figure(name, scores[name])}" for split, scores in known.items() if scores]
    say(f"{NAMES[name] if name in QUANTITIES else NAMES[name].lower()}: {', '.join(shown)}")
    return Outcome(validation, len(rows), train)


def predict(predictor: TextPredictor, examples: Sequence[Example]) -> Rows:
    """Return the prediction for each example, beside what the data has."""
    return predictor.target.rows(examples, predictor.predict(examples)) if examples else []
