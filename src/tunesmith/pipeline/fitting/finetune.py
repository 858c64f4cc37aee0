"""Training by gradient, whatever the method: a model, its rows and its loss go through the one loop."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from accelerate import Accelerator
from torch import nn

from tunesmith import extensions, hardware, processes, records
from tunesmith.console import say
from tunesmith.data import example_table, summary
from tunesmith.data.batches import BalancedSampler, Sampler, Tokenized
from tunesmith.data.shuffled_stream import ShuffledStream
from tunesmith.manifest import TrainingNotes
from tunesmith.models import adapters, onednn_linear, pretrained
from tunesmith.pipeline import custom_metrics
from tunesmith.pipeline.fitting.job import Job
from tunesmith.pipeline.fitting.session import Session, accelerated
from tunesmith.protocols import Predictor, TrainResult
from tunesmith.recipe import Recipe
from tunesmith.training import compilation, loop, neftune, sharding, zero
from tunesmith.training.losses import Loss
from tunesmith.types import Example


class TrainingBatches(loop.Batches[Any], Protocol):
    """Micro-batches of the examples that a sampler draws."""

    @property
    def sampler(self) -> Sampler: ...


@dataclass(frozen=True)
class TrainingSetup:
    """What a method brings to the loop."""

    model: nn.Module
    micro_batches: TrainingBatches
    loss: Loss[Any]
    evaluate: Callable[[int], loop.Scores]
    """Scores of the validation split, given the steps done."""
    predictor: Callable[[], Predictor]
    """Returns the one around the model as it learns."""
    reload: Callable[[Path], Predictor]
    """Loads the predictor from a folder that it was saved in."""
    notes: TrainingNotes = field(default_factory=TrainingNotes)
    evaluates_all: bool = False
    """Whether `evaluate` scores every row, uncut: what a finished run says of its validation split."""
    write_best: Callable[[], None] | None = None
    """Writes what an evaluation predicted, of the best weights so far."""
    max_steps: int | None = None
    """Steps after which training ends, whatever the recipe's epochs."""
    is_causal: bool = False
    """Whether the model is a causal language model, whose compiled layers pay earlier."""
    stream: ShuffledStream | None = None
    """What the micro-batches are of, where that is a stream."""

    def save(self, folder: Path) -> None:
        """Write the predictor around the model as it is."""
        self.predictor().save(folder)


def fit(job: Job, prepare: Callable[[Job, Accelerator], TrainingSetup]) -> TrainResult:
    """Train as the recipe says; `model/` of the run holds the best weights so far at any time."""
    recipe = job.recipe
    callbacks = [extensions.load(name, "train.callbacks")() for name in recipe.train.callbacks]
    with accelerated(job) as accelerator:
        with processes.loading(), onednn_linear.enabled():
            setup = prepare(job, accelerator)
        model, sampler = setup.model, setup.micro_batches.sampler
        plan = _plan(job, sampler.steps_per_epoch, setup.max_steps)
        parameters, trainable = adapters.count(model)
        device = f"{accelerator.device} ({hardware.device_name(str(accelerator.device))})"
        precision = f"{setup.notes.dtype} weights, mixed precision {accelerator.mixed_precision}"
        say(f"{adapters.describe(model)} on {device}; {precision}")
        _configure(setup, job, plan, accelerator)
        # a resumed run keeps the library that it began with, to end with the same bits
        setting = "mkl" if recipe.engine.compile else recipe.engine.matmul_backend
        backend = job.decide_once("matmul_backend", lambda: records.dump(onednn_linear.decide(setting)))
        onednn = backend["value"]["backend"] == "onednn"
        state = loop.begin(model, recipe.train, plan, accelerator)
        session = Session(
            job, accelerator, plan, sampler.steps_per_epoch, setup.save, callbacks, setup.write_best, setup.stream
        )
        session.resume(state)
        steps = loop.steps(
            state,
            setup.micro_batches,
            setup.loss,
            recipe.train,
            accelerator,
            plan,
            lambda: setup.evaluate(state.step),
            recipe.seed,
        )
        noise = neftune.noise(model, recipe.train.neftune_noise_alpha)
        with processes.keeping_freed_memory(), onednn_linear.enabled(onednn), noise:
            session.follow(steps, state)
        sharding.gather(model)
        zero.release(state.wrapped)
        accelerator.wait_for_everyone()
        is_best = session.best_step in (None, state.step)
        with processes.sharing():
            predictor = setup.predictor() if is_best else setup.reload(job.run.model)
        accelerator.wait_for_everyone()  # the first process goes on to write where the others have just read
    notes = replace(
        setup.notes,
        device=str(accelerator.device),
        processes=accelerator.num_processes,
        sharded=sharding.is_sharded(model) or zero.is_engine(state.wrapped),
        mixed_precision=accelerator.mixed_precision,
        steps=state.step,
        best_step=session.best_step,
        skipped=state.skipped,
    )
    notes = notes if setup.stream is None else _with_stream(notes, setup.stream)
    known = session.validation(session.best_step or state.step) if setup.evaluates_all and processes.is_main() else None
    validation = json.loads(processes.agree(json.dumps(known)))
    is_saved = session.best_step is not None  # written when it was found to be the best
    return TrainResult(predictor, parameters, trainable, notes, session.earlier_seconds, is_saved, validation)


def _with_stream(notes: TrainingNotes, stream: ShuffledStream) -> TrainingNotes:
    """Say what was read of a stream, and return the notes with it."""
    for line in summary.lines(stream.notes):
        say(f"stream: {line}")
    return replace(notes.with_cut(stream.cut), streamed=stream.learned)


def sample(examples: Sequence[Example], recipe: Recipe) -> Sequence[Example]:
    """Return the examples for evaluations during training: all, or `evaluate.eval_batches` drawn with the seed."""
    size = (recipe.evaluate.eval_batches or len(examples)) * recipe.train.per_device_train_batch_size
    if size >= len(examples):
        return examples
    drawn = np.random.Generator(np.random.PCG64(recipe.seed)).permutation(len(examples))[:size]
    return example_table.take(examples, sorted(drawn.tolist()))


class HeldOutEvaluation:
    """Scores a predictor during training: metrics of validation rows, and perhaps one of training rows."""

    def __init__(self, job: Job, predict: Callable[[Sequence[Example]], list[Any]]) -> None:
        self.job, self.predict = job, predict
        self.held_out = sample(job.splits.validation, job.recipe)
        self.is_whole = len(self.held_out) == len(job.splits.validation) > 0
        self.learned = sample(job.splits.train, job.recipe) if job.recipe.evaluate.eval_batches else []
        self.custom = custom_metrics.load(job.recipe)
        self.rows: list[Any] = []
        """Predictions of the validation rows, by the newest evaluation."""

    def __call__(self, step: int) -> loop.Scores:
        scores, self.rows = self._headline(self.held_out)
        name, metric = self.job.metrics.of_training
        if not self.learned or metric not in scores:  # without probabilities, there is no log loss
            return scores
        return scores | {name: self._headline(self.learned)[0][metric]}

    def write(self) -> None:
        """Write the predictions of the newest evaluation, if it was of every row, for the end of the training."""
        if self.is_whole:
            self.job.run.write_predictions("validation", self.rows)

    def _headline(self, examples: Sequence[Example]) -> tuple[dict[str, float], list[Any]]:
        rows = self.job.target.rows(examples, self.predict(examples))
        scores = self.job.headline(rows)
        return scores | custom_metrics.score(self.custom, rows), rows


def make_sampler(job: Job, accelerator: Accelerator, rows: Sequence[Tokenized]) -> Sampler:
    """Return what draws the examples of each step. rows: the training rows, without those that do not fit."""
    size, seed = step_size(job, accelerator), job.recipe.seed
    if job.recipe.train.sampling == "shuffled":
        return Sampler(len(rows), size, seed)
    by_id = {example.id: str(example.label) for example in job.splits.train}
    labels = [by_id[row.id] for row in rows]
    counts = Counter(labels)
    rarest, most_frequent = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    rarely, often = (len(rows) / len(counts) / counts[label] for label in (most_frequent, rarest))
    say(
        f"balanced sampling: a row of {rarest} is drawn {often:.2g} times an epoch, one of {most_frequent} {rarely:.2g}"
    )
    return BalancedSampler(len(rows), size, seed, labels)


def step_size(job: Job, accelerator: Accelerator) -> int:
    """Return the examples of an optimizer step, as Hugging Face counts them; a resumed run keeps its own."""
    train = job.recipe.train
    size = train.per_device_train_batch_size * train.gradient_accumulation_steps * accelerator.num_processes
    known = int(job.decide_once("step_size", lambda: size))
    if known != size:
        say(f"note: this run learns from {known} examples per step, shared by {accelerator.num_processes} process(es)")
    return known


def _configure(setup: TrainingSetup, job: Job, plan: loop.TrainingPlan, accelerator: Accelerator) -> None:
    """Set up recomputation and compilation, which change the cost of a step and its result by rounding at most."""
    engine, device = job.recipe.engine, accelerator.device
    if engine.gradient_checkpointing:
        pretrained.checkpoint_activations(setup.model)
    pays, why = False, ""
    if engine.compile:
        pays, why = job.decide_once(
            "compile", lambda: compilation.decide(engine.compile, plan.num_steps, device, causal=setup.is_causal)
        )
    if sharding.asked_for() or zero.asked_for():
        pays, why = False, "not compiled: the training is sharded"
    if engine.compile:
        say(why)
    if pays:
        compilation.require_compiler(device)  # a resumed run may be on another machine
        compilation.compile_layers(setup.model)


def _plan(job: Job, steps_per_epoch: int, max_steps: int | None) -> loop.TrainingPlan:
    settings = job.recipe.evaluate
    if not job.splits.validation:
        settings = settings.model_copy(update={"eval_strategy": "no"})
    if job.splits.is_stream and settings.eval_strategy == "epoch":
        say("note: a stream has no epochs: only the last step is evaluated, unless evaluate.eval_strategy=steps")
    if job.splits.is_stream and job.recipe.engine.save_strategy == "epoch":
        say("note: a stream has no epochs: no checkpoint is saved, unless engine.save_strategy=steps")
    if settings.eval_strategy == "no":
        patience = " and evaluate.early_stopping_patience does nothing" if settings.early_stopping_patience else ""
        say(f"note: nothing is evaluated during training, so the last weights are kept{patience}")
    metric, higher = custom_metrics.deciding(job.recipe, job.metrics.higher_is_better)
    settings = settings.model_copy(update={"metric_for_best_model": metric})
    plan = loop.TrainingPlan.from_settings(steps_per_epoch, job.recipe.train, settings, higher)
    return replace(plan, num_steps=min(plan.num_steps, max_steps or plan.num_steps))
