"""What learns, how fast, and how that changes over the steps."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from tunesmith.errors import ModelError
from tunesmith.recipe import Train

NORMS = ("LayerNorm", "RMSNorm", "GroupNorm", "BatchNorm")


def freeze(model: nn.Module, what: str) -> None:
    """Take the `embeddings` (token, position, type tables), the whole `body`, or `none` of the model out of training.

    The body is the base model without its pooler; the pooler, projections and the classifier are the head.
    """
    if what == "none":
        return
    base = getattr(model, getattr(model, "base_model_prefix", ""), None)
    if not isinstance(base, nn.Module):
        raise ModelError(f"{type(model).__name__} does not say which part is its body", do="set train.freeze=none")
    for name, module in base.named_modules():
        parts = name.split(".")
        table = isinstance(module, nn.Embedding) and "encoder" not in parts  # DeBERTa's relative positions stay
        if table if what == "embeddings" else "pooler" not in parts:
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)


def count(model: nn.Module) -> tuple[int, int]:
    """(all, trainable) parameters; shared ones count once."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, learns in sizes if learns)


def adamw(model: nn.Module, settings: Train) -> torch.optim.AdamW:
    """AdamW without weight decay on biases and norms; fused where the device has it."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for module in model.modules():
        is_norm = any(norm in type(module).__name__ for norm in NORMS)
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                (plain if is_norm or "bias" in name or parameter.ndim < 2 else decayed).append(parameter)
    groups = [
        {"params": _unique(decayed), "weight_decay": settings.weight_decay},
        {"params": _unique(plain), "weight_decay": 0.0},
    ]
    devices = {parameter.device.type for parameter in model.parameters()}
    return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=devices <= {"cpu", "cuda", "mps", "xpu"})


def _unique(parameters: list[nn.Parameter]) -> list[nn.Parameter]:
    return list(dict.fromkeys(parameters))


def schedule(settings: Train, num_steps: int) -> Callable[[int], float]:
    """The factor on the learning rate as a function of the steps done: warm-up from 0, then the shape.

    The formulas are those of transformers' `get_scheduler`, so that runs can be compared.
    """
    warmup = math.ceil(num_steps * settings.warmup_ratio)
    shape = SHAPES[settings.lr_scheduler_type]

    def factor(step: int) -> float:
        if step < warmup:
            return step / warmup
        return shape((step - warmup) / max(1, num_steps - warmup))

    return factor


SHAPES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: max(0.0, 1.0 - progress),
    "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress))),
}
"""Progress after the warm-up (0 to 1) -> factor."""
