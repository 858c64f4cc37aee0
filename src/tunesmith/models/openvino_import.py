"""Importing OpenVINO, which by itself reports every import to its makers."""

from __future__ import annotations

import sys
from typing import Any

from tunesmith.errors import MissingExtra

FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32"}
"""What a graph is compiled with: some processors would compute in bfloat16, and the answers would be others."""


def module() -> Any:
    """Return OpenVINO without its telemetry. Raises MissingExtra where it is not installed."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # OpenVINO then does without
    try:
        import openvino
    except ImportError:
        raise MissingExtra("openvino is not installed", do="pip install 'tunesmith[openvino]'") from None
    return openvino
