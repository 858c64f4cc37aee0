"""`tunesmith doctor`: hardware, installed extras, and the fastest number format."""

from __future__ import annotations

import importlib.util
from typing import Any

from tunesmith import __version__, assets, hardware, processes, records

EXTRAS = {
    "tokenizers": ("sentencepiece", "google.protobuf"),
    "track": ("tensorboard",),
    "sweep": ("optuna",),
    "qlora": ("bitsandbytes",),
    "export": ("onnx", "onnxruntime", "onnxscript"),
}
"""Extra -> modules it brings, as pyproject.toml has them."""
TRACKERS = ("wandb", "mlflow")


def doctor() -> dict[str, Any]:
    """Return hardware, versions, extras (with the command that adds a missing one), and the speed of number formats."""
    import torch

    from tunesmith.training import precision

    device = processes.device()
    extras = {
        name: "installed" if all(map(_installed, modules)) else f"missing: pip install 'tunesmith[{name}]'"
        for name, modules in EXTRAS.items()
    }
    trackers = {name: "installed" if _installed(name) else f"missing: pip install {name}" for name in TRACKERS}
    return {
        "tunesmith": __version__,
        **records.dump(hardware.environment(str(device))),
        "threads": torch.get_num_threads(),
        "asset_cache": str(assets.cache()),
        "extras": extras | trackers,
        "number_formats": records.dump(precision.measure(device)),
    }


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
