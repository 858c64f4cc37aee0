"""Fine-tuning an encoder: model, rows and loss for the loop, and the predictor that comes of it."""

from __future__ import annotations

import torch
from accelerate import Accelerator

from tunesmith.console import say
from tunesmith.data import batches
from tunesmith.data.encode import Encoded, encode
from tunesmith.evaluation import metrics
from tunesmith.models import load
from tunesmith.pipeline.job import Job
from tunesmith.pipeline.session import Session, accelerated
from tunesmith.prediction.classify import Encoder, EncoderClassifier, cut_notes
from tunesmith.recipe import Recipe
from tunesmith.training import loop, losses, optim
from tunesmith.types import Fitted


def fit(job: Job) -> Fitted:
    """Train as the recipe says; `model/` of the run holds the best weights so far at any time."""
    recipe, splits = job.recipe, job.splits
    with accelerated(job) as accelerator:
        tokenizer = load.tokenizer(recipe.model)
        model = load.sequence_classifier(recipe.model, tokenizer, splits.labels, recipe.seed).to(accelerator.device)
        if recipe.engine.gradient_checkpointing:
            load.checkpoint_activations(model)
        optim.freeze(model, recipe.train.freeze)
        total, trainable = optim.count(model)
        limit = load.longest_input(recipe.model, tokenizer)
        encoder = Encoder(model, tokenizer, limit, recipe.engine.max_tokens_per_micro_batch)
        predictor = EncoderClassifier(splits.labels, encoder)
        rows, cut = encode(splits.train, tokenizer, limit, splits.labels)
        feed = _feed(rows, job, tokenizer, accelerator)
        course = _course(recipe, feed.sampler.steps_per_epoch, bool(splits.validation))
        state = loop.begin(model, recipe.train, course, accelerator)
        session = Session(job, accelerator, course, feed.sampler.steps_per_epoch, predictor.save)
        session.resume(state)
        loss = losses.Classification(torch.from_numpy(job.weights()))
        steps = loop.steps(
            state, feed, loss, recipe.train, accelerator, course, lambda: _validate(predictor, job), recipe.seed
        )
        session.follow(steps, state)
        accelerator.unwrap_model(model, keep_fp32_wrapper=False)  # predict as a reloaded model does, without autocast
        accelerator.wait_for_everyone()
        if session.best_step not in (None, state.step):
            predictor = EncoderClassifier.load(job.run.model, recipe.model.trust_remote_code)
        accelerator.wait_for_everyone()  # the first process goes on to write where the others have just read
    notes = {
        "device": str(accelerator.device),
        "processes": accelerator.num_processes,
        "mixed_precision": accelerator.mixed_precision,
        "steps": state.step,
        "best_step": session.best_step,
        "skipped": state.skipped,
        **cut_notes(cut),
        "earlier_seconds": session.earlier,
    }
    return Fitted(predictor, total, trainable, notes)


def _feed(rows: list[Encoded], job: Job, tokenizer: load.Tokenizer, accelerator: Accelerator) -> batches.Feed:
    sampler = batches.Sampler(len(rows), _step_size(job, accelerator), job.recipe.seed)
    budget = batches.token_budget(job.recipe.engine.max_tokens_per_micro_batch, accelerator.device)
    return batches.Feed(rows, sampler, tokenizer, budget, accelerator.process_index, accelerator.num_processes)


def _step_size(job: Job, accelerator: Accelerator) -> int:
    """Examples of an optimizer step, as Hugging Face counts them; a resumed run keeps its own."""
    train = job.recipe.train
    size = train.per_device_train_batch_size * train.gradient_accumulation_steps * accelerator.num_processes
    known = int(job.run.manifest.get("step_size", size))
    if known != size:
        say(f"note: this run learns from {known} examples a step, shared by {accelerator.num_processes} process(es)")
    elif accelerator.is_main_process:
        job.run.note(step_size=size)
    return known


def _course(recipe: Recipe, steps_per_epoch: int, has_validation: bool) -> loop.Course:
    settings = recipe.evaluate
    if not has_validation:
        settings = settings.model_copy(update={"eval_strategy": "no"})
    if settings.eval_strategy == "no":
        patience = " and evaluate.early_stopping_patience does nothing" if settings.early_stopping_patience else ""
        say(f"note: nothing is evaluated during training, so the last weights are kept{patience}")
    higher = metrics.HIGHER_IS_BETTER[settings.metric_for_best_model]
    return loop.Course.plan(steps_per_epoch, recipe.train, settings, higher)


def _validate(predictor: EncoderClassifier, job: Job) -> loop.Scores:
    rows = job.splits.validation
    return metrics.headline([str(row.label) for row in rows], predictor.predict(rows), job.splits.labels)
