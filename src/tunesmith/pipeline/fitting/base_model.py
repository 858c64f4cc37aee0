"""The model as it was before training, on the same test rows: what tuning is held against."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tunesmith import hardware
from tunesmith.console import say
from tunesmith.evaluation import response_pairs, responses
from tunesmith.pipeline import generated_responses
from tunesmith.pipeline.confidence import confidence_of
from tunesmith.pipeline.fitting.job import Job
from tunesmith.recipe import Recipe
from tunesmith.runs import Run
from tunesmith.types import ResponseRow

SPLIT = "base"
"""Its answers lie in predictions/base.jsonl."""
NAME = "base"
"""What it is called beside the model that was made of it."""


def answer(job: Job, generator: Any, learned: bool, watch: hardware.Stopwatch) -> None:
    """Let it answer the test prompts, and store that beside the run's own answers. `generator` is spent afterwards.

    An adapter is switched off; weights that were all trained are given back before those from before are loaded.
    """
    recipe = job.recipe
    if not recipe.evaluate.base or not job.splits.test:
        return
    if reason := _nothing_before(recipe, learned):
        say(f"no base model to compare with: {reason}")
        return
    say("the base model answers the same prompts (evaluate.base=false leaves that out)")
    with watch.time("base"), _before_training(job, generator) as before:
        job.run.write_responses(SPLIT, generated_responses.response_rows(before, job.splits.test, recipe))


def score(run: Run) -> dict[str, Any]:
    """The scores of a run's answers; under `base` those of the base model, with the `pair`'s tests (run - base)."""
    recipe, rows = run.recipe, run.responses("test")
    confidence = confidence_of(recipe)
    scores = responses.score(rows, confidence)
    if before := stored(run):
        (pair,) = response_pairs.compare({run.manifest.name: rows, NAME: before}, confidence)["pairs"]
        scores["base"] = responses.score(before, confidence) | {"pair": pair}
    return scores


def stored(run: Run) -> list[ResponseRow]:
    """The base model's answers in a run; none where it was not asked."""
    return run.responses(SPLIT) if (run.path / "predictions" / f"{SPLIT}.jsonl").exists() else []


def unless_asked(recipe: Recipe) -> Recipe:
    """A recipe without it, for runs that are compared anyway; as it is where the recipe sets `evaluate.base`."""
    if "base" in recipe.evaluate.model_fields_set:
        return recipe
    return recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update={"base": False})})


def _nothing_before(recipe: Recipe, learned: bool) -> str | None:
    if not learned:
        return "this one was not trained"
    if recipe.model.from_config is not None and recipe.model.state_dict is None:
        return "this one began with random weights"
    return None


@contextmanager
def _before_training(job: Job, generator: Any) -> Iterator[Any]:
    from tunesmith.models import adapters, pretrained
    from tunesmith.pipeline.fitting import generators

    if adapters.has_adapter(generator.model):
        with adapters.disabled(generator.model):
            yield generator
        return
    dtype = generator.model.dtype
    pretrained.release(generator.model)
    before: Any = generators.untuned(job).predictor
    before.model.to(dtype)
    yield before
