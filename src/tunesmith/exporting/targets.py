"""The export targets by name. A new target is a function and a row here."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from tunesmith.errors import RunError
from tunesmith.exporting.source import Exported, ExportSource

Target = Callable[[ExportSource, Path], Exported]
TARGETS = {
    "safetensors": "weights:safetensors",
    "adapter": "weights:adapter",
    "pth": "weights:pth",
    "onnx": "onnx:onnx",
    "onnx-int8": "onnx:onnx_int8",
    "openvino": "openvino:openvino",
    "torch-export": "torch_programs:torch_export",
    "torchscript": "torch_programs:torchscript",
    "gguf": "gguf:gguf",
    "ollama": "ollama:ollama",
}
"""Name -> module and function of this package, imported at first use."""


def find(name: str) -> Target:
    """Return the function that writes a target. Raises RunError for an unknown name."""
    if name not in TARGETS:
        raise RunError(f"no export target {name!r}", expected=", ".join(TARGETS))
    module, _, function = TARGETS[name].partition(":")
    target: Target = getattr(import_module(f"tunesmith.exporting.{module}"), function)
    return target
