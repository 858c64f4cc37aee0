"""Which number format pays on this device: measured, not believed."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from torch import nn

WORTH_IT = 1.2
"""bfloat16 must be this many times faster than float32: it has 8 bits of mantissa, and speed is all it offers."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def measure(device: torch.device, size: int = 512, rounds: int = 9) -> dict[str, Any]:
    """Time a feed-forward block, forward and backward: float32, bfloat16 autocast, bfloat16 weights, in turn.

    Gives milliseconds for each (medians), the medians of the ratios round by round, and the settings that follow.
    """
    state = torch.random.get_rng_state()
    full, half = (_block(size).to(device, dtype) for dtype in DTYPES.values())
    torch.random.set_rng_state(state)
    inputs = torch.ones(1024, size, device=device)
    turns = [
        (_seconds(full, inputs, False), _seconds(full, inputs, True), _seconds(half, inputs.bfloat16(), False))
        for _ in range(rounds)
    ][2:]  # the first warm up
    autocast = statistics.median(plain / cast for plain, cast, _ in turns)
    weights = statistics.median(plain / pure for plain, _, pure in turns)
    columns = zip(*turns, strict=True)
    float32_ms, bfloat16_ms, weights_ms = (round(1000 * statistics.median(column), 2) for column in columns)
    return {
        "float32_ms": float32_ms,
        "bfloat16_ms": bfloat16_ms,
        "bfloat16_weights_ms": weights_ms,
        "bfloat16_speedup": round(autocast, 2),
        "bfloat16_weights_speedup": round(weights, 2),
        "mixed_precision": "bf16" if autocast > WORTH_IT else "no",
        "dtype": "bfloat16" if weights > WORTH_IT else "float32",
    }


def _block(size: int) -> nn.Module:
    return nn.Sequential(nn.Linear(size, 4 * size), nn.GELU(), nn.Linear(4 * size, size))


def _seconds(block: nn.Module, inputs: torch.Tensor, half: bool) -> float:
    start = time.perf_counter()
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=half):
        loss = block(inputs).float().square().mean()
    loss.backward()
    if inputs.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start
