"""Which number format pays on this device: measured, not believed."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

WORTH_IT = 1.2
"""bfloat16 must be this many times faster than float32: it has 8 bits of mantissa, and speed is all it offers."""


def measure(device: torch.device, size: int = 512, rounds: int = 9) -> dict[str, Any]:
    """Time one feed-forward block, forward and backward, in float32 and under bfloat16 autocast, in turn.

    Gives milliseconds for each (medians), the median of the pairwise ratios, and the setting that follows from them.
    """
    state = torch.random.get_rng_state()
    layers = (torch.nn.Linear(size, 4 * size), torch.nn.GELU(), torch.nn.Linear(4 * size, size))
    block = torch.nn.Sequential(*layers).to(device)
    inputs = torch.ones(1024, size, device=device)
    torch.random.set_rng_state(state)
    pairs = [(_seconds(block, inputs, False), _seconds(block, inputs, True)) for _ in range(rounds)][2:]  # warm-up
    ratio = statistics.median(full / half for full, half in pairs)
    return {
        "float32_ms": round(1000 * statistics.median(full for full, _ in pairs), 2),
        "bfloat16_ms": round(1000 * statistics.median(half for _, half in pairs), 2),
        "bfloat16_speedup": round(ratio, 2),
        "mixed_precision": "bf16" if ratio > WORTH_IT else "no",
    }


def _seconds(block: torch.nn.Module, inputs: torch.Tensor, half: bool) -> float:
    start = time.perf_counter()
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=half):
        loss = block(inputs).float().square().mean()
    loss.backward()
    if inputs.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start
