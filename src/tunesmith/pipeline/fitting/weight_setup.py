"""The form in which a model's weights are trained: number format, 4 bits, adapter, frozen parts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tunesmith import records
from tunesmith.console import say, warn
from tunesmith.errors import RecipeError
from tunesmith.manifest import TrainingNotes
from tunesmith.models import adapters, pretrained, quantize
from tunesmith.models.architectures import LoadedModel
from tunesmith.pipeline.fitting.job import Job
from tunesmith.recipe import Adapter, Model, Recipe
from tunesmith.training import optim, precision


@dataclass(frozen=True)
class WeightPlan:
    """The recipe's choices, as far as this machine supports them."""

    model: Model
    """Where the weights come from."""
    adapter: Adapter
    saved_adapter: Path | None
    """An adapter of these weights to be trained further."""
    dtype: torch.dtype
    quantization: Any | None
    """How to load weights in 4 bits; None for other weights."""
    fallback: str | None
    """What is trained instead of the recipe's choice, and why."""

    @property
    def notes(self) -> TrainingNotes:
        """The notes for the manifest."""
        return TrainingNotes(dtype=str(self.dtype).removeprefix("torch."), fallback=self.fallback)


def plan(job: Job, device: torch.device) -> WeightPlan:
    """Decide on number format and adapter; if 4 bits cannot run, fall back to LoRA with a warning.

    If the recipe names the folder of an adapter, its base model is loaded and the adapter is trained further.
    """
    recipe, fallback = job.recipe, None
    adapter, quantization = recipe.adapter, None
    folder, model = Path(recipe.model.name_or_path), recipe.model
    saved = adapters.saved(folder) if adapter.kind != "none" else None
    if saved is not None:
        model = pretrained.base_of(saved, model)
        if saved.r != adapter.r:
            raise RecipeError(f"the adapter in {folder} has rank {saved.r}", do=f"set adapter.r={saved.r}")
    if adapter.kind == "qlora":
        reason = quantize.usable()
        if reason is None:
            quantization = quantize.config(adapter)
        else:
            warn(f"4-bit weights cannot be used, training LoRA on {recipe.model.dtype} weights instead: {reason}")
            adapter = adapter.model_copy(update={"kind": "lora"})
            fallback = f"lora instead of qlora: {reason}"
    if adapter.kind != "none" and recipe.train.freeze != "none":
        raise RecipeError("train.freeze does nothing with an adapter: all but the adapter is frozen", do="leave it out")
    dtype = torch.float32
    if quantization is None and recipe.model.dtype != "auto":
        dtype = precision.DTYPES[recipe.model.dtype]
    elif quantization is None:
        measured = measured_precision(job, device)
        say(f"weights: {measured.dtype} (bfloat16 is {measured.bfloat16_weights_speedup} times as fast here)")
        dtype = precision.DTYPES[measured.dtype]
    return WeightPlan(model, adapter, folder if saved else None, dtype, quantization, fallback)


def apply(plan: WeightPlan, loaded: LoadedModel, recipe: Recipe, task_type: adapters.TaskType) -> nn.Module:
    """Return the model in the planned form: only what the recipe trains requires a gradient."""
    if plan.quantization is None:
        loaded.module.to(plan.dtype)
    if plan.adapter.kind == "none":
        optim.freeze(loaded.module, recipe.train.freeze)
        return loaded.module
    if plan.saved_adapter is not None:
        return adapters.load(loaded.module, plan.saved_adapter, trainable=True)
    return adapters.attach(
        loaded, plan.adapter, task_type, recipe.model.name_or_path, recipe.seed, recipe.model.revision
    )


def measured_precision(job: Job, device: torch.device) -> precision.PrecisionMeasurement:
    """Return which number format is faster here, measured once; a resumed run keeps what its manifest says."""
    choice = job.decide_once("number_format", lambda: records.dump(precision.measured(device)))
    return records.load(precision.PrecisionMeasurement, choice["value"], "manifest.json")
