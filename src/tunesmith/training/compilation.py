"""`torch.compile` for a model's repeated layers, and whether a run is long enough to gain from it."""

from __future__ import annotations

import shutil

import torch
from torch import nn

from tunesmith.errors import TrainingError
from tunesmith.models import architectures

MIN_STEPS = {"cpu": 500}
"""Steps from which `auto` compiles, by device; docs/reference/engine.md has the measurements."""
MIN_STEPS_UNMEASURED = 2000
"""The same for devices without measurements."""
COMPILERS = ("g++", "clang++")


def decide(setting: bool | str, num_steps: int, device: torch.device, causal: bool = False) -> tuple[bool, str]:
    """Return whether to compile for a run of `num_steps` under `engine.compile`, and the reason, as a message.

    causal: whether the model is a causal language model; compiled encoders were slower on a CPU.
    Raises TrainingError if the setting is true on a CPU without a C++ compiler.
    """
    if setting is True:
        require_compiler(device)
    if setting != "auto":
        return bool(setting), f"engine.compile is {str(setting).lower()}"
    if _lacks_compiler(device):
        return False, "not compiled: no C++ compiler"
    if device.type == "cpu" and not causal:
        return False, "not compiled: encoders are slower compiled on a CPU"
    least = MIN_STEPS.get(device.type, MIN_STEPS_UNMEASURED)
    if num_steps < least:
        return False, f"not compiled: {num_steps} steps are too few to gain (from {least})"
    return True, f"compiled: {num_steps} steps are enough to gain (from {least})"


def require_compiler(device: torch.device) -> None:
    """Raise TrainingError if compiling for this device needs a C++ compiler and there is none."""
    if _lacks_compiler(device):
        raise TrainingError(
            "engine.compile needs a C++ compiler on a CPU",
            expected=" or ".join(COMPILERS),
            found="none",
            do="install g++ (Debian: apt install g++), or set engine.compile=false",
        )


def _lacks_compiler(device: torch.device) -> bool:
    return device.type == "cpu" and not any(map(shutil.which, COMPILERS))


def compile_layers(model: nn.Module) -> int:
    """Compile each repeated layer in place; returns their number. Compilation happens when they first run.

    All lengths and all layers share one compilation, because layers differ only in their weights. Embeddings, head,
    losses and hooks do not change, and neither do names in the state dict.
    """
    layers = list(architectures.repeated_layers(model))
    for layer in layers:
        layer.compile(dynamic=True)
    return len(layers)
