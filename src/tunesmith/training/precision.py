"""Which number format is faster on this device, by measuring."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import torch
from torch import nn

from tunesmith import autotuning, hardware, records
from tunesmith.autotuning import Choice

MIN_SPEEDUP = 1.2
"""bfloat16 is used if it is at least this many times as fast as float32, because it is less precise."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SHAPES = ((16, 64), (64, 128), (128, 256), (256, 512), (1024, 512))
"""Rows and hidden size of the blocks that are timed, from small to large."""
MAX_SECONDS = 0.5
"""The time of all blocks together, apart from the first, which may have to start the device."""
ROUNDS = 7


@dataclass(frozen=True, slots=True)
class PrecisionMeasurement:
    """Times in milliseconds (medians), speed-ups over float32 (medians of the rounds), and the settings that follow."""

    float32_ms: float
    bfloat16_ms: float
    """Under autocast."""
    bfloat16_weights_ms: float
    bfloat16_speedup: float
    bfloat16_weights_speedup: float
    mixed_precision: str
    """What `engine.mixed_precision: auto` means here: bf16 or no."""
    dtype: str
    """What `model.dtype: auto` means here: bfloat16 or float32."""


def measured(device: torch.device) -> Choice:
    """Return the measurement of this device as a dictionary, made once on a machine."""
    return autotuning.choose(
        "number_format",
        lambda: records.dump(measure(device)),
        device=hardware.device_name(str(device)),
        threads=torch.get_num_threads(),
    )


def measure(device: torch.device) -> PrecisionMeasurement:
    """Time a feed-forward block, forward and backward, in turns: float32, bfloat16 autocast and bfloat16 weights.

    The block grows as long as MAX_SECONDS allow for all ROUNDS: if bfloat16 is slow, a single large one takes seconds.
    """
    spent, done = 0.0, 0
    turns: list[tuple[float, float, float]] = []
    for rows, size in SHAPES:
        work = rows * size**2
        if turns and spent + (1 + ROUNDS) * sum(turns[-1]) * work / done > MAX_SECONDS:
            break
        done, inputs = work, torch.ones(rows, size, device=device)
        state = torch.random.get_rng_state()
        full, half = (
            nn.Sequential(nn.Linear(size, 4 * size), nn.GELU(), nn.Linear(4 * size, size)).to(device, dtype)
            for dtype in DTYPES.values()
        )
        torch.random.set_rng_state(state)
        warmup, turn = _turn(full, half, inputs), _turn(full, half, inputs)
        spent += sum(turn) + (sum(warmup) if turns else 0.0)
        turns = [turn]
    turns += [_turn(full, half, inputs) for _ in range(ROUNDS - 1)]
    autocast = statistics.median(plain / cast for plain, cast, _ in turns)
    weights = statistics.median(plain / pure for plain, _, pure in turns)
    columns = zip(*turns, strict=True)
    float32_ms, bfloat16_ms, weights_ms = (round(1000 * statistics.median(column), 2) for column in columns)
    return PrecisionMeasurement(
        float32_ms,
        bfloat16_ms,
        weights_ms,
        round(autocast, 2),
        round(weights, 2),
        "bf16" if autocast > MIN_SPEEDUP else "no",
        "bfloat16" if weights > MIN_SPEEDUP else "float32",
    )


def _turn(full: nn.Module, half: nn.Module, inputs: torch.Tensor) -> tuple[float, float, float]:
    return _seconds(full, inputs, False), _seconds(full, inputs, True), _seconds(half, inputs.bfloat16(), False)


def _seconds(block: nn.Module, inputs: torch.Tensor, half: bool) -> float:
    start = time.perf_counter()
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=half):
        loss = block(inputs).float().square().mean()
    loss.backward()
    if inputs.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start
