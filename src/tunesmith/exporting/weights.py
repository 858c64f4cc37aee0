"""Targets that are files of weights: a full model, an adapter, a state dict."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from tunesmith.errors import RunError
from tunesmith.exporting.source import Exported, ExportSource
from tunesmith.protocols import Exportable

STATE_DICT = "model.pth"


def safetensors(trained: ExportSource, folder: Path) -> Exported:
    """The whole model as plain Hugging Face files; a bag of words or a probe in tunesmith's own few files."""
    predictor, exact = _whole(trained, "safetensors")
    predictor.save(folder)
    engine = "numpy" if trained.parts.model is None else "torch"
    return Exported(trained.reload(folder).logits, engine, exact)


def adapter(trained: ExportSource, folder: Path) -> Exported:
    """The adapter alone, as peft reads it, with the tokenizer and the config.json of the model under it."""
    trained.allow("adapter")
    if not trained.is_adapter:
        raise RunError(f"{trained.folder} has no adapter: its model is whole", do="export --to safetensors")
    trained.predictor.save(folder)
    return Exported(trained.reload(folder).logits, "torch")


def pth(trained: ExportSource, folder: Path) -> Exported:
    """The state dict as torch.save writes it, with config.json and tokenizer."""
    from tunesmith.models import architectures, pretrained

    if trained.has_own_format:
        raise RunError(f"a {trained.method} model is no single network", do="export --to safetensors")
    predictor, exact = _whole(trained, "pth")
    predictor.save(folder)
    for weights in folder.glob("*.safetensors*"):
        weights.unlink()
    model = predictor.parts().model
    pretrained.save_state_dict(model, folder / STATE_DICT)
    fresh = type(model)(model.config)
    architectures.load_state_dict(fresh, folder / STATE_DICT, "")
    restored = trained.predictor.with_model(fresh.eval().to(trained.parts.model.device))
    return Exported(restored.logits, "torch", exact)


def merged(trained: ExportSource) -> Any:
    """The one model that a run's model and adapter make, in float32; a model without adapter is given as it is."""
    from tunesmith.models import adapters

    return adapters.merge(trained.parts.model) if trained.is_adapter else trained.parts.model


def _whole(trained: ExportSource, target: str) -> tuple[Exportable, bool]:
    """The predictor around one model in the precision asked for, and whether that rounds nothing."""
    if trained.has_own_format:
        trained.allow(target)
        return trained.predictor, True
    import torch

    trained.allow(target, "float32", "float16", "bfloat16")
    wanted = _own_precision(trained) if trained.precision == "auto" else trained.precision
    model = merged(trained)
    if wanted == "float32":
        return trained.predictor.with_model(model), True
    if not trained.is_adapter:
        model = copy.deepcopy(model)  # the run's own is what the copy is held against
    return trained.predictor.with_model(model.to(getattr(torch, wanted))), False


def _own_precision(trained: ExportSource) -> str:
    """What the weights under an adapter are stored in; models trained in full are float32."""
    from tunesmith.models import pretrained, quantize

    if not trained.is_adapter:
        return "float32"
    if quantize.is_quantized(trained.parts.model):
        raise RunError(
            "an adapter cannot be merged into 4-bit weights: rounding would undo what it learned",
            do="merge it into the values they stand for (--precision float32, or bfloat16), or export --to adapter",
        )
    return pretrained.stored_precision(trained.base)
