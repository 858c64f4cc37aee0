"""Targets that are files of weights: a full model, an adapter, a state dict."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from tunesmith.errors import RunError
from tunesmith.exporting.source import Exported, ExportSource

STATE_DICT = "model.pth"


def safetensors(trained: ExportSource, folder: Path) -> Exported:
    """The whole model as plain Hugging Face files; a bag of words or a probe in tunesmith's own few files."""
    result, exact = _whole(trained, "safetensors")
    result.save(folder)
    return Exported(trained.run(trained.reload(folder)), _engine(trained), exact)


def adapter(trained: ExportSource, folder: Path) -> Exported:
    """The adapter alone, as peft reads it, with the tokenizer and the config.json of the model under it."""
    trained.allow("adapter")
    if not trained.is_adapter:
        raise RunError(f"{trained.folder} has no adapter: its model is whole", do="export --to safetensors")
    trained.result.save(folder)
    return Exported(trained.run(trained.reload(folder)), "torch")


def pth(trained: ExportSource, folder: Path) -> Exported:
    """The state dict as torch.save writes it, with config.json and tokenizer."""
    from tunesmith.models import architectures, pretrained

    if trained.method not in ("encoder", "generator"):
        raise RunError(f"a {trained.method} model is no single network", do="export --to safetensors")
    result, exact = _whole(trained, "pth")
    result.save(folder)
    for weights in folder.glob("*.safetensors*"):
        weights.unlink()
    model = _model(trained, result)
    pretrained.save_state_dict(model, folder / STATE_DICT)
    fresh = type(model)(model.config)
    architectures.load_state_dict(fresh, folder / STATE_DICT, "")
    return Exported(trained.run(trained.exchange(fresh.eval().to(trained.model.device))), "torch", exact)


def merged(trained: ExportSource) -> Any:
    """The one model that a run's model and adapter make, in float32; a model without adapter is given as it is."""
    from tunesmith.models import adapters

    return adapters.merge(trained.model) if trained.is_adapter else trained.model


def _whole(trained: ExportSource, target: str) -> tuple[Any, bool]:
    """The result around one model in the precision asked for, and whether that rounds nothing."""
    if trained.model is None or trained.method == "probe":
        trained.allow(target)
        return trained.result, True
    import torch

    trained.allow(target, "float32", "float16", "bfloat16")
    wanted = _own_precision(trained) if trained.precision == "auto" else trained.precision
    model = merged(trained)
    if wanted == "float32":
        return trained.exchange(model), True
    if not trained.is_adapter:
        model = copy.deepcopy(model)  # the run's own is what the copy is held against
    return trained.exchange(model.to(getattr(torch, wanted))), False


def _own_precision(trained: ExportSource) -> str:
    """What the weights under an adapter are stored in; models trained in full are float32."""
    from tunesmith.models import pretrained, quantize

    if not trained.is_adapter:
        return "float32"
    if quantize.is_quantized(trained.model):
        raise RunError(
            "an adapter cannot be merged into 4-bit weights: rounding would undo what it learned",
            do="merge it into the values they stand for (--precision float32, or bfloat16), or export --to adapter",
        )
    return pretrained.stored_precision(trained.base)


def _model(trained: ExportSource, result: Any) -> Any:
    return result.encoder.model if trained.method == "encoder" else getattr(result, "generator", result).model


def _engine(trained: ExportSource) -> str:
    return "numpy" if trained.model is None else "torch"
