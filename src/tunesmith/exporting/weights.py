"""Targets that are files of weights: a full model, an adapter, a state dict."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from tunesmith.assets import PREFIX
from tunesmith.errors import RunError
from tunesmith.exporting.source import Exported, ExportSource
from tunesmith.protocols import ChatSpec, Exportable


def safetensors(source: ExportSource, folder: Path) -> Exported:
    """Write the full model as plain Hugging Face files; a bag of words or a probe in tunesmith's own few files."""
    predictor, exact = _full(source, "safetensors")
    predictor.save(folder)
    if source.parts.chat is not None:
        _write_chat_defaults(source, source.parts.chat, folder)
    engine = "numpy" if source.parts.model is None else "torch"
    return Exported(source.reload(folder).logits, engine, exact)


def adapter(source: ExportSource, folder: Path) -> Exported:
    """Write the adapter alone, in peft's format, with the tokenizer and the configuration of its base model."""
    source.require_precision("adapter")
    if not source.is_adapter:
        raise RunError(f"{source.folder} is a full model, not an adapter", do="export --to safetensors")
    source.predictor.save(folder)
    return Exported(source.reload(folder).logits, "torch")


def pth(source: ExportSource, folder: Path) -> Exported:
    """Write the state dict with torch.save, beside config.json and tokenizer.

    The file is named after model, number of parameters and task, like `gpt2-medium355M-sft.pth`, or by the user.
    """
    from tunesmith.models import architectures, pretrained

    if source.has_own_format:
        raise RunError(f"a {source.method} model is not a single network", do="export --to safetensors")
    predictor, exact = _full(source, "pth")
    predictor.save(folder)
    for weights in folder.glob("*.safetensors*"):
        weights.unlink()
    model = predictor.parts().model
    name = Path(source.base.name_or_path.removeprefix(PREFIX)).name.removesuffix(".gguf")
    size = size_name(sum(parameter.numel() for parameter in model.parameters()))
    sized = name if size.lower() in name.lower() else f"{name}{size}"
    kind = "sft" if source.target is None else "classifier" if source.target.labels else "regression"
    file = folder / (source.name or f"{sized}-{kind}.pth")
    pretrained.save_state_dict(model, file)
    fresh = type(model)(model.config)
    architectures.load_state_dict(fresh, file, "")
    restored = source.predictor.with_model(fresh.eval().to(source.parts.model.device))
    return Exported(restored.logits, "torch", exact)


def merged(source: ExportSource) -> Any:
    """Return the run's model with its adapter merged in float32; a model without adapter is returned as it is."""
    from tunesmith.models import adapters

    return adapters.merge(source.parts.model) if source.is_adapter else source.parts.model


def _write_chat_defaults(source: ExportSource, chat: ChatSpec, folder: Path) -> None:
    """Write the run's system message into the chat template, and what ends an answer, its length and how it is sampled
    into generation_config.json: there servers such as vLLM look for them.

    Greedy decoding cannot be said there: vLLM takes it from `temperature: 0`, which transformers refuses to save.
    """
    from transformers import GenerationConfig

    (folder / "chat_template.jinja").write_text(chat.chat_encoder.portable_template, encoding="utf-8")
    config, settings = GenerationConfig.from_pretrained(folder), source.generate
    vocabulary = source.parts.tokenizer.get_vocab()
    config.eos_token_id = [vocabulary[text] for text in chat.stops if text in vocabulary]
    names = {"max_new_tokens", "repetition_penalty"}
    names |= {"do_sample", "temperature", "top_k", "top_p"} if settings.do_sample else set()
    config.update(**settings.model_dump(include=names))
    config.save_pretrained(folder)


def size_name(parameters: int) -> str:
    """Return a number of parameters as it stands in the names of models: `355M`, `1.6B`."""
    if parameters >= 10**9:
        return f"{parameters / 10**9:.1f}B".replace(".0B", "B")
    return f"{parameters / 10**6:.0f}M" if parameters >= 10**6 else f"{parameters / 10**3:.0f}K"


def _full(source: ExportSource, target: str) -> tuple[Exportable, bool]:
    """Return the predictor with one full model in the chosen precision, and whether nothing is rounded.

    By default a merged adapter takes the precision in which its base is stored; models trained in full are float32.
    """
    if source.has_own_format:
        source.require_precision(target)
        return source.predictor, True
    import torch

    from tunesmith.models import pretrained, quantize

    source.require_precision(target, "float32", "float16", "bfloat16")
    precision: str = source.precision
    if precision == "auto" and source.is_adapter:
        if quantize.is_quantized(source.parts.model):
            raise RunError(
                "an adapter cannot be merged into 4-bit weights: rounding would undo what it learned",
                do="merge it into the values they stand for (--precision float32, or bfloat16), or export --to adapter",
            )
        precision = pretrained.stored_precision(source.base)
    model = merged(source)
    if precision in ("auto", "float32"):
        return source.predictor.with_model(model), True
    if not source.is_adapter:
        model = copy.deepcopy(model)  # the run's own stays as it is: the copy is compared with it
    return source.predictor.with_model(model.to(getattr(torch, precision))), False
