"""Contrastive fine-tuning of an encoder from few labels, and then a regression on its embeddings, as in SetFit
(Tunstall et al. 2022, arXiv:2209.11055). A step compares all pairs of its texts, each of which is encoded once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from accelerate import Accelerator

from tunesmith.console import say
from tunesmith.data import batches
from tunesmith.models import adapters, pretrained
from tunesmith.pipeline.fitting import encoders, finetune, weight_setup
from tunesmith.pipeline.fitting.finetune import HeldOutEvaluation, TrainingSetup
from tunesmith.pipeline.fitting.job import Job
from tunesmith.prediction import classify
from tunesmith.prediction.classify import Encoder, ProbePredictor
from tunesmith.protocols import TrainResult
from tunesmith.tasks.multilabel import MultiLabel
from tunesmith.training import losses
from tunesmith.types import Example

MANY = 64
"""Rows a label from which fine-tuning usually pays (docs/benchmarks.md)."""


def fit(job: Job) -> TrainResult:
    """Train the encoder, and a regression on its embeddings of the training rows."""
    result = finetune.fit(job, prepare)
    assert isinstance(result.predictor, ProbePredictor)
    head = result.predictor.regression
    size = head.weight.size + head.bias.size
    return replace(result, parameters=result.parameters + size, trainable=result.trainable + size)


def prepare(job: Job, accelerator: Accelerator) -> TrainingSetup:
    """Return a pretrained encoder, and all training rows of a step in micro-batches of similar lengths."""
    recipe = job.recipe
    tokenizer = pretrained.tokenizer(recipe.model)
    plan = weight_setup.plan(job, accelerator.device)
    model = pretrained.body(plan.model, tokenizer, recipe.seed).to(accelerator.device, plan.dtype)
    limit = pretrained.longest_input(plan.model, tokenizer)
    layout, padded = encoders.choose_layout(model, tokenizer, recipe)
    rows, cut = encoders.training_rows(job, tokenizer, limit)
    budget = batches.token_budget(recipe.engine.max_tokens_per_micro_batch, accelerator.device)
    sampler = _sampler(job, accelerator)
    # The probe's texts are padded, as those of a reloaded one are: both predict the same, to the last bit.
    probe = _RefittedProbe(job, Encoder(model, tokenizer, limit, recipe.engine.max_tokens_per_micro_batch))
    evaluate = HeldOutEvaluation(job, probe.predict)
    layout_note = "unpadded" if padded is None else f"padded: {padded}"
    notes = replace(plan.notes, adapter=adapters.describe(model), layout=layout_note)
    return TrainingSetup(
        model,
        batches.WholeSteps(batches.MicroBatches(rows, sampler, layout, budget)),
        losses.Contrastive(recipe.probe.pooling, recipe.train.contrastive_temperature),
        evaluate,
        probe.newest,
        lambda folder: ProbePredictor.load(folder, recipe.model.trust_remote_code),
        notes.with_cut(cut),
        evaluates_all=evaluate.is_whole,
        write_best=evaluate.write,
        max_steps=_max_steps(sampler, recipe.train.max_pairs),
    )


@dataclass
class _RefittedProbe:
    """The probe on an encoder as it learns: every evaluation fits its regression anew."""

    job: Job
    encoder: Encoder
    probe: ProbePredictor | None = None
    """That of the newest evaluation."""

    def predict(self, examples: Sequence[Example]) -> list[Any]:
        self.probe = self._fit()
        return self.probe.predict(examples)

    def newest(self) -> ProbePredictor:
        """Return the probe of the newest evaluation, or that of the weights as they are if there was none."""
        return self.probe or self._fit()

    def _fit(self) -> ProbePredictor:
        job, recipe = self.job, self.job.recipe
        fitted = classify.fit_probe(
            self.encoder, job.splits.train, job.target, recipe.probe, recipe.linear, job.weights()
        )
        assert isinstance(fitted.predictor, ProbePredictor)
        return fitted.predictor


def _sampler(job: Job, accelerator: Accelerator) -> batches.Sampler:
    """Return what draws the texts of each step, with several of one label among them where texts have one."""
    train, size = job.splits.train, finetune.step_size(job, accelerator)
    if (each := len(train) / len(job.target.labels)) > MANY:
        say(f"note: encoder:contrastive is for few labels; with {each:,.0f} rows a label, method encoder usually pays")
    if isinstance(job.target, MultiLabel):
        return batches.Sampler(len(train), size, job.recipe.seed)
    return batches.GroupedSampler(len(train), size, job.recipe.seed, [str(example.label) for example in train])


def _max_steps(sampler: batches.Sampler, max_pairs: int) -> int:
    size = ceil(sampler.num_examples / sampler.steps_per_epoch)
    return max(1, max_pairs // (size * (size - 1) // 2 or 1))
