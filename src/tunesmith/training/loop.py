"""The one training loop: a generator of steps without I/O. Saving, logging and showing belong to its consumer.

The examples of a step are a function of (seed, epoch, step), and its dropout of (seed, step, process): a resumed run
draws what the uninterrupted run would have drawn.
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

from tunesmith import processes
from tunesmith.console import warn
from tunesmith.errors import TrainingError
from tunesmith.recipe import Evaluate, Train
from tunesmith.training import optim, sharding, zero
from tunesmith.training.losses import AnyBatch, Loss

Scores = Mapping[str, float]
"""Metrics of validation rows by name; `train_loss` is the loss on training rows."""
BatchT = TypeVar("BatchT", bound=AnyBatch)
BatchT_co = TypeVar("BatchT_co", bound=AnyBatch, covariant=True)


@dataclass(frozen=True, slots=True)
class Step:
    """What happened in one optimizer step."""

    number: int
    """Steps done, this one included."""
    loss: float
    """Mean over the step's examples (or tokens), over all processes."""
    grad_norm: float
    """Before clipping."""
    learning_rate: float
    skipped: bool = False
    """The weights did not change: the step had no label, or its gradient overflowed fp16."""
    scores: Scores | None = None
    """On the validation split, if an evaluation followed this step."""
    is_best: bool = False
    """Whether the scores are the best so far."""


@dataclass(frozen=True)
class TrainingPlan:
    """How long to train, when to evaluate, and which scores are better."""

    num_steps: int
    eval_every: int | None
    """Steps between evaluations, the last step included; None for never."""
    metric: str
    higher_is_better: bool
    patience: int | None
    """Evaluations without improvement after which training stops; None for never."""

    @classmethod
    def from_settings(
        cls, steps_per_epoch: int, train: Train, evaluate: Evaluate, higher_is_better: bool
    ) -> TrainingPlan:
        num_steps = train.max_steps or max(1, round(train.num_train_epochs * steps_per_epoch))
        every = {"epoch": steps_per_epoch, "steps": evaluate.eval_steps, "no": None}[evaluate.eval_strategy]
        return cls(num_steps, every, evaluate.metric_for_best_model, higher_is_better, evaluate.early_stopping_patience)

    def evaluates(self, number: int) -> bool:
        return self.eval_every is not None and (number % self.eval_every == 0 or number == self.num_steps)

    def should_stop_early(self, evals_without_improvement: int) -> bool:
        return self.patience is not None and evals_without_improvement >= self.patience

    def is_better(self, scores: Scores, best: float | None) -> bool:
        value = scores[self.metric]
        return best is None or (value > best if self.higher_is_better else value < best)


@dataclass
class TrainState:
    """Everything that changes while training."""

    model: nn.Module
    wrapped: nn.Module
    """The module to call: the model itself, or its data-parallel or DeepSpeed wrapper."""
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LambdaLR
    scaler: torch.amp.GradScaler | None = None
    """For fp16 only."""
    step: int = 0
    """Optimizer steps done."""
    best: float | None = None
    """Best value of the deciding metric so far."""
    evals_without_improvement: int = 0
    """Evaluations since then."""
    skipped: int = 0
    """Steps that did not change the weights."""


class Batches(Protocol[BatchT_co]):
    """The source of micro-batches."""

    def __call__(self, step: int) -> Sequence[BatchT_co]:
        """Return this process's micro-batches of a step; steps count from 0."""

    def halved(self) -> Batches[BatchT_co]:
        """Return the same examples in smaller micro-batches."""


def begin(model: nn.Module, settings: Train, plan: TrainingPlan, accelerator: Accelerator) -> TrainState:
    """Return the state before the first step, with a new optimizer and schedule.

    Raises TrainingError for number formats and settings of accelerate that cannot be trained with.
    """
    sharding.check(model, settings.optim, accelerator)
    if sharding.asked_for():
        sharding.shard(model, accelerator.device)
    optimizer = optim.optimizer(model, settings)
    if accelerator.scaler is not None and isinstance(optimizer, optim.MasterWeights):
        raise TrainingError(
            "engine.mixed_precision=fp16 scales the loss for gradients in float32",
            found="16-bit weights",
            do="set model.dtype=float32, or engine.mixed_precision=bf16 or no",
        )
    wrapped = model
    if zero.asked_for():
        optimizer = zero.ZeroAdamW(model, optimizer, settings.max_grad_norm, accelerator.autocast)
        wrapped = optimizer.engine
    elif not sharding.is_sharded(model):
        own = vars(model).get("forward")
        wrapped = accelerator.prepare_model(model)  # in its data-parallel wrapper, if there are several processes
        # Undo Accelerate's autocast of the model's own forward: `_backward` runs the whole loss under autocast, and
        # evaluations compute what a reloaded model computes.
        for name in ("forward", "_original_forward"):
            vars(model).pop(name, None)
        if own is not None:
            vars(model)["forward"] = own
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, optim.schedule(settings, plan.num_steps))
    return TrainState(model, wrapped, optimizer, scheduler, accelerator.scaler)


def steps(
    state: TrainState,
    batches: Batches[BatchT],
    loss: Loss[BatchT],
    settings: Train,
    accelerator: Accelerator,
    plan: TrainingPlan,
    evaluate: Callable[[], Scores],
    seed: int = 0,
) -> Iterator[Step]:
    """Train `state.model` in place from `state.step` on; yields after each step, with `state` up to date.

    evaluate: returns the scores of the validation split; called in eval mode, in all processes, when `plan` says so.

    Raises TrainingError, before the weights change, when the loss or the gradient is not finite.
    """
    optimizer = accelerator.prepare_optimizer(state.optimizer, device_placement=False)  # its state follows the weights
    state.model.train()
    while state.step < plan.num_steps and not plan.should_stop_early(state.evals_without_improvement):
        number = state.step + 1
        # Dropout is a function of (seed, step, process): there is no random state to save, or for evaluations to shift.
        (word,) = np.random.SeedSequence([seed, number, accelerator.process_index]).generate_state(1, np.uint64)
        torch.manual_seed(int(word))
        rate = float(state.optimizer.param_groups[0]["lr"])
        batches, micro, mean = _learn(state.wrapped, batches, state.step, loss, accelerator)
        if mean is None:
            norm = 0.0
        elif isinstance(state.optimizer, zero.ZeroAdamW):  # it clips when it steps
            norm = state.optimizer.norm()
        else:
            total_norm = accelerator.clip_grad_norm_(state.model.parameters(), settings.max_grad_norm or math.inf)
            norm = float(sharding.whole(total_norm))
        _check_finite(number, mean, norm, micro, accelerator)
        skipped = mean is None
        if not skipped:
            scale = state.scaler.get_scale() if state.scaler is not None else 0.0
            optimizer.step()
            # It fell if the gradient overflowed; a fused optimizer then skips the step where Accelerate cannot see it.
            skipped = state.scaler is not None and state.scaler.get_scale() < scale
        if not skipped:
            state.scheduler.step()
        optimizer.zero_grad()
        state.step, state.skipped = number, state.skipped + skipped
        step = Step(number, mean or 0.0, norm, rate, skipped)
        yield _evaluated(step, state, plan, evaluate) if plan.evaluates(number) else step


def _learn(
    model: nn.Module, batches: Batches[BatchT], step: int, loss: Loss[BatchT], accelerator: Accelerator
) -> tuple[Batches[BatchT], Sequence[BatchT], float | None]:
    """Compute the gradients of one step; returns the source of micro-batches, the micro-batches and the mean loss.

    When memory runs out, the step is tried once more with half the tokens in memory.
    """
    micro = batches(step)
    try:
        return batches, micro, _backward(model, micro, loss, accelerator)
    except torch.OutOfMemoryError:
        if _together(model):  # the other processes wait for this one
            raise
        model.zero_grad()
        batches = batches.halved()
        warn("out of memory: continuing with half of engine.max_tokens_per_micro_batch; results do not change")
        micro = batches(step)
        return batches, micro, _backward(model, micro, loss, accelerator)


def _backward(model: nn.Module, micro: Sequence[BatchT], loss: Loss[BatchT], accelerator: Accelerator) -> float | None:
    """Compute the gradients of the mean loss over all micro-batches and processes; returns the mean.

    Returns None for a step without anything to learn.
    """
    count = _summed(sum(loss.count(batch) for batch in micro), accelerator)
    if not count:
        return None
    rounds = len(micro)
    if _together(model):
        most = torch.tensor(rounds, device=accelerator.device)
        torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
        rounds = int(most)
    total = 0.0
    for index in range(rounds):
        # Ranks with fewer micro-batches repeat one with weight 0.
        batch, weight = micro[min(index, len(micro) - 1)].to(accelerator.device), float(index < len(micro))
        exchanged = sharding.is_sharded(model) or index == rounds - 1
        # Data parallelism averages gradients over the processes; the product undoes that.
        scale = weight * accelerator.num_processes / count
        if zero.is_engine(model):
            total += weight * zero.backward(model, loss, batch, scale, exchanged)
            continue
        with contextlib.nullcontext() if exchanged else accelerator.no_sync(model):
            with accelerator.autocast():
                part = loss.total(model, batch)
            accelerator.backward(part * scale)
        total += weight * part.item()
    return _summed(total, accelerator) / count


def _together(model: nn.Module) -> bool:
    """Return whether all processes take part in every backward pass, because gradients are sharded."""
    return sharding.is_sharded(model) or zero.is_engine(model)


def _summed(value: float, accelerator: Accelerator) -> float:
    """Return the sum over all processes."""
    if accelerator.num_processes == 1:
        return value
    tensor = torch.tensor(value, dtype=torch.float64, device=accelerator.device)
    return float(accelerator.reduce(tensor, "sum").item())


def _check_finite(
    number: int, loss: float | None, norm: float, micro: Sequence[AnyBatch], accelerator: Accelerator
) -> None:
    if loss is None or (math.isfinite(loss) and (math.isfinite(norm) or accelerator.scaler is not None)):
        return  # with fp16 the scaler skips steps whose gradient overflowed, and lowers its scale
    ids = [name for batch in micro for name in batch.ids]
    raise TrainingError(
        f"step {number}: loss {loss}, gradient norm {norm}; the weights did not change",
        expected="finite numbers",
        found=f"examples {', '.join(ids[:8])}{' ...' if len(ids) > 8 else ''}",
        do="lower train.learning_rate, set train.max_grad_norm=1, or train with engine.mixed_precision=no",
    )


def _evaluated(step: Step, state: TrainState, plan: TrainingPlan, evaluate: Callable[[], Scores]) -> Step:
    """Return the step with the scores after it; updates the best score in `state`."""
    state.model.eval()
    try:
        with sharding.gathered(state.model), processes.sharing():
            scores = evaluate()
    finally:
        state.model.train()
    is_best = plan.is_better(scores, state.best)
    if is_best:
        state.best, state.evals_without_improvement = scores[plan.metric], 0
    else:
        state.evals_without_improvement += 1
    return replace(step, scores=scores, is_best=is_best)
