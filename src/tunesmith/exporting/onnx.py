"""Models for ONNX Runtime: in float32, and with 8-bit weights.

Reading a classifier back needs onnxruntime and tokenizers, not torch.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from tunesmith.errors import MissingExtra, ModelError
from tunesmith.exporting import standalone
from tunesmith.exporting.source import Exported, ExportSource
from tunesmith.exporting.standalone import Inputs, StandaloneClassifier
from tunesmith.protocols import Logits

MODEL = "model.onnx"
QUANTIZED = ("MatMul", "Gemm", "Gather")
"""Operators whose weights are quantized: matrix products, and embeddings, which are most of a small model's file."""
BLOCK = 32
"""Weights of a language model that share a scale."""
QUANTIZER = "onnx.quantize"
"""The producer of a quantized graph, as its file says."""
ALONE = 1
"""Token budget that computes one text at a time: quantized activations are scaled by the largest value of their batch,
so a text's probabilities would depend on its neighbours."""


def onnx(source: ExportSource, folder: Path) -> Exported:
    """Write the model as an ONNX graph in float32, with dynamic batch and sequence axes."""
    if source.parts.chat is not None:
        return _decoder(source, folder, "onnx")
    return _classifier(source, folder, "onnx")


def onnx_int8(source: ExportSource, folder: Path) -> Exported:
    """Write the same with 8-bit weights.

    A classifier has one scale per column, and its activations are quantized dynamically. A language model has one scale
    per block of a column, and computes in float32.
    """
    if source.parts.chat is not None:
        return _decoder(source, folder, "onnx-int8")
    return _classifier(source, folder, "onnx-int8")


def load(folder: Path, threads: int | None = None) -> StandaloneClassifier:
    """Return the classifier in a folder that `onnx` or `onnx_int8` wrote. threads: None for OMP_NUM_THREADS, or all.

    Raises ModelError where there is no such folder, MissingExtra without onnxruntime.
    """
    _require("onnxruntime")
    import onnxruntime

    if not (folder / MODEL).is_file():
        raise ModelError(f"{folder} has no {MODEL}", do="tunesmith export RUN --to onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or int(os.environ.get("OMP_NUM_THREADS") or 0)
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(folder / MODEL, options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    if not set(names) <= set(standalone.FIELDS):
        raise ModelError(f"{folder} is a language model", do="tunesmith.prediction.generate.Generator.load(folder)")

    def call(inputs: Inputs) -> Logits:
        logits_BK: Logits = session.run(["logits"], inputs)[0]
        return logits_BK

    quantized = session.get_modelmeta().producer_name == QUANTIZER
    return StandaloneClassifier.open(folder, names, call, ALONE if quantized else standalone.MAX_TOKENS)


def _decoder(source: ExportSource, folder: Path, target: str) -> Exported:
    """Write a causal language model."""
    _require("onnx", "onnxscript", "onnxruntime")
    from transformers.exporters import OnnxConfig, OnnxExporter

    from tunesmith.exporting import decoder, network

    decoder.export(source, target, OnnxExporter, OnnxConfig()).save_pretrained(folder)
    if target == "onnx-int8":
        with network.tracing(target):
            _round_weights(folder / MODEL)
    return decoder.read_back(source, folder, "onnxruntime", exact=target == "onnx")


def _round_weights(file: Path) -> None:
    """Replace the weights of a graph's matrix products by 8-bit ones."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(str(file), bits=8, block_size=BLOCK, is_symmetric=True)
    quantizer.model.replace_gemm_with_matmul()
    quantizer.process()
    file.with_name(f"{MODEL}.data").unlink()  # what is saved is appended to it
    quantizer.model.save_model_to_file(file, use_external_data_format=True)


def _classifier(source: ExportSource, folder: Path, target: str) -> Exported:
    """Write a classifier, and the files that it needs beside it."""
    _require("onnx", "onnxscript", "onnxruntime")
    from onnxruntime.quantization import QuantType
    from transformers.exporters import OnnxConfig, OnnxExporter, OnnxRuntimeDynamicConfig, OnnxRuntimeQuantizer

    from tunesmith.exporting import network

    rounded = target == "onnx-int8"
    settings = OnnxRuntimeDynamicConfig(list(QUANTIZED), per_channel=True, weight_type=QuantType.QInt8)
    config = OnnxConfig(quantizer=OnnxRuntimeQuantizer(settings) if rounded else None)
    exported = network.export(source, target, OnnxExporter, config)
    exported.program.graph.outputs[0].name = "logits"
    exported.save_pretrained(folder)
    network.write_beside(source, folder)
    standalone.write_example(
        folder,
        source.target,
        "onnxruntime",
        "import numpy, onnxruntime",
        f'session = onnxruntime.InferenceSession(folder / "{MODEL}")',
        "logits = session.run(None, {node.name: numpy.array(inputs[node.name]) for node in session.get_inputs()})[0]",
    )
    return Exported(load(folder).logits, "onnxruntime", exact=not rounded)


def _require(*modules: str) -> None:
    if missing := [name for name in modules if importlib.util.find_spec(name) is None]:
        raise MissingExtra(f"{', '.join(missing)} is not installed", do="pip install 'tunesmith[export]'")
