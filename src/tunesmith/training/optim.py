"""Frozen parameters, optimizers and learning rate schedules."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import StateDict

from tunesmith.errors import ModelError
from tunesmith.models import quantize
from tunesmith.recipe import Train

NORMS = ("LayerNorm", "RMSNorm", "GroupNorm", "BatchNorm")
HALF = (torch.bfloat16, torch.float16)


def freeze(model: nn.Module, what: str) -> None:
    """Freeze the `embeddings` (token, position and type tables), the whole `body`, or `none` of the model.

    The body is the base model without its pooler; pooler, projections and classifier are the head.
    """
    if what == "none":
        return
    base = getattr(model, getattr(model, "base_model_prefix", ""), None)
    if not isinstance(base, nn.Module):
        raise ModelError(
            f"cannot freeze: {type(model).__name__} does not name its body",
            expected="a base_model_prefix",
            do="set train.freeze=none",
        )
    for name, module in base.named_modules():
        path = f".{name}."
        table = isinstance(module, nn.Embedding) and ".encoder." not in path  # DeBERTa's relative positions stay
        if table if what == "embeddings" else ".pooler." not in path:
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)


class MasterWeights(torch.optim.Optimizer):
    """A mixin for optimizers of 16-bit weights: their groups contain float32 copies ("master weights") instead.

    bfloat16 has 8 significant bits, and a step at a usual learning rate is smaller than the last of them: added to the
    weight itself it would be lost (Mixed Precision Training, arXiv:1710.03740). float32 parameters are their own
    masters. The state dict has the masters in slots named `master`.
    """

    def __init__(self, groups: list[dict[str, Any]], **settings: Any) -> None:
        self.pairs: list[tuple[nn.Parameter, nn.Parameter]] = []
        """Every 16-bit weight with its master."""
        super().__init__(
            [{**group, "params": [self._master(p) for p in group["params"]]} for group in groups], **settings
        )

    def _master(self, weight: nn.Parameter) -> nn.Parameter:
        if weight.dtype not in HALF:
            return weight
        master = nn.Parameter(weight.detach().float())
        self.pairs.append((weight, master))
        return master

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update the masters with the gradients of their weights, and round them into the weights."""
        for weight, master in self.pairs:
            master.grad = None if weight.grad is None else weight.grad.float()
            weight.grad = None  # keeping both gradients would take half as much memory as the masters
        result = super().step(closure)
        for weight, master in self.pairs:
            weight.copy_(master)
            master.grad = None
        return result

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients of weights and masters."""
        super().zero_grad(set_to_none)
        for weight, _ in self.pairs:
            weight.grad = None

    def state_dict(self) -> StateDict:
        """Return the optimizer's state dict with the masters."""
        content = super().state_dict()
        slots = {index: dict(values) for index, values in content["state"].items()}
        for index, master in self._indexed():
            slots.setdefault(index, {})["master"] = master.detach()
        return {**content, "state": slots}

    @torch.no_grad()
    def load_state_dict(self, state_dict: StateDict) -> None:
        """Restore what `state_dict` returned; the model's weights do not change."""
        slots = {index: dict(values) for index, values in state_dict["state"].items()}
        for index, master in self._indexed():
            master.copy_(slots[index].pop("master"))
        super().load_state_dict({**state_dict, "state": {index: values for index, values in slots.items() if values}})

    def _indexed(self) -> list[tuple[int, nn.Parameter]]:
        """Return the masters with their indices in the state dict."""
        masters = {id(master) for _, master in self.pairs}
        every = [parameter for group in self.param_groups for parameter in group["params"]]
        return [(index, parameter) for index, parameter in enumerate(every) if id(parameter) in masters]


def optimizer(model: nn.Module, settings: Train) -> torch.optim.Optimizer:
    """Return the optimizer of `train.optim`, with float32 masters of 16-bit weights.

    Biases and norms have no weight decay. Raises MissingExtra if the optimizer needs bitsandbytes and it is missing.
    """
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for module in model.modules():
        is_norm = any(norm in type(module).__name__ for norm in NORMS)
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                (plain if is_norm or "bias" in name or parameter.ndim < 2 else decayed).append(parameter)
    groups = [
        {"params": list(dict.fromkeys(decayed)), "weight_decay": settings.weight_decay},  # tied parameters once
        {"params": list(dict.fromkeys(plain)), "weight_decay": 0.0},
    ]
    kind: Any = torch.optim.AdamW
    options: dict[str, bool] = {}
    if settings.optim == "adamw":
        devices = {parameter.device.type for parameter in model.parameters()}
        options = {"fused": devices <= {"cpu", "cuda", "mps", "xpu"}}
    elif settings.optim == "adafactor":  # as transformers' Trainer uses it, with the given learning rate
        from transformers.optimization import Adafactor

        kind, options = Adafactor, {"scale_parameter": False, "relative_step": False}
    else:
        kind = quantize.optimizer({"lion": "Lion", "adamw_8bit": "AdamW8bit", "lion_8bit": "Lion8bit"}[settings.optim])
    if any(parameter.dtype in HALF for parameter in decayed + plain):
        kind = type(f"Master{kind.__name__}", (MasterWeights, kind), {})
    created: torch.optim.Optimizer = kind(groups, lr=settings.learning_rate, **options)
    return created


def schedule(settings: Train, num_steps: int) -> Callable[[int], float]:
    """Return the factor on the learning rate as a function of the step: warm-up from 0, then a decay.

    The formulas are those of transformers' `get_scheduler`, so that runs can be compared.
    """
    warmup = math.ceil(num_steps * settings.warmup_ratio) if settings.warmup_steps is None else settings.warmup_steps
    decay = DECAYS[settings.lr_scheduler_type]

    def factor(step: int) -> float:
        if step < warmup:
            return step / warmup
        return decay((step - warmup) / max(1, num_steps - warmup))

    return factor


DECAYS: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: max(0.0, 1.0 - progress),
    "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress))),
}
"""Progress after the warm-up (0 to 1) -> factor."""
