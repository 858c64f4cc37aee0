"""Training by gradient, whatever the method: a model, its rows and its loss go through the one loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from accelerate import Accelerator
from torch import nn

from tunesmith.console import say
from tunesmith.data.batches import Sampler
from tunesmith.evaluation import metrics, responses
from tunesmith.models import adapters, onednn_linear, pretrained
from tunesmith.pipeline.fitting.job import Job
from tunesmith.pipeline.fitting.session import Session, accelerated
from tunesmith.protocols import TrainResult
from tunesmith.recipe import Recipe
from tunesmith.training import compilation, loop, sharding, zero
from tunesmith.training.losses import Loss


class TrainingBatches(loop.Batches[Any], Protocol):
    """Micro-batches of the examples that a sampler draws."""

    @property
    def sampler(self) -> Sampler: ...


@dataclass(frozen=True)
class TrainingSetup:
    """What a method brings to the loop."""

    model: nn.Module
    feed: TrainingBatches
    loss: Loss[Any]
    evaluate: Callable[[int], loop.Scores]
    """Scores of the validation split, given the steps done."""
    result: Any
    """The predictor or generator around the model, as it learns."""
    reload: Callable[[Path], Any]
    """The same from a folder that it was saved in."""
    notes: dict[str, Any] = field(default_factory=dict)


def fit(job: Job, prepare: Callable[[Job, Accelerator], TrainingSetup]) -> TrainResult:
    """Train as the recipe says; `model/` of the run holds the best weights so far at any time."""
    recipe = job.recipe
    with accelerated(job) as accelerator:
        tuning = prepare(job, accelerator)
        model, sampler = tuning.model, tuning.feed.sampler
        course = _course(recipe, sampler.steps_per_epoch, bool(job.splits.validation))
        parameters, trainable = adapters.count(model)
        say(f"{adapters.describe(model)} on {accelerator.device}")
        _lay_out(model, recipe, course, accelerator)
        state = loop.begin(model, recipe.train, course, accelerator)
        session = Session(job, accelerator, course, sampler.steps_per_epoch, tuning.result.save)
        session.resume(state)
        steps = loop.steps(
            state,
            tuning.feed,
            tuning.loss,
            recipe.train,
            accelerator,
            course,
            lambda: tuning.evaluate(state.step),
            recipe.seed,
        )
        with onednn_linear.fast(_products(job)):
            session.follow(steps, state)
        sharding.gather(model)
        zero.release(state.wrapped)
        accelerator.wait_for_everyone()
        result = tuning.result
        if session.best_step not in (None, state.step):
            result = tuning.reload(job.run.model)
        accelerator.wait_for_everyone()  # the first process goes on to write where the others have just read
    notes = {
        "device": str(accelerator.device),
        "processes": accelerator.num_processes,
        "sharded": sharding.is_sharded(model) or zero.is_engine(state.wrapped),
        "mixed_precision": accelerator.mixed_precision,
        "steps": state.step,
        "best_step": session.best_step,
        "skipped": state.skipped,
        "earlier_seconds": session.earlier,
        **tuning.notes,
    }
    return TrainResult(result, parameters, trainable, notes)


def step_size(job: Job, accelerator: Accelerator) -> int:
    """Examples of an optimizer step, as Hugging Face counts them; a resumed run keeps its own."""
    train = job.recipe.train
    size = train.per_device_train_batch_size * train.gradient_accumulation_steps * accelerator.num_processes
    known = int(job.settled("step_size", lambda: size))
    if known != size:
        say(f"note: this run learns from {known} examples a step, shared by {accelerator.num_processes} process(es)")
    return known


def _products(job: Job) -> bool:
    """Whether to multiply by oneDNN; a resumed run keeps what it began with, to end with the same bits."""
    return bool(job.settled("fast_products", lambda: not job.recipe.engine.compile and onednn_linear.are_faster()))


def _lay_out(model: nn.Module, recipe: Recipe, course: loop.TrainingPlan, accelerator: Accelerator) -> None:
    """What changes how a model computes, and nothing that it computes."""
    if recipe.engine.gradient_checkpointing:
        pretrained.checkpoint_activations(model)
    causal = recipe.method == "generator"
    pays, why = compilation.pays(recipe.engine.compile, course.num_steps, accelerator.device, causal=causal)
    if sharding.asked_for() or zero.asked_for():
        pays, why = False, "not compiled: the training is sharded"
    if recipe.engine.compile:
        say(why)
    if pays:
        compilation.compile_layers(model)


def _course(recipe: Recipe, steps_per_epoch: int, has_validation: bool) -> loop.TrainingPlan:
    settings = recipe.evaluate
    if not has_validation:
        settings = settings.model_copy(update={"eval_strategy": "no"})
    if settings.eval_strategy == "no":
        patience = " and evaluate.early_stopping_patience does nothing" if settings.early_stopping_patience else ""
        say(f"note: nothing is evaluated during training, so the last weights are kept{patience}")
    higher = (metrics.HIGHER_IS_BETTER | responses.HIGHER_IS_BETTER)[settings.metric_for_best_model]
    return loop.TrainingPlan.plan(steps_per_epoch, recipe.train, settings, higher)
