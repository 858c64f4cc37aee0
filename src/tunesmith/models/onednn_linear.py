"""Linear layers by oneDNN where it multiplies faster than torch's choice, MKL: about twice as fast on AMD's processors.

Only float32 on the CPU. Results differ from MKL's by rounding, as those of another batch size do; so a run keeps the
way that it began with.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

KEPT = "64"
for _cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):  # of oneDNN, and of torch's layer above it
    os.environ.setdefault(_cache, KEPT)
"""Compiled products that are kept. Each number of rows has its own, of megabytes; the usual 1,024 hold gigabytes. The
libraries look when they first multiply, so that this has to stand before."""
FEW = 4
"""With fewer rows a product only waits for its weights, and MKL waits less."""
LARGE = 2**16
"""Weights with fewer numbers are not worth it: oneDNN compiles a product for every shape, in milliseconds."""
FASTER = 0.75
"""Share of MKL's time that oneDNN may take at most to be used: well away from noise on either side."""


@contextmanager
def enabled(wanted: bool | None = None) -> Iterator[None]:
    """Within this, linear layers take the faster way. wanted: what `is_faster` said before, instead of a trial now."""
    if not (is_faster() if wanted is None else wanted):
        yield
        return
    with _OneDnnLinearMode():
        yield


def is_faster() -> bool:
    """Whether oneDNN's products are worth taking on this machine, by one trial a process."""
    return _measured_faster(torch.get_num_threads())


class _OneDnnLinearMode(TorchFunctionMode):
    """Sees every function of torch that is called in this thread, and replaces one."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is nn.functional.linear and not kwargs and _fits(*args):
            return _multiply(*args)
        return func(*args, **(kwargs or {}))


def _fits(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> bool:
    """Whether oneDNN's product can take its place. Subclasses of tensors bring products of their own (4 bits)."""
    kinds = {type(one) for one in (input, weight, bias) if one is not None}
    plain = kinds <= {torch.Tensor, nn.Parameter} and weight.device.type == "cpu" and weight.ndim == 2
    floats = input.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return plain and floats and weight.numel() >= LARGE and input.numel() >= FEW * input.shape[-1]


def _multiply(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    if torch.is_grad_enabled() and any(one is not None and one.requires_grad for one in (input, weight, bias)):
        return cast(torch.Tensor, _LinearWithGradient.apply(input, weight, bias))  # type: ignore[no-untyped-call]
    return _product(input, weight, bias)


def _product(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")
    return found


class _LinearWithGradient(torch.autograd.Function):
    """The product with its gradients, which are products too; torch gives oneDNN's none."""

    @staticmethod
    def forward(ctx: Any, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(input, weight)
        return _product(input, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        input, weight = ctx.saved_tensors
        of_input, of_weight, of_bias = ctx.needs_input_grad
        grad_NO, input_NI = grad.reshape(-1, grad.shape[-1]), input.reshape(-1, input.shape[-1])
        return (
            _product(grad_NO, weight.t().contiguous()).view_as(input) if of_input else None,
            _product(grad_NO.t().contiguous(), input_NI.t().contiguous()) if of_weight else None,
            grad_NO.sum(0) if of_bias else None,
        )


@functools.lru_cache(maxsize=1)
def _measured_faster(threads: int) -> bool:
    """Try both on a product that fits into the cache; the best of a few, for other programs only ever slow them."""
    with torch.inference_mode():
        rows, weight = torch.full((128, 512), 0.5), torch.full((512, 512), 0.5)
        try:
            if not torch.allclose(_product(rows, weight), nn.functional.linear(rows, weight)):
                return False
        except (RuntimeError, AttributeError):  # a torch without oneDNN
            return False
        ours, usual = [], []
        for _ in range(7):
            ours.append(_seconds(_product, rows, weight))
            usual.append(_seconds(nn.functional.linear, rows, weight))
    return min(ours) < FASTER * min(usual)


def _seconds(multiply: Callable[..., Any], *args: torch.Tensor) -> float:
    start = time.perf_counter()
    multiply(*args)
    return time.perf_counter() - start
