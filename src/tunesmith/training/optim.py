"""What learns, how fast, and how that changes over the steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

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


class MasterAdamW(torch.optim.AdamW):
    """AdamW for weights of 16 bits, on float32 copies ("masters"): the groups hold these, not the model's weights.

    bfloat16 keeps 8 bits of a number, and a step at a usual learning rate is smaller than the last of them: added to
    the weight itself it would be lost (Mixed Precision Training, arXiv 1710.03740). Parameters in float32 are their
    own masters. The state dict has the masters as slots named `master`.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], **settings: Any) -> None:
        self.pairs: list[tuple[nn.Parameter, nn.Parameter]] = []
        """Every weight of 16 bits with its master."""
        super().__init__(
            [{**group, "params": [self._master(p) for p in group["params"]]} for group in groups], **settings
        )

    def _master(self, weight: nn.Parameter) -> nn.Parameter:
        if weight.dtype not in (torch.bfloat16, torch.float16):
            return weight
        master = nn.Parameter(weight.detach().float())
        self.pairs.append((weight, master))
        return master

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Step the masters with the gradients of their weights, and round them into the weights."""
        for weight, master in self.pairs:
            master.grad = None if weight.grad is None else weight.grad.float()
            weight.grad = None  # both in memory at once would cost half as much again as the masters
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

    def state_dict(self) -> dict[str, Any]:
        """As of AdamW, with the masters."""
        content = super().state_dict()
        slots = {index: dict(values) for index, values in content["state"].items()}
        for index, master in self._numbered():
            slots.setdefault(index, {})["master"] = master.detach()
        return {**content, "state": slots}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what `state_dict` gave; the weights of the model are left alone."""
        slots = {index: dict(values) for index, values in state_dict["state"].items()}
        for index, master in self._numbered():
            master.copy_(slots[index].pop("master"))
        super().load_state_dict({**state_dict, "state": {index: values for index, values in slots.items() if values}})

    def _numbered(self) -> list[tuple[int, nn.Parameter]]:
        """The masters with their numbers in the state dict."""
        masters = {id(master) for _, master in self.pairs}
        every = [parameter for group in self.param_groups for parameter in group["params"]]
        return [(index, parameter) for index, parameter in enumerate(every) if id(parameter) in masters]


def adamw(model: nn.Module, settings: Train) -> torch.optim.AdamW:
    """AdamW without weight decay on biases and norms; fused where the device has it, in float32 whatever learns."""
    groups = _groups(model, settings.weight_decay)
    half = any(p.dtype in (torch.bfloat16, torch.float16) for group in groups for p in group["params"])
    devices = {parameter.device.type for parameter in model.parameters()}
    kind = MasterAdamW if half else torch.optim.AdamW
    return kind(groups, lr=settings.learning_rate, fused=devices <= {"cpu", "cuda", "mps", "xpu"})


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for module in model.modules():
        is_norm = any(norm in type(module).__name__ for norm in NORMS)
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                (plain if is_norm or "bias" in name or parameter.ndim < 2 else decayed).append(parameter)
    return [
        {"params": _unique(decayed), "weight_decay": weight_decay},
        {"params": _unique(plain), "weight_decay": 0.0},
    ]


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
