"""Models for OpenVINO, in float32. Reading a classifier back needs openvino and tokenizers, not torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tunesmith.errors import ModelError
from tunesmith.exporting import standalone
from tunesmith.exporting.source import Exported, ExportSource
from tunesmith.exporting.standalone import Inputs, StandaloneClassifier
from tunesmith.models import openvino_import
from tunesmith.protocols import Logits

MODEL = "openvino_model.xml"
"""The name that Optimum gave it. The weights lie beside it, in a .bin file."""
IMPORT = """\
sys.modules["openvino_telemetry"] = None  # OpenVINO reports every import to its makers
import openvino"""
COMPILE = """\
exact = {{"INFERENCE_PRECISION_HINT": "f32"}}  # some processors would compute in bfloat16
{graph} = openvino.Core().compile_model({folder} / "openvino_model.xml", "CPU", exact)"""
EMPTY_CACHE = """\
names = [f"past_key_values.{layer}.{name}" for layer in range({layers}) for name in ("key", "value")]
self.cache = {name: np.zeros((1, {heads}, 0, {size}), np.float32) for name in names}"""


def openvino(source: ExportSource, folder: Path) -> Exported:
    """Write the model as an OpenVINO graph, with dynamic batch and sequence axes."""
    from tunesmith.exporting import decoder, network

    kind = network if source.parts.chat is None else decoder
    kind.check(source, "openvino")  # before it asks for a package that would not help
    openvino_import.module()
    from transformers.exporters import OpenVINOConfig, OpenVINOExporter

    # A cache stays an input and an output, as in every other graph: hidden in the model, it would have one batch,
    # which rows could neither join nor leave.
    config = OpenVINOConfig(stateful=False)
    kind.export(source, "openvino", OpenVINOExporter, config).save_pretrained(folder)
    if source.parts.chat is not None:
        opened = COMPILE.format(graph="self.graph", folder="FOLDER") + "\n" + EMPTY_CACHE
        called = "logits, *longer = self.graph(inputs | self.cache).values()"
        return decoder.read_back(source, folder, "OpenVINO", decoder.RunLines("openvino", IMPORT, opened, called))
    network.write_beside(source, folder)
    standalone.write_example(
        folder,
        source.target,
        "OpenVINO",
        f"import numpy\n{IMPORT}",
        COMPILE.format(graph="graph", folder="folder"),
        "logits = graph({port.any_name: numpy.array(inputs[port.any_name]) for port in graph.inputs})[0]",
    )
    return Exported(load(folder).logits, "OpenVINO")


def load(folder: Path, threads: int | None = None) -> StandaloneClassifier:
    """Return the classifier in a folder that `openvino` wrote. threads: None for OMP_NUM_THREADS, or all.

    Raises ModelError where there is no such folder, MissingExtra without openvino.
    """
    if not (folder / MODEL).is_file():
        raise ModelError(f"{folder} has no {MODEL}", do="tunesmith export RUN --to openvino")
    config = {"INFERENCE_NUM_THREADS": threads or int(os.environ.get("OMP_NUM_THREADS") or 0)}
    graph: Any = openvino_import.module().Core().compile_model(folder / MODEL, "CPU", config | openvino_import.FLOAT32)

    def call(inputs: Inputs) -> Logits:
        logits_BK: Logits = graph.infer_new_request(inputs)[0]
        return logits_BK

    return StandaloneClassifier.open(folder, [port.any_name for port in graph.inputs], call)
