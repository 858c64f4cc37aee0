"""The model as it was before training, on the same test rows, as a baseline for the trained one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from tunesmith import hardware, records
from tunesmith.console import say
from tunesmith.evaluation import response_pairs, responses
from tunesmith.evaluation.response_pairs import ResponsePair
from tunesmith.evaluation.responses import GenerationScores
from tunesmith.pipeline import generated_responses
from tunesmith.pipeline.confidence import confidence_of
from tunesmith.pipeline.fitting.job import Job
from tunesmith.protocols import TextGenerator
from tunesmith.recipe import Recipe
from tunesmith.records import omitted_if_none
from tunesmith.runs import Run
from tunesmith.types import ResponseRow

Scores = TypeVar("Scores", bound=GenerationScores)
SPLIT = "base"
"""Its answers are in predictions/base.jsonl."""
NAME = "base"
"""Its name in comparisons with the trained model."""


def answer(job: Job, generator: TextGenerator, learned: bool, watch: hardware.Stopwatch) -> None:
    """Let the base model answer the test prompts, and store its answers beside the run's own.

    `generator` cannot be used afterwards. An adapter is disabled; fully trained weights are freed before the original
    ones are loaded.
    """
    recipe = job.recipe
    if not recipe.evaluate.base or not job.splits.test:
        return
    reason = None
    if not learned:
        reason = "this one was not trained"
    elif recipe.model.from_config is not None and recipe.model.state_dict is None:
        reason = "this one began with random weights"
    if reason:
        say(f"no base model to compare with: {reason}")
        return
    say("the base model answers the same prompts (evaluate.base=false leaves that out)")
    with watch.time("base"), _before_training(job, generator) as before:
        job.run.write_predictions(SPLIT, generated_responses.response_rows(before, job.splits.test, recipe))


@dataclass(frozen=True, slots=True)
class BaseScores(GenerationScores):
    """The scores of the model before training."""

    pair: ResponsePair
    """The tests of the run against it."""


@dataclass(frozen=True, slots=True)
class RunScores(GenerationScores):
    """scores.json of an instruction run."""

    base: BaseScores | None = omitted_if_none()


def score(run: Run, split: str = "test", places: Sequence[int] | None = None) -> RunScores:
    """Return the scores of a run's responses, and of its base model where that answered too.

    places: the rows to score, from 0; by default all.
    """
    confidence = confidence_of(run.recipe)
    rows, base, before = run.predictions(split, ResponseRow), None, stored(run)
    if places is not None:
        rows, before = [rows[place] for place in places], [before[place] for place in places if before]
    if before:
        _, (pair,) = response_pairs.compare({run.manifest.name: rows, NAME: before}, confidence)
        base = _extended(BaseScores, responses.score(before, confidence), pair=pair)
    return _extended(RunScores, responses.score(rows, confidence), base=base)


def _extended(kind: Callable[..., Scores], scores: GenerationScores, **more: object) -> Scores:
    return kind(**records.fields_of(GenerationScores, scores), **more)


def stored(run: Run) -> list[ResponseRow]:
    """Return the base model's answers in a run; empty if it was not asked."""
    return run.predictions(SPLIT, ResponseRow) if run.has(f"predictions/{SPLIT}.jsonl") else []


def unless_asked(recipe: Recipe) -> Recipe:
    """Return a recipe without the base model, for runs of a comparison, unless it sets `evaluate.base` itself."""
    if "base" in recipe.evaluate.model_fields_set:
        return recipe
    return recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update={"base": False})})


@contextmanager
def _before_training(job: Job, generator: TextGenerator) -> Iterator[TextGenerator]:
    from tunesmith.models import adapters, pretrained, segment_attention
    from tunesmith.pipeline.fitting import generators
    from tunesmith.prediction.generate import Generator

    if not isinstance(generator, Generator):
        raise TypeError(f"{type(generator).__name__} has no base model")
    if adapters.has_adapter(generator.model):
        with adapters.disabled(generator.model):
            yield generator
        return
    tuned: Any = generator.model
    pretrained.release(tuned)
    before = generators.untuned(job, generator.chat_encoder).generator
    assert isinstance(before, Generator)
    before.model.to(tuned.dtype)
    if generator.packs_up_to:  # as it was when the packing of its rows was tried
        segment_attention.set_attention(before.model, tuned.config._attn_implementation)
        before = replace(before, packs_up_to=generator.packs_up_to)
    yield before
