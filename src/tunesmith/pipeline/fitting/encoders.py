"""Fine-tuning an encoder: model, rows and loss for the loop, and the predictor around the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from tunesmith.data import batches, token_cache
from tunesmith.data.encode import Encoded, encode
from tunesmith.errors import RecipeError
from tunesmith.models import adapters, architectures, pretrained
from tunesmith.pipeline.fitting import weight_setup
from tunesmith.pipeline.fitting.finetune import HeldOutEvaluation, TrainingSetup, make_sampler
from tunesmith.pipeline.fitting.job import Job
from tunesmith.prediction.classify import Encoder, EncoderPredictor, layout_of
from tunesmith.recipe import Recipe
from tunesmith.tasks.multilabel import MultiLabel
from tunesmith.tasks.regression import Number
from tunesmith.tasks.text_targets import to_settings
from tunesmith.training import losses
from tunesmith.types import DataNote


def prepare(job: Job, accelerator: Accelerator) -> TrainingSetup:
    """Return a classifier on a pretrained body, and the training rows as micro-batches of similar lengths."""
    recipe, splits = job.recipe, job.splits
    tokenizer = pretrained.tokenizer(recipe.model)
    plan = weight_setup.plan(job, accelerator.device)
    loaded = pretrained.sequence_classifier(plan.model, tokenizer, job.target, recipe.seed, plan.quantization)
    if isinstance(job.target, MultiLabel):
        architectures.set_output_bias(loaded, job.target.log_odds(splits.train, job.weights()))
    model = weight_setup.apply(plan, loaded, recipe, "SEQ_CLS").to(accelerator.device)
    limit = pretrained.longest_input(plan.model, tokenizer)
    layout, padded = choose_layout(model, tokenizer, recipe)
    encoder = Encoder(model, tokenizer, limit, recipe.engine.max_tokens_per_micro_batch, layout)
    predictor = EncoderPredictor(job.target, encoder)
    rows, cut = training_rows(job, tokenizer, limit)
    budget = batches.token_budget(recipe.engine.max_tokens_per_micro_batch, accelerator.device)
    layout_note = "unpadded" if padded is None else f"padded: {padded}"
    notes = replace(plan.notes, adapter=adapters.describe(model), layout=layout_note)
    evaluate = HeldOutEvaluation(job, predictor.predict)
    return TrainingSetup(
        model,
        batches.MicroBatches(
            rows,
            make_sampler(job, accelerator, rows),
            layout,
            budget,
            accelerator.process_index,
            accelerator.num_processes,
        ),
        _loss(job),
        evaluate,
        lambda: predictor,
        lambda folder: EncoderPredictor.load(folder, recipe.model.trust_remote_code),
        notes.with_cut(cut),
        evaluates_all=evaluate.is_whole,
        write_best=evaluate.write,
    )


def training_rows(job: Job, tokenizer: Any, limit: int) -> tuple[Sequence[Encoded], list[DataNote]]:
    """Return the tokenized training rows, and notes on what was cut."""
    key = [*token_cache.identity(tokenizer), limit, to_settings(job.target)]
    tokenize = partial(encode, tokenizer=tokenizer, max_length=limit, target=job.target)
    return token_cache.tokenized(job.splits.train, tokenize, key, keep=job.recipe.data.cache)


def _loss(job: Job) -> losses.Loss[batches.Batch]:
    if isinstance(job.target, Number):
        return losses.NumberLoss(job.recipe.train.loss == "huber", job.loss())
    train, weights = job.recipe.train, torch.from_numpy(job.weights())
    is_focal = train.loss == "focal"
    if isinstance(job.target, MultiLabel):
        return losses.MultilabelLoss(weights, train.focal_gamma if is_focal else 0.0, job.loss())
    if train.loss == "ordinal":
        if not job.splits.label_values:
            raise RecipeError(
                "train.loss is ordinal, and the labels have no order",
                expected="three labels or more that are numbers, or data.label_order",
                found=", ".join(job.splits.labels[:5]),
                do="set data.label_order, or leave train.loss out",
            )
        return losses.Classification(weights, losses.ordinal)
    return losses.Classification(weights, partial(losses.focal, gamma=train.focal_gamma) if is_focal else job.loss())


def choose_layout(
    model: nn.Module, tokenizer: pretrained.Tokenizer, recipe: Recipe
) -> tuple[batches.EncoderLayout, str | None]:
    """Return the layout (texts in one row if that gives the model's own logits, else padded) and why it pads."""
    engine = recipe.engine
    if engine.layout == "padded" or engine.compile:
        return batches.Padded(tokenizer), "engine.layout" if engine.layout == "padded" else "engine.compile"
    layout, reason = layout_of(model, tokenizer)
    if reason and engine.layout == "packed":
        raise RecipeError(
            f"engine.layout=packed does not suit {recipe.model.name_or_path}", found=reason, do="set auto"
        )
    return layout, reason
