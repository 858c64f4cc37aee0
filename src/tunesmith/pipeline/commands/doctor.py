"""`tunesmith doctor`: hardware, installed extras, and the fastest number format."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith import __version__, assets, hardware, processes, records
from tunesmith.hardware import Environment

if TYPE_CHECKING:
    from tunesmith.training.precision import PrecisionMeasurement

EXTRAS = {
    "tokenizers": ("sentencepiece", "google.protobuf"),
    "track": ("tensorboard",),
    "sweep": ("optuna",),
    "qlora": ("bitsandbytes",),
    "export": ("onnx", "onnxruntime", "onnxscript"),
}
"""Extra -> modules it brings, as pyproject.toml has them."""
TRACKERS = ("wandb", "mlflow")


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis(Environment):
    """The machine, and what is installed on it."""

    tunesmith: str
    threads: int
    asset_cache: str
    extras: dict[str, str]
    """`installed`, or the command that installs it."""
    number_formats: PrecisionMeasurement


def doctor() -> Diagnosis:
    """Return hardware, versions, extras (with the command that adds a missing one), and the speed of number formats."""
    import torch

    from tunesmith.training import precision

    device = processes.device()
    needed = {name: (modules, f"'tunesmith[{name}]'") for name, modules in EXTRAS.items()}
    needed |= {name: ((name,), name) for name in TRACKERS}
    return Diagnosis(
        **records.fields_of(Environment, hardware.environment(str(device))),
        tunesmith=__version__,
        threads=torch.get_num_threads(),
        asset_cache=str(assets.cache()),
        extras={
            name: "installed" if all(map(_is_installed, modules)) else f"missing: pip install {package}"
            for name, (modules, package) in needed.items()
        },
        number_formats=precision.measure(device),
    )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
