"""`tunesmith doctor`: what this machine is, what is installed, and which number format pays here."""

from __future__ import annotations

import importlib.util
import statistics
import time
from typing import Any

from tunesmith import __version__, assets, hardware

EXTRAS = {
    "tokenizers": ("sentencepiece", "google.protobuf"),
    "track": ("tensorboard",),
}
"""Extra -> modules it brings, as pyproject.toml has them."""
TRACKERS = ("wandb", "mlflow")


def doctor() -> dict[str, Any]:
    """Hardware, versions, extras (with the command that adds a missing one), and the speed of number formats."""
    import torch
    from accelerate import Accelerator

    device = Accelerator().device
    extras = {name: _extra(name, modules) for name, modules in EXTRAS.items()}
    trackers = {name: "installed" if _installed(name) else f"missing: pip install {name}" for name in TRACKERS}
    return {
        "tunesmith": __version__,
        **hardware.environment(str(device)),
        "threads": torch.get_num_threads(),
        "asset_cache": str(assets.cache()),
        "extras": extras | trackers,
        "number_formats": probe_formats(device),
    }


def probe_formats(device: Any, size: int = 512, rounds: int = 9) -> dict[str, Any]:
    """Time one feed-forward block, forward and backward, in float32 and under bfloat16 autocast, in turn.

    Gives milliseconds for each (medians), the median of the pairwise ratios, and the setting that follows from them.
    """
    import torch

    block = torch.nn.Sequential(torch.nn.Linear(size, 4 * size), torch.nn.GELU(), torch.nn.Linear(4 * size, size)).to(
        device
    )
    inputs = torch.randn(1024, size, device=device)

    def seconds(half: bool) -> float:
        start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            block(inputs).float().square().mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    pairs = [(seconds(False), seconds(True)) for _ in range(rounds)][2:]  # the first ones warm up
    ratio = statistics.median(full / half for full, half in pairs)
    return {
        "float32_ms": round(1000 * statistics.median(full for full, _ in pairs), 2),
        "bfloat16_ms": round(1000 * statistics.median(half for _, half in pairs), 2),
        "bfloat16_speedup": round(ratio, 2),
        "advice": "train.mixed_precision=bf16" if ratio > 1.2 else "train.mixed_precision=no",
    }


def _extra(name: str, modules: tuple[str, ...]) -> str:
    return "installed" if all(map(_installed, modules)) else f"missing: pip install 'tunesmith[{name}]'"


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
