"""Linear layers by oneDNN where it multiplies faster than torch's default, MKL: about twice as fast on AMD processors.

Only float32 on the CPU. Results differ from MKL's by rounding, as they do between batch sizes; so what is faster is
measured once on a machine, and a resumed run keeps the library that it began with.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from tunesmith import autotuning
from tunesmith.autotuning import Choice
from tunesmith.errors import TrainingError

CACHED = "64"
for _cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):  # of oneDNN, and of torch's layer above it
    os.environ.setdefault(_cache, CACHED)
"""How many compiled kernels are cached. There is one of some megabytes for every number of rows: the default of 1,024
takes gigabytes. The libraries read the variables at their first multiplication, so they must be set before it."""
MIN_ROWS = 4
"""With fewer rows a multiplication is bound by memory, and MKL is faster."""
MIN_WEIGHTS = 2**16
"""Smaller weights do not gain: oneDNN compiles a kernel for every shape, in milliseconds."""
MIN_SPEEDUP = 1.33
"""oneDNN is used if it is more than this many times as fast as MKL: far enough from noise on either side."""
_within: ContextVar[bool | None] = ContextVar("onednn_linear", default=None)
"""What the innermost `enabled` of this thread decided."""


@contextmanager
def enabled(use: bool | None = None) -> Iterator[None]:
    """Within this, linear layers use oneDNN or not. use: None for what `enabled` around this says, or else the faster.

    So an evaluation during training uses the library of the training.
    """
    before = _within.get()
    use = before if use is None else use
    use = measured(torch.get_num_threads()).value["backend"] == "onednn" if use is None else use
    _within.set(use)
    try:
        with _OneDnnLinearMode() if use else nullcontext():
            yield
    finally:
        _within.set(before)


@functools.lru_cache(maxsize=1)
def measured(threads: int) -> Choice:
    """Return the faster backend on this machine with this number of threads, and how many times as fast oneDNN is.

    MKL stays unless oneDNN is faster by MIN_SPEEDUP.
    """
    instructions = torch.backends.cpu.get_cpu_capability()
    return autotuning.choose("matmul_backend", _measure, threads=threads, instructions=instructions)


def decide(setting: str) -> Choice:
    """Return the backend of a training under `engine.matmul_backend`. Raises TrainingError where torch lacks it."""
    if setting == "auto":
        return measured(torch.get_num_threads())
    if setting == "onednn" and not torch._C._has_mkldnn:
        raise TrainingError("engine.matmul_backend=onednn: this torch is built without oneDNN", do="set auto or mkl")
    return Choice({"backend": setting}, "recipe")


class _OneDnnLinearMode(TorchFunctionMode):
    """Intercepts torch's functions in this thread, and replaces `linear`."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is not nn.functional.linear or kwargs or not _supports(*args):
            return func(*args, **(kwargs or {}))
        if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in args):
            return _LinearWithGradient.apply(*args, *[None] * (3 - len(args)))  # type: ignore[no-untyped-call]
        return _linear(*args)


def _supports(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> bool:
    """Return whether oneDNN computes this layer faster. Subclasses of tensors (4 bits) have their own kernels."""
    kinds = {type(tensor) for tensor in (input, weight, bias) if tensor is not None}
    plain = kinds <= {torch.Tensor, nn.Parameter} and weight.device.type == "cpu" and weight.ndim == 2
    floats = input.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return plain and floats and weight.numel() >= MIN_WEIGHTS and input.numel() >= MIN_ROWS * input.shape[-1]


def _linear(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    output: torch.Tensor = torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")
    return output


class _LinearWithGradient(torch.autograd.Function):
    """A linear layer with its gradients, which torch does not implement for oneDNN's operator."""

    @staticmethod
    def forward(ctx: Any, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(input, weight)
        return _linear(input, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        input, weight = ctx.saved_tensors
        for_input, for_weight, for_bias = ctx.needs_input_grad
        grad_NO, input_NI = grad.reshape(-1, grad.shape[-1]), input.reshape(-1, input.shape[-1])
        return (
            _linear(grad_NO, weight.t()).view_as(input) if for_input else None,
            _linear(grad_NO.t().contiguous(), input_NI.t().contiguous()) if for_weight else None,
            grad_NO.sum(0) if for_bias else None,
        )


def _measure() -> dict[str, str | float]:
    """Time both on a multiplication that fits into the cache."""
    speedup = 0.0
    with torch.inference_mode():
        rows, weight = torch.full((128, 512), 0.5), torch.full((512, 512), 0.5)
        try:
            if torch.allclose(_linear(rows, weight), nn.functional.linear(rows, weight)):
                speedup = autotuning.speedup(lambda: nn.functional.linear(rows, weight), lambda: _linear(rows, weight))
        except (RuntimeError, AttributeError):  # a torch without oneDNN
            pass
    return {"backend": "onednn" if speedup > MIN_SPEEDUP else "mkl", "onednn_speedup": round(speedup, 2)}
