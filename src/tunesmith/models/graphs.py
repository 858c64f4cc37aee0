"""Exported causal language models, called like those of transformers.

A folder holds one graph, which takes tokens and the key-value cache of the tokens before them, and returns logits and
the longer cache. With an empty cache it reads a prompt, with a full one it goes on by a token.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from tunesmith.errors import MissingExtra
from tunesmith.models import openvino_import

MANIFEST = "export.json"
"""What the exporters of transformers write beside a graph."""
SCRIPTED = "model.pt"
"""TorchScript, which has no manifest."""
Program = Callable[..., dict[str, Any]]
"""Takes `input_ids` (B x T), `attention_mask` (B x (P + T)), `position_ids` (B x T), `logits_to_keep` (indices into T)
and `past_key_values` (`0.key`, `0.value` ..., each B x heads x P x size); returns `logits` and `present`."""


def is_graph(folder: Path) -> bool:
    """Return whether a folder holds an exported graph, not weights."""
    return (folder / MANIFEST).is_file() or (folder / SCRIPTED).is_file()


class GraphModel(nn.Module):
    """A graph as a causal language model on the CPU."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, program: Program, config: Any, folder: Path) -> None:
        super().__init__()
        self.program, self.config, self.folder = program, config, folder
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)  # callers ask the parameters for the device

    @classmethod
    def load(cls, folder: Path) -> GraphModel:
        """Return the model in a folder; it uses as many threads as torch. Raises MissingExtra without its package."""
        from transformers import AutoConfig
        from transformers.exporters.base import ExportedModel

        config = AutoConfig.from_pretrained(folder)
        if (folder / SCRIPTED).is_file():
            return cls(_scripted(folder / SCRIPTED), config, folder)
        kind = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["export_format"]
        options: dict[str, Any] = {}
        if kind == "openvino":
            openvino_import.module()
            options["config"] = openvino_import.FLOAT32 | {"INFERENCE_NUM_THREADS": torch.get_num_threads()}
        if kind == "onnx":
            try:
                import onnxruntime
            except ImportError:
                raise MissingExtra(f"{folder} needs onnxruntime", do="pip install 'tunesmith[export]'") from None
            options["session_options"] = onnxruntime.SessionOptions()
            options["session_options"].intra_op_num_threads = torch.get_num_threads()
            options["session_options"].log_severity_level = 3
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # transformers still uses what torch deprecates
            return cls(ExportedModel.from_pretrained(folder, device="cpu", **options), config, folder)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: dict[str, torch.Tensor] | None = None,
        logits_to_keep: int = 0,
        **_: Any,
    ) -> SimpleNamespace:
        """Return `logits` and the longer cache, `past_key_values`.

        logits_to_keep: the last positions that get logits; 0 for all.
        """
        batch, length = input_ids.shape
        past = past_key_values or empty_cache(self.config, batch)
        width = next(iter(past.values())).shape[2] + length
        if attention_mask is None:
            attention_mask = torch.ones(batch, width, dtype=torch.long)
        if position_ids is None:
            position_ids = torch.arange(width - length, width).expand(batch, length)
        output = self.program(
            input_ids=input_ids,
            attention_mask=attention_mask.long(),
            position_ids=position_ids,
            logits_to_keep=torch.arange(length - (logits_to_keep or length), length),
            past_key_values=past,
        )
        return SimpleNamespace(logits=output["logits"], past_key_values=output["present"])

    def save_pretrained(self, folder: Path) -> None:
        """Copy the graph and what lies beside it."""
        if folder.resolve() != self.folder.resolve():
            shutil.copytree(self.folder, folder, dirs_exist_ok=True)


def empty_cache(config: Any, batch: int) -> dict[str, torch.Tensor]:
    """Return the cache before the first token."""
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    names = [f"{number}.{name}" for number in range(config.num_hidden_layers) for name in ("key", "value")]
    return {name: torch.zeros(batch, heads, 0, size) for name in names}


def _scripted(file: Path) -> Program:
    """Return a TorchScript program, whose cache is a flat list."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # whoever exports to TorchScript has decided for it
        program: Any = torch.jit.load(str(file))  # type: ignore[no-untyped-call]

    def call(past_key_values: dict[str, torch.Tensor], **inputs: torch.Tensor) -> dict[str, Any]:
        with torch.no_grad():
            logits, *present = program(*inputs.values(), *past_key_values.values())
        return {"logits": logits, "present": dict(zip(past_key_values, present, strict=True))}

    return call
