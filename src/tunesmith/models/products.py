"""Linear layers by oneDNN where it multiplies faster than torch's choice, MKL: about twice as fast on AMD's processors.

Only float32 on the CPU and only without gradients, for torch gives oneDNN's product none. Results differ from MKL's by
rounding, as those of another batch size do.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

FEW = 4
"""With fewer rows a product only waits for its weights, and MKL waits less."""
FASTER = 0.75
"""Share of MKL's time that oneDNN may take at most to be used: well away from noise on either side."""


@contextmanager
def fast() -> Iterator[None]:
    """Within this, linear layers take the faster way; by one trial a process."""
    if not _is_faster(torch.get_num_threads()):
        yield
        return
    with _Products():
        yield


class _Products(TorchFunctionMode):
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
    return plain and floats and not torch.is_grad_enabled() and input.numel() >= FEW * input.shape[-1]


def _multiply(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")
    return found


@functools.lru_cache(maxsize=1)
def _is_faster(threads: int) -> bool:
    """Try both on a product that fits into the cache; the best of a few, for other programs only ever slow them."""
    with torch.inference_mode():
        rows, weight = torch.full((128, 512), 0.5), torch.full((512, 512), 0.5)
        try:
            if not torch.allclose(_multiply(rows, weight), nn.functional.linear(rows, weight)):
                return False
        except (RuntimeError, AttributeError):  # a torch without oneDNN
            return False
        ours, usual = [], []
        for _ in range(7):
            ours.append(_seconds(_multiply, rows, weight))
            usual.append(_seconds(nn.functional.linear, rows, weight))
    return min(ours) < FASTER * min(usual)


def _seconds(multiply: Callable[..., Any], *args: torch.Tensor) -> float:
    start = time.perf_counter()
    multiply(*args)
    return time.perf_counter() - start
