"""What a trained model is held to, by task: predict the held-out rows, store what was said, and score it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tunesmith import hardware
from tunesmith.evaluation import metrics, responses
from tunesmith.pipeline import reporting
from tunesmith.pipeline.job import Job
from tunesmith.types import Example, Fitted

Outcome = Callable[[Job, Fitted, hardware.Stopwatch], dict[str, Any]]
"""Writes predictions and scores.json into the run; gives what the manifest keeps: `validation` and `predicted`."""


def classification(job: Job, fitted: Fitted, watch: hardware.Stopwatch) -> dict[str, Any]:
    """Labels of the validation and the test rows. The test split is looked at here and nowhere else."""
    recipe, splits, run = job.recipe, job.splits, job.run
    validation = None
    if splits.validation:
        predictions = fitted.predictor.predict(splits.validation)
        gold = _gold(splits.validation)
        run.write_predictions("validation", predictions, gold)
        validation = metrics.headline(gold, predictions, splits.labels)
    with watch.time("predict"):
        predictions = fitted.predictor.predict(splits.test)
    gold = _gold(splits.test)
    run.write_predictions("test", predictions, gold)
    if splits.test:
        run.write("scores.json", metrics.score(gold, predictions, splits.labels, recipe.evaluate, recipe.seed))
    run.write("worst.json", {"worst": reporting.worst(splits.test, predictions)})
    return {"validation": validation, "predicted": len(splits.test)}


def instruction(job: Job, fitted: Fitted, watch: hardware.Stopwatch) -> dict[str, Any]:
    """The loss of the validation and test answers, and the model's own answers to the test prompts."""
    recipe, splits, run = job.recipe, job.splits, job.run
    generator: Any = fitted.predictor
    asked = splits.test[: recipe.evaluate.max_responses]
    with watch.time("predict"):
        questions = [row.messages[:-1] for row in asked]
        answers = generator.respond([row.id for row in asked], questions, recipe.generate, recipe.seed)
    rows = [_answer(row, loss) for row, loss in zip(splits.test, _losses(generator, splits.test), strict=True)]
    for row, answer in zip(rows, answers, strict=False):
        row |= {"response": answer.text, "tokens": answer.tokens, "ended": answer.ended}
    run.write_rows("test", rows)
    if rows:
        run.write("scores.json", responses.score(rows, recipe.evaluate, recipe.seed))
    held_out = _losses(generator, splits.validation)
    validation = {"loss": responses.mean_loss(held_out)} if held_out else None
    return {"validation": validation, "predicted": len(asked)}


def _losses(generator: Any, examples: Sequence[Example]) -> list[tuple[float, int]]:
    from tunesmith.prediction import likelihood  # needs torch, which a linear model is trained without

    return likelihood.losses(generator, [row.id for row in examples], [row.messages for row in examples])


def _answer(row: Example, loss: tuple[float, int]) -> dict[str, Any]:
    reference = row.messages[-1].content
    return {"id": row.id, "prompt": row.text, "reference": reference, "loss": loss[0], "learned": loss[1]}


def _gold(examples: Sequence[Example]) -> list[str]:
    return [str(example.label) for example in examples]


OUTCOMES: dict[str, Outcome] = {"classification": classification, "instruction": instruction}
