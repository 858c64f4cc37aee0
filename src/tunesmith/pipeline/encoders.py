"""Fine-tuning an encoder: model, rows and loss for the loop, and the predictor that comes of it."""

from __future__ import annotations

import torch
from accelerate import Accelerator

from tunesmith.data import batches
from tunesmith.data.encode import encode
from tunesmith.evaluation import metrics
from tunesmith.models import adapters, load
from tunesmith.pipeline import weights
from tunesmith.pipeline.finetune import Tuning, step_size
from tunesmith.pipeline.job import Job
from tunesmith.prediction.classify import Encoder, EncoderClassifier, cut_notes
from tunesmith.training import losses
from tunesmith.training.loop import Scores


def prepare(job: Job, accelerator: Accelerator) -> Tuning:
    """A classifier on a pretrained body, and the training rows as micro-batches of similar lengths."""
    recipe, splits = job.recipe, job.splits
    tokenizer = load.tokenizer(recipe.model)
    plan = weights.plan(job, accelerator.device)
    model = load.sequence_classifier(recipe.model, tokenizer, splits.labels, recipe.seed, plan.quantization)
    model = weights.shape(model, plan, recipe, "classification").to(accelerator.device)
    limit = load.longest_input(recipe.model, tokenizer)
    encoder = Encoder(model, tokenizer, limit, recipe.engine.max_tokens_per_micro_batch)
    predictor = EncoderClassifier(splits.labels, encoder)
    rows, cut = encode(splits.train, tokenizer, limit, splits.labels)
    sampler = batches.Sampler(len(rows), step_size(job, accelerator), recipe.seed)
    budget = batches.token_budget(recipe.engine.max_tokens_per_micro_batch, accelerator.device)
    return Tuning(
        model,
        batches.Feed(rows, sampler, tokenizer, budget, accelerator.process_index, accelerator.num_processes),
        losses.Classification(torch.from_numpy(job.weights())),
        lambda step: _validate(predictor, job),
        predictor,
        lambda folder: EncoderClassifier.load(folder, recipe.model.trust_remote_code),
        {**plan.notes, "adapter": adapters.describe(model), **cut_notes(cut)},
    )


def _validate(predictor: EncoderClassifier, job: Job) -> Scores:
    rows = job.splits.validation
    return metrics.headline([str(row.label) for row in rows], predictor.predict(rows), job.splits.labels)
