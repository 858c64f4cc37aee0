"""The one training loop: a generator of steps without I/O. Saving, logging and showing belong to its consumer.

What a step learns from is a function of (seed, epoch, step), and its dropout of (seed, step, process): a run that goes
on from a `TrainState` draws what the uninterrupted run would have drawn.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from tunesmith.console import warn
from tunesmith.errors import TrainingError
from tunesmith.recipe import Evaluate, Train
from tunesmith.training import optim, sharding, zero
from tunesmith.training.losses import AnyBatch, Loss

Scores = Mapping[str, float]
Kind = TypeVar("Kind", bound=AnyBatch)
Given = TypeVar("Given", bound=AnyBatch, covariant=True)


@dataclass(frozen=True, slots=True)
class Step:
    """One optimizer step, as it was."""

    number: int
    """Steps done, this one included."""
    loss: float
    """Mean over the step's examples (or tokens), all processes together."""
    grad_norm: float
    """Before clipping."""
    learning_rate: float
    skipped: bool = False
    """Nothing in the step could be learned: no label in it, or a gradient beyond fp16; the weights stayed."""
    scores: Scores | None = None
    """Of the validation split, where this step was followed by an evaluation."""
    is_best: bool = False
    """The scores are the best so far."""


@dataclass(frozen=True)
class TrainingPlan:
    """How long to train, when to look up, and what counts as better."""

    num_steps: int
    eval_every: int | None
    """Steps between evaluations, the last step included; None for never."""
    metric: str
    higher_is_better: bool
    patience: int | None
    """Evaluations without a better one after which training stops."""

    @classmethod
    def plan(cls, steps_per_epoch: int, train: Train, evaluate: Evaluate, higher_is_better: bool) -> TrainingPlan:
        num_steps = train.max_steps or max(1, round(train.num_train_epochs * steps_per_epoch))
        every = {"epoch": steps_per_epoch, "steps": evaluate.eval_steps, "no": None}[evaluate.eval_strategy]
        return cls(num_steps, every, evaluate.metric_for_best_model, higher_is_better, evaluate.early_stopping_patience)

    def evaluates(self, number: int) -> bool:
        return self.eval_every is not None and (number % self.eval_every == 0 or number == self.num_steps)

    def patient_no_more(self, age: int) -> bool:
        """True after so many evaluations without a better one that training stops early."""
        return self.patience is not None and age >= self.patience

    def better(self, scores: Scores, best: float | None) -> bool:
        value = scores[self.metric]
        return best is None or (value > best if self.higher_is_better else value < best)


@dataclass
class TrainState:
    """Everything that changes while training."""

    model: nn.Module
    wrapped: nn.Module
    """The model as it is called: itself, or within what shares it among processes."""
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LambdaLR
    scaler: torch.amp.GradScaler | None = None
    """Of fp16 only."""
    step: int = 0
    """Optimizer steps done."""
    best: float | None = None
    """Best value of the deciding metric so far."""
    age: int = 0
    """Evaluations since then."""
    skipped: int = 0
    """Steps in which nothing could be learned."""


class Batches(Protocol[Given]):
    """Where micro-batches come from."""

    def __call__(self, step: int) -> Sequence[Given]:
        """This process's micro-batches of a step, counted from 0."""
        ...

    def halved(self) -> Batches[Given]:
        """Return the same examples in smaller micro-batches."""
        ...


def begin(model: nn.Module, settings: Train, course: TrainingPlan, accelerator: Accelerator) -> TrainState:
    """The state before the first step: a fresh optimizer and schedule. Raises TrainingError for what cannot train."""
    sharding.check(model, accelerator)
    if sharding.asked_for():
        sharding.shard(model, accelerator.device)
    adamw = optim.adamw(model, settings)
    _check_formats(adamw, accelerator)
    optimizer: torch.optim.Optimizer = adamw
    if zero.asked_for():
        optimizer = zero.ZeroAdamW(model, adamw, settings.max_grad_norm, accelerator.autocast)
        wrapped = optimizer.engine
    else:
        wrapped = model if sharding.is_sharded(model) else _shared(model, accelerator)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, optim.schedule(settings, course.num_steps))
    return TrainState(model, wrapped, optimizer, scheduler, accelerator.scaler)


def _shared(model: nn.Module, accelerator: Accelerator) -> nn.Module:
    """The model within what shares it among processes. Its own forward stays as it was, without Accelerate's autocast:
    whole losses are computed in it (`_backward`), and evaluations compute as a reloaded model does."""
    own = vars(model).get("forward")
    wrapped: nn.Module = accelerator.prepare_model(model)
    for name in ("forward", "_original_forward"):
        vars(model).pop(name, None)
    if own is not None:
        vars(model)["forward"] = own
    return wrapped


def _check_formats(optimizer: torch.optim.Optimizer, accelerator: Accelerator) -> None:
    if accelerator.scaler is not None and isinstance(optimizer, optim.MasterAdamW):
        raise TrainingError(
            "engine.mixed_precision=fp16 scales the loss for gradients in float32",
            found="weights of 16 bits",
            do="set model.dtype=float32, or engine.mixed_precision=bf16 or no",
        )


def steps(
    state: TrainState,
    batches: Batches[Kind],
    loss: Loss[Kind],
    settings: Train,
    accelerator: Accelerator,
    course: TrainingPlan,
    evaluate: Callable[[], Scores],
    seed: int = 0,
) -> Iterator[Step]:
    """Train `state.model` in place from `state.step` on, yielding after each step, when `state` is up to date.

    evaluate: scores of the validation split, called in eval mode as `course` says.

    Raises TrainingError before the weights are touched where loss or gradient is not finite.
    """
    optimizer = accelerator.prepare_optimizer(state.optimizer, device_placement=False)  # its state is by the weights
    state.model.train()
    while state.step < course.num_steps and not course.patient_no_more(state.age):
        number = state.step + 1
        _seed(seed, number, accelerator.process_index)
        rate = float(state.optimizer.param_groups[0]["lr"])
        batches, micro, mean = _learn(state.wrapped, batches, state.step, loss, accelerator)
        norm = _clip(state, settings.max_grad_norm, accelerator) if mean is not None else 0.0
        _check_finite(number, mean, norm, micro, accelerator)
        skipped = mean is None
        if not skipped:
            optimizer.step()
            skipped = optimizer.step_was_skipped
        if not skipped:
            state.scheduler.step()
        optimizer.zero_grad()
        state.step, state.skipped = number, state.skipped + skipped
        step = Step(number, mean or 0.0, norm, rate, skipped)
        yield _evaluated(step, state, course, evaluate) if course.evaluates(number) else step


def _seed(seed: int, number: int, process: int) -> None:
    """Dropout is drawn from (seed, step, process): nothing to save, and evaluations cannot shift it."""
    (word,) = np.random.SeedSequence([seed, number, process]).generate_state(1, np.uint64)
    torch.manual_seed(int(word))


def _learn(
    model: nn.Module, batches: Batches[Kind], step: int, loss: Loss[Kind], accelerator: Accelerator
) -> tuple[Batches[Kind], Sequence[Kind], float | None]:
    """Gradients of one step, and its mean loss; with half the tokens in memory, once, where memory runs out."""
    micro = batches(step)
    try:
        return batches, micro, _backward(model, micro, loss, accelerator)
    except torch.OutOfMemoryError:
        if _together(model):  # the other processes wait for this one
            raise
        model.zero_grad()
        batches = batches.halved()
        warn("out of memory: going on with half of engine.max_tokens_per_micro_batch, which changes no result")
        micro = batches(step)
        return batches, micro, _backward(model, micro, loss, accelerator)


def _backward(model: nn.Module, micro: Sequence[Kind], loss: Loss[Kind], accelerator: Accelerator) -> float | None:
    """Gradients of the step's mean loss, over all micro-batches and processes; gives the mean, or None for nothing."""
    count = _summed(sum(loss.count(batch) for batch in micro), accelerator)
    if not count:
        return None
    total = 0.0
    for batch, weight, last in _rounds(model, micro, accelerator):
        # Training by several processes averages gradients over them; the product undoes that.
        scale = weight * accelerator.num_processes / count
        batch = batch.to(accelerator.device)
        if zero.is_engine(model):
            total += weight * zero.backward(model, loss, batch, scale, last)
            continue
        with contextlib.nullcontext() if last else accelerator.no_sync(model):
            with accelerator.autocast():
                part = loss.total(model, batch)
            accelerator.backward(part * scale)
        total += weight * part.item()
    return _summed(total, accelerator) / count


def _rounds(model: nn.Module, micro: Sequence[Kind], accelerator: Accelerator) -> Iterator[tuple[Kind, float, bool]]:
    """Micro-batches with their weight, and whether gradients are exchanged after them.

    Shards are exchanged by all processes together: who has fewer micro-batches than others runs one again, for nothing.
    """
    if not _together(model):
        yield from ((batch, 1.0, index == len(micro) - 1) for index, batch in enumerate(micro))
        return
    rounds = torch.tensor(len(micro), device=accelerator.device)
    torch.distributed.all_reduce(rounds, torch.distributed.ReduceOp.MAX)
    for index in range(int(rounds)):
        last = sharding.is_sharded(model) or index == int(rounds) - 1
        yield micro[min(index, len(micro) - 1)], float(index < len(micro)), last


def _together(model: nn.Module) -> bool:
    """Whether all processes take part in every backward pass."""
    return sharding.is_sharded(model) or zero.is_engine(model)


def _summed(value: float, accelerator: Accelerator) -> float:
    """The sum over all processes."""
    if accelerator.num_processes == 1:
        return value
    tensor = torch.tensor(value, dtype=torch.float64, device=accelerator.device)
    return float(accelerator.reduce(tensor, "sum").item())


def _clip(state: TrainState, max_norm: float, accelerator: Accelerator) -> float:
    """Clip the gradient; gives its norm before. ZeRO clips as it steps."""
    if isinstance(state.optimizer, zero.ZeroAdamW):
        return state.optimizer.norm()
    norm = accelerator.clip_grad_norm_(state.model.parameters(), max_norm or math.inf)
    return float(sharding.whole(norm))


def _check_finite(
    number: int, loss: float | None, norm: float, micro: Sequence[AnyBatch], accelerator: Accelerator
) -> None:
    if loss is None or (math.isfinite(loss) and (math.isfinite(norm) or accelerator.scaler is not None)):
        return  # with fp16 the scaler skips steps whose gradient overflowed, and lowers its scale
    ids = [name for batch in micro for name in batch.ids]
    raise TrainingError(
        f"step {number}: loss {loss}, gradient norm {norm}; the weights were not touched",
        expected="finite numbers",
        found=f"examples {', '.join(ids[:8])}{' ...' if len(ids) > 8 else ''}",
        do="lower train.learning_rate, set train.max_grad_norm=1, or train with engine.mixed_precision=no",
    )


def _evaluated(step: Step, state: TrainState, course: TrainingPlan, evaluate: Callable[[], Scores]) -> Step:
    """The step with the scores after it; keeps count of the best."""
    state.model.eval()
    try:
        with sharding.gathered(state.model):
            scores = evaluate()
    finally:
        state.model.train()
    is_best = course.better(scores, state.best)
    state.best, state.age = (scores[course.metric], 0) if is_best else (state.best, state.age + 1)
    return replace(step, scores=scores, is_best=is_best)
