"""The one training loop: a generator of steps without I/O. Saving, logging and showing belong to its consumer."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import nn

from tunesmith.data.batches import Batch
from tunesmith.errors import TrainingError
from tunesmith.recipe import Evaluate, Train
from tunesmith.training import optim
from tunesmith.training.losses import Loss

Scores = Mapping[str, float]


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
    scores: Scores | None = None
    """Of the validation split, where this step was followed by an evaluation."""
    is_best: bool = False
    """The scores are the best so far."""


@dataclass(frozen=True)
class Course:
    """How long to train, when to look up, and what counts as better."""

    num_steps: int
    eval_every: int | None
    """Steps between evaluations, the last step included; None for never."""
    metric: str
    higher_is_better: bool
    patience: int | None
    """Evaluations without a better one after which training stops."""

    @classmethod
    def plan(cls, steps_per_epoch: int, train: Train, evaluate: Evaluate, higher_is_better: bool) -> Course:
        num_steps = train.max_steps or max(1, round(train.num_train_epochs * steps_per_epoch))
        every = {"epoch": steps_per_epoch, "steps": evaluate.eval_steps, "no": None}[evaluate.eval_strategy]
        return cls(num_steps, every, evaluate.metric_for_best_model, higher_is_better, evaluate.early_stopping_patience)

    def evaluates(self, number: int) -> bool:
        return self.eval_every is not None and (number % self.eval_every == 0 or number == self.num_steps)

    def better(self, scores: Scores, best: float | None) -> bool:
        value = scores[self.metric]
        return best is None or (value > best if self.higher_is_better else value < best)


def steps(
    model: nn.Module,
    batches: Callable[[int], Sequence[Batch]],
    loss: Loss,
    settings: Train,
    accelerator: Accelerator,
    course: Course,
    evaluate: Callable[[], Scores],
) -> Iterator[Step]:
    """Train `model` in place, yielding after each optimizer step.

    batches: step (from 0) -> this process's micro-batches of it. evaluate: called in eval mode, as `course` says.

    Raises TrainingError before the weights are touched where loss or gradient is not finite.
    """
    optimizer = accelerator.prepare_optimizer(optim.adamw(model, settings))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer.optimizer, optim.schedule(settings, course.num_steps))
    wrapped = accelerator.prepare_model(model)
    model.train()
    best, age = None, 0  # the best value so far, and evaluations since
    for number in range(1, course.num_steps + 1):
        micro = batches(number - 1)
        mean = _backward(wrapped, micro, loss, accelerator)
        norm = _clip(wrapped, settings.max_grad_norm, accelerator)
        _check_finite(number, mean, norm, micro, accelerator)
        rate = float(scheduler.get_last_lr()[0])
        optimizer.step()
        if not optimizer.step_was_skipped:
            scheduler.step()
        optimizer.zero_grad()
        if not course.evaluates(number):
            yield Step(number, mean, norm, rate)
            continue
        scores = _evaluated(model, evaluate)
        is_best = course.better(scores, best)
        best, age = (scores[course.metric], 0) if is_best else (best, age + 1)
        yield Step(number, mean, norm, rate, scores, is_best)
        if course.patience is not None and age >= course.patience:
            return


def _backward(model: nn.Module, micro: Sequence[Batch], loss: Loss, accelerator: Accelerator) -> float:
    """Gradients of the step's mean loss, over all micro-batches and processes; gives the mean."""
    count = _summed(sum(loss.count(batch) for batch in micro), accelerator)
    total = 0.0
    for index, batch in enumerate(micro):
        last = index == len(micro) - 1
        with contextlib.nullcontext() if last else accelerator.no_sync(model):
            part = loss.total(model, batch.to(accelerator.device))
            # Data-parallel training averages gradients over the processes; the product undoes that.
            accelerator.backward(part * (accelerator.num_processes / count))
        total += part.item()
    return _summed(total, accelerator) / count


def _summed(value: float, accelerator: Accelerator) -> float:
    """The sum over all processes."""
    if accelerator.num_processes == 1:
        return value
    tensor = torch.tensor(value, dtype=torch.float64, device=accelerator.device)
    return float(accelerator.reduce(tensor, "sum").item())


def _clip(model: nn.Module, max_norm: float, accelerator: Accelerator) -> float:
    return float(accelerator.clip_grad_norm_(model.parameters(), max_norm or math.inf))


def _check_finite(number: int, loss: float, norm: float, micro: Sequence[Batch], accelerator: Accelerator) -> None:
    if math.isfinite(loss) and (math.isfinite(norm) or accelerator.scaler is not None):
        return  # with fp16 the scaler skips steps whose gradient overflowed, and lowers its scale
    ids = [name for batch in micro for name in batch.ids]
    raise TrainingError(
        f"step {number}: loss {loss}, gradient norm {norm}; the weights were not touched",
        expected="finite numbers",
        found=f"examples {', '.join(ids[:8])}{' ...' if len(ids) > 8 else ''}",
        do="lower train.learning_rate, set train.max_grad_norm=1, or train with train.mixed_precision=no",
    )


def _evaluated(model: nn.Module, evaluate: Callable[[], Scores]) -> Scores:
    model.eval()
    try:
        return evaluate()
    finally:
        model.train()
