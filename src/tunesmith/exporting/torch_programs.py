"""Models as torch programs: `torch.export` (.pt2), and TorchScript as long as torch has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tunesmith import disk
from tunesmith.errors import ModelError
from tunesmith.exporting import decoder, network, standalone
from tunesmith.exporting.decoder import RunLines
from tunesmith.exporting.source import Exported, ExportSource
from tunesmith.exporting.standalone import Inputs, StandaloneClassifier
from tunesmith.models.graphs import SCRIPTED
from tunesmith.protocols import Logits

EXPORTED = "model.pt2"
RUN = "logits = model(*(torch.tensor(values) for values in list(inputs.values())[:{inputs}])).detach().numpy()"

OPEN = """\
self.graph = {load}
names = [f"{layer}.{name}" for layer in range({layers}) for name in ("key", "value")]
self.cache = {name: torch.zeros(1, {heads}, 0, {size}) for name in names}"""
EXPORTED_LINES = RunLines(
    "torch",
    "import torch",
    OPEN.replace("{load}", f'torch.export.load(FOLDER / "{EXPORTED}").module()'),
    """\
tensors = {name: torch.as_tensor(value) for name, value in inputs.items()}
with torch.no_grad():
    output = self.graph(**tensors, past_key_values=self.cache)
logits, longer = output["logits"].numpy(), output["present"].values()""",
)
SCRIPTED_LINES = RunLines(
    "torch",
    "import torch",
    OPEN.replace("{load}", f'torch.jit.load(FOLDER / "{SCRIPTED}")'),
    """\
with torch.no_grad():
    logits, *longer = self.graph(*map(torch.as_tensor, inputs.values()), *self.cache.values())
logits = logits.numpy()""",
)


def torch_export(source: ExportSource, folder: Path) -> Exported:
    """Write the model with torch.export; it runs wherever torch does, without its Python code."""
    if source.parts.chat is not None:
        from transformers.exporters.exporter_dynamo import DynamoConfig, DynamoExporter

        decoder.check(source, "torch-export")
        decoder.write(source, folder, "torch-export", DynamoExporter, DynamoConfig())
        return decoder.read_back(source, folder, "torch.export", EXPORTED_LINES)
    network.check(source, "torch-export")
    module, inputs = network.trace(source, "sdpa")
    with network.tracing("torch-export"):
        shapes = tuple(dict.fromkeys(network.AXES, torch.export.Dim.DYNAMIC) for _ in inputs)
        program = torch.export.export(module, inputs, dynamic_shapes=shapes)
        with disk.deferring(folder / EXPORTED) as file:
            torch.export.save(program, file)
        loaded = torch.export.load(folder / EXPORTED).module()
    load = f'model = torch.export.load(folder / "{EXPORTED}").module()'
    return _finished(source, folder, "torch.export", load, loaded, len(inputs))


def torchscript(source: ExportSource, folder: Path) -> Exported:
    """Write the model with torch.jit.trace, for C++ and older servers.

    Raises ModelError where torch no longer has TorchScript, and for a model that cannot be traced.
    """
    if not hasattr(torch, "jit") or not hasattr(torch.jit, "trace"):
        raise ModelError(f"torch {torch.__version__} has no TorchScript any more", do="export --to torch-export")
    if source.parts.chat is not None:
        decoder.check(source, "torchscript")
        decoder.write_scripted(source, folder)
        return decoder.read_back(source, folder, "TorchScript", SCRIPTED_LINES)
    network.check(source, "torchscript")
    module, inputs = network.trace(source, "eager")
    with network.tracing("torchscript"):
        traced: Any = torch.jit.trace(module, inputs, check_trace=False)  # type: ignore[no-untyped-call]
        with disk.deferring(folder / SCRIPTED) as file:
            torch.jit.save(traced, file)
        loaded = torch.jit.load(str(folder / SCRIPTED))  # type: ignore[no-untyped-call]
    load = f'model = torch.jit.load(folder / "{SCRIPTED}")'
    return _finished(source, folder, "TorchScript", load, loaded, len(inputs))


def _finished(
    source: ExportSource, folder: Path, engine: str, load: str, program: Callable[..., torch.Tensor], inputs: int
) -> Exported:
    """Write the files that a program needs beside it, and return the program as it was read back."""
    network.write_beside(source, folder)
    standalone.write_example(folder, engine, "import torch", load, RUN.format(inputs=inputs))

    def call(arrays: Inputs) -> Logits:
        with torch.no_grad():
            logits_BK = program(*(torch.from_numpy(arrays[name]) for name in network.NAMES[:inputs]))
        return np.asarray(logits_BK.numpy())

    return Exported(StandaloneClassifier.open(folder, network.NAMES[:inputs], call).logits, engine)
