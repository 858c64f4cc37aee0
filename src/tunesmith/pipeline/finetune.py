"""Fine-tuning an encoder: the loop with everything that belongs around it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers

from tunesmith.console import meter
from tunesmith.data import batches
from tunesmith.data.encode import Encoded, encode
from tunesmith.errors import MissingExtra
from tunesmith.evaluation import metrics
from tunesmith.models import load
from tunesmith.pipeline.job import Job
from tunesmith.prediction.classify import Encoder, EncoderClassifier
from tunesmith.recipe import Recipe
from tunesmith.training import loop, losses, optim
from tunesmith.types import Fitted


def fit(job: Job) -> Fitted:
    """Train as the recipe says; `model/` of the run holds the best weights so far at any time."""
    recipe, splits = job.recipe, job.splits
    with _accelerator(job) as accelerator:
        tokenizer = load.tokenizer(recipe.model)
        model = load.sequence_classifier(recipe.model, tokenizer, splits.labels, recipe.seed).to(accelerator.device)
        optim.freeze(model, recipe.train.freeze)
        total, trainable = optim.count(model)
        limit = load.longest_input(model, tokenizer, recipe.model.max_length)
        predictor = EncoderClassifier(
            splits.labels, Encoder(model, tokenizer, limit, recipe.train.max_tokens_per_micro_batch)
        )
        rows, cut = encode(splits.train, tokenizer, limit, splits.labels)
        feed = _feed(rows, recipe, tokenizer, accelerator)
        course = _course(recipe, feed.sampler.steps_per_epoch, bool(splits.validation))
        loss = losses.Classification(torch.from_numpy(job.weights()))
        steps = loop.steps(model, feed, loss, recipe.train, accelerator, course, lambda: _validate(predictor, job))
        last, best = _follow(steps, course, job, accelerator, predictor)
    if best not in (None, last):
        predictor = EncoderClassifier.load(job.run.model)
    notes = {"device": str(accelerator.device), "steps": last, "best_step": best, "cut": sum(c.count for c in cut)}
    return Fitted(predictor, total, trainable, notes)


def _feed(rows: list[Encoded], recipe: Recipe, tokenizer: load.Tokenizer, accelerator: Accelerator) -> batches.Feed:
    train, processes = recipe.train, accelerator.num_processes
    size = train.per_device_train_batch_size * train.gradient_accumulation_steps * processes
    sampler = batches.Sampler(len(rows), size, recipe.seed)
    budget = batches.token_budget(train.max_tokens_per_micro_batch, accelerator.device)
    return batches.Feed(rows, sampler, tokenizer, budget, accelerator.process_index, processes)


def _course(recipe: Recipe, steps_per_epoch: int, has_validation: bool) -> loop.Course:
    settings = recipe.evaluate
    if not has_validation:
        settings = settings.model_copy(update={"eval_strategy": "no"})
    higher = metrics.HIGHER_IS_BETTER[settings.metric_for_best_model]
    return loop.Course.plan(steps_per_epoch, recipe.train, settings, higher)


def _validate(predictor: EncoderClassifier, job: Job) -> loop.Scores:
    rows = job.splits.validation
    return metrics.headline([str(row.label) for row in rows], predictor.predict(rows), job.splits.labels)


def _follow(
    steps: Iterator[loop.Step],
    course: loop.Course,
    job: Job,
    accelerator: Accelerator,
    predictor: EncoderClassifier,
) -> tuple[int, int | None]:
    """Consume the loop: show, log, keep the best. Gives the last step and the best one (None where none is kept)."""
    settings = job.recipe.evaluate
    diary = Diary(job, accelerator, settings.logging_steps)
    last, best = 0, None
    with meter("train", course.num_steps) as show:
        for step in steps:
            last = step.number
            show(last, f"loss {step.loss:.4f}")
            diary.write(step, final=last == course.num_steps)
            if step.is_best and settings.load_best_model_at_end:
                best = last
                predictor.save(job.run.model)
    return last, best


@dataclass
class Diary:
    """Writes steps to metrics.jsonl and the trackers: the loss as the mean since the last line."""

    job: Job
    accelerator: Accelerator
    every: int
    losses: list[float] = field(default_factory=list)

    def write(self, step: loop.Step, final: bool) -> None:
        self.losses.append(step.loss)
        if step.number == 1 or step.number % self.every == 0 or final:
            mean = sum(self.losses) / len(self.losses)
            self._log(step, {"loss": mean, "grad_norm": step.grad_norm, "learning_rate": step.learning_rate})
            self.losses.clear()
        if step.scores is not None:
            self._log(step, {f"validation_{name}": value for name, value in step.scores.items()})

    def _log(self, step: loop.Step, values: dict[str, float]) -> None:
        self.job.run.log({"step": step.number, **values})
        self.accelerator.log(values, step=step.number)


@contextmanager
def _accelerator(job: Job) -> Iterator[Accelerator]:
    """The accelerator with its trackers running."""
    wanted = list(job.recipe.evaluate.report_to)
    available = [str(name) for name in get_available_trackers()]
    if missing := [name for name in wanted if name not in available]:
        raise MissingExtra(
            f"evaluate.report_to names {', '.join(missing)}",
            found="not installed",
            do=f"pip install {' '.join(missing)}",
        )
    accelerator = Accelerator(
        mixed_precision=job.recipe.train.mixed_precision, log_with=wanted or None, project_dir=job.run.path
    )
    accelerator.init_trackers("tunesmith")
    try:
        yield accelerator
    finally:
        accelerator.end_training()
