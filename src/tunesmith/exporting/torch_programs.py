"""Models as torch programs: `torch.export` (.pt2), and TorchScript as long as torch has it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from tunesmith.models.graphs import EXPORTED, SCRIPTED
from tunesmith.protocols import Logits

RUN = "logits = model(**{{name: torch.tensor(inputs[name]) for name in {inputs}}}).detach().numpy()"

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
    from transformers.exporters import DynamoConfig, DynamoExporter

    write = network.export if source.parts.chat is None else decoder.export
    exported = write(source, "torch-export", DynamoExporter, DynamoConfig())
    with disk.deferring(folder / EXPORTED) as file:
        torch.export.save(exported.program, file)
    exported.config.save_pretrained(folder)
    if source.parts.chat is not None:
        return decoder.read_back(source, folder, "torch.export", EXPORTED_LINES)
    load = f'torch.export.load(folder / "{EXPORTED}").module()'
    loaded = torch.export.load(folder / EXPORTED).module()
    return _finished(source, folder, "torch.export", load, loaded, list(exported.components["model"].metadata.kwargs))


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
        traced: Any = torch.jit.trace(module, tuple(inputs.values()), check_trace=False)  # type: ignore[no-untyped-call]
        with disk.deferring(folder / SCRIPTED) as file:
            torch.jit.save(traced, file)
        loaded = torch.jit.load(str(folder / SCRIPTED))  # type: ignore[no-untyped-call]
    module.config.save_pretrained(folder)
    return _finished(source, folder, "TorchScript", f'torch.jit.load(folder / "{SCRIPTED}")', loaded, list(inputs))


def _finished(
    source: ExportSource,
    folder: Path,
    engine: str,
    load: str,
    program: Callable[..., torch.Tensor],
    inputs: Sequence[str],
) -> Exported:
    """Write the files that a program needs beside it, and return the program as it was read back."""
    network.write_beside(source, folder)
    run = RUN.format(inputs=tuple(inputs))
    standalone.write_example(folder, source.target, engine, "import numpy, torch", f"model = {load}", run)

    def call(arrays: Inputs) -> Logits:
        with torch.no_grad():
            logits_BK = program(**{name: torch.from_numpy(array) for name, array in arrays.items()})
        return np.asarray(logits_BK.numpy())

    return Exported(StandaloneClassifier.open(folder, inputs, call).logits, engine)
