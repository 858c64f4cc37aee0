"""`torch.compile` of a model's repeated layers, and whether a run is long enough to pay for it."""

from __future__ import annotations

import shutil

import torch
from torch import nn

from tunesmith.errors import TrainingError
from tunesmith.models import architectures

WORTH_IT = {"cpu": 500}
"""Steps from which `auto` compiles; docs/engine.md has what was measured."""
ELSEWHERE = 2000
"""The same on devices where nothing was measured."""
COMPILERS = ("g++", "clang++")


def pays(setting: bool | str, num_steps: int, device: torch.device, causal: bool = False) -> tuple[bool, str]:
    """Whether to compile for a run of so many steps, and why, to be said: `engine.compile` as a decision.

    causal: the model is a causal language model; compiled encoders were slower on a CPU.
    Raises TrainingError where true asks for it on a CPU without a C++ compiler.
    """
    missing = device.type == "cpu" and not any(map(shutil.which, COMPILERS))
    if missing and setting is True:
        raise TrainingError(
            "engine.compile=true makes C++ code on a CPU",
            expected=f"a compiler: {' or '.join(COMPILERS)}",
            found="none",
            do="install g++ (Debian: apt install g++), or set engine.compile=false",
        )
    if setting != "auto":
        return bool(setting), f"engine.compile is {str(setting).lower()}"
    if missing:
        return False, "not compiled: no C++ compiler"
    if device.type == "cpu" and not causal:
        return False, "not compiled: on a CPU that makes encoders slower"
    least = WORTH_IT.get(device.type, ELSEWHERE)
    if num_steps < least:
        return False, f"not compiled: it would not pay in {num_steps} steps (from {least})"
    return True, f"compiled: it pays in {num_steps} steps (from {least})"


def compile_layers(model: nn.Module) -> int:
    """Compile each repeated layer in place; returns their number. The code is made when they first run.

    All lengths share one compilation, and so do all layers, which differ in their weights alone. What is outside of
    them (embeddings, head, losses) stays as it is, hooks included; names in the state dict do not change.
    """
    layers = list(architectures.repeated_layers(model))
    for layer in layers:
        layer.compile(dynamic=True)
    return len(layers)
