"""`tunesmith doctor`: hardware, installed extras, and what is fastest here: number format and matmul backend."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith import __version__, assets, autotuning, hardware, processes, records
from tunesmith.hardware import Environment

if TYPE_CHECKING:
    from tunesmith.training.precision import PrecisionMeasurement

EXTRAS = {
    "tokenizers": ("sentencepiece", "google.protobuf"),
    "track": ("tensorboard",),
    "sweep": ("optuna",),
    "qlora": ("bitsandbytes",),
    "export": ("onnx", "onnxruntime", "onnxscript"),
    "openvino": ("openvino",),
    "excel": ("python_calamine",),
    "sql": ("sqlalchemy",),
    "s3": ("s3fs",),
    "gcs": ("gcsfs",),
    "azure": ("adlfs",),
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
    matmul_backend: dict[str, str | float]
    """The faster library for float32 linear layers, and how many times as fast as MKL oneDNN is."""
    measured: dict[str, str]
    """Whether these two were measured just now, or come from an earlier measurement in the folder `cache`."""


def doctor(remeasure: bool = False) -> Diagnosis:
    """Return hardware, versions, extras (with the command that adds a missing one), and what is fastest here.

    remeasure: forget earlier measurements. Runs that have begun keep their choices.
    """
    import torch

    from tunesmith.models import onednn_linear
    from tunesmith.training import precision

    if remeasure:
        autotuning.forget()
        onednn_linear.measured.cache_clear()
    device, threads = processes.device(), torch.get_num_threads()
    formats, backend = precision.measured(device), onednn_linear.measured(threads)
    needed = {name: (modules, f"'tunesmith[{name}]'") for name, modules in EXTRAS.items()}
    needed |= {name: ((name,), name) for name in TRACKERS}
    return Diagnosis(
        **records.fields_of(Environment, hardware.environment(str(device))),
        tunesmith=__version__,
        threads=threads,
        asset_cache=str(assets.cache()),
        extras={
            name: "installed" if all(map(_is_installed, modules)) else f"missing: pip install {package}"
            for name, (modules, package) in needed.items()
        },
        number_formats=records.load(precision.PrecisionMeasurement, formats.value, str(autotuning.folder())),
        matmul_backend=backend.value,
        measured={
            "number_formats": formats.source,
            "matmul_backend": backend.source,
            "cache": str(autotuning.folder()),
        },
    )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
