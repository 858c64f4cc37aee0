"""Dropout on the CPU from cheap random bits: 16 an element, of numpy's SFC64, seeded from torch's generator.

torch draws an element's noise from a Mersenne Twister, which takes more than twice as long. What is dropped remains a
function of torch's seed, and the probability is met to 1/65,536.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.autograd.function import once_differentiable

LEVELS = 2**16


def noise(shape: Sequence[int], probability: float, dtype: torch.dtype) -> torch.Tensor:
    """Return what to multiply with: 0 where an element is dropped, elsewhere 1 / (1 - probability)."""
    below = round(probability * LEVELS)
    if below == LEVELS:
        return torch.zeros(*shape, dtype=dtype)
    size = int(np.prod(shape))
    seed = int(torch.randint(2**63 - 1, ()))
    words = np.random.SFC64(seed).random_raw(-(-size // 4))
    levels = torch.from_numpy(words.view(np.int16)[:size]).view(*shape)
    return (levels >= below - LEVELS // 2).to(dtype).mul_(LEVELS / (LEVELS - below))


class Dropout(nn.Dropout):
    """torch's, with other random bits where it trains on a CPU and is not compiled."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return the input with some elements set to 0 and the others scaled up."""
        if not self.training or not self.p or input.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(input)
        output: torch.Tensor = _Dropout.apply(input, self.p)  # type: ignore[no-untyped-call]
        return output


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: torch.Tensor, probability: float) -> torch.Tensor:
        factors = noise(input.shape, probability, input.dtype)
        ctx.save_for_backward(factors)
        return input * factors

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        (factors,) = ctx.saved_tensors
        return grad * factors, None


def replace(model: nn.Module) -> None:
    """Replace a model's dropout modules. Its parameters keep their names."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, Dropout(child.p))
