"""A classifier as a torch module from token ids to logits, and what exporters need to trace it."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from transformers.exporters import DynamoConfig, ExportedModel, HfExporter

from tunesmith import disk
from tunesmith.data import batches
from tunesmith.data.encode import encode
from tunesmith.errors import ModelError, RunError
from tunesmith.exporting import weights
from tunesmith.exporting.source import ExportSource
from tunesmith.protocols import ProbeHead
from tunesmith.tasks import text_targets
from tunesmith.types import Example

NAMES = ("input_ids", "attention_mask", "token_type_ids")
"""The inputs of a program, in this order; token_type_ids only where the model was trained with them."""


class Network(nn.Module):
    """Token ids B x T in, logits B x K out; a probe's pooling and regression included."""

    def __init__(self, source: ExportSource, attention: str) -> None:
        super().__init__()
        assert source.target is not None
        self.body = copy.deepcopy(weights.merged(source))
        with contextlib.suppress(ValueError):  # XLNet and similar models have a single attention
            self.body.set_attn_implementation(attention)
        self.config = copy.deepcopy(source.parts.model.config)
        text_targets.write_config(self.config, source.target)
        head = source.parts.head
        self.head = None if head is None else _RegressionHead(head, len(source.target.labels))

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        more = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        output = self.body(input_ids=input_ids, attention_mask=attention_mask, **more)
        logits_BK: torch.Tensor = (
            output.logits if self.head is None else self.head(output.last_hidden_state, attention_mask)
        )
        return logits_BK


class _RegressionHead(nn.Module):
    """The pooling of `prediction.classify.embed` and the regression, in float32."""

    def __init__(self, head: ProbeHead, labels: int) -> None:
        super().__init__()
        weight_KD, bias_K = torch.tensor(head.weight), torch.tensor(head.bias)
        if len(bias_K) == 1 and labels == 2:  # of two classes, only the second has weights
            weight_KD, bias_K = torch.cat([0 * weight_KD, weight_KD]), torch.cat([0 * bias_K, bias_K])
        self.linear = nn.Linear(weight_KD.shape[1], weight_KD.shape[0])
        self.linear.weight.data, self.linear.bias.data = weight_KD.float(), bias_K.float()
        self.settings = head.settings

    def forward(self, hidden_BTD: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
        if self.settings.pooling == "cls":
            first_BT = (mask_BT.cumsum(1) == 1) & (mask_BT == 1)  # after left padding
            pooled_BD = (hidden_BTD * first_BT[:, :, None]).sum(1)
        else:
            mask_BT1 = mask_BT.to(hidden_BTD.dtype)[:, :, None]
            pooled_BD = (hidden_BTD * mask_BT1).sum(1) / mask_BT1.sum(1)
        if self.settings.normalize:
            pooled_BD = pooled_BD / pooled_BD.norm(dim=1, keepdim=True)
        logits_BK: torch.Tensor = self.linear(pooled_BD)
        return logits_BK


def check(source: ExportSource, target: str) -> None:
    """Raise RunError for a classifier that cannot be a program: a bag of words, or one with a slow tokenizer."""
    source.require_precision(target, "float32")
    if source.parts.model is None:
        raise RunError(
            f"a bag of words cannot be written as {target}",
            found="n-grams of words and of characters, which its operators split differently",
            do="export --to safetensors: two small files that only need numpy",
        )
    if not getattr(source.parts.tokenizer, "is_fast", False):
        raise RunError("a program needs a fast tokenizer", found="a slow one, in Python", do="export --to safetensors")


def trace(source: ExportSource, attention: str) -> tuple[Network, dict[str, torch.Tensor]]:
    """Return the network, on the CPU, and inputs of unequal lengths to trace it with.

    attention: `sdpa` or `eager`, whichever the run itself predicts with.
    """
    network, tokenizer = Network(source, attention).cpu().eval(), source.parts.tokenizer
    rows, _ = encode([Example("long", "a b c d e f g"), Example("short", "a b")], tokenizer, source.parts.max_length)
    inputs = batches.collate(rows, tokenizer).inputs
    if unknown := sorted(set(inputs) - set(NAMES)):
        raise ModelError(
            f"this model has the inputs {', '.join(unknown)}", expected=", ".join(NAMES), do="export --to safetensors"
        )
    return network, {name: inputs[name] for name in NAMES if name in inputs}


def export(source: ExportSource, target: str, exporter: type[HfExporter], config: DynamoConfig) -> ExportedModel:
    """Return the network, with dynamic batch and length, as an exporter of transformers writes it."""
    check(source, target)
    network, inputs = trace(source, "eager" if target.startswith("onnx") else "sdpa")
    config.dynamic_shapes = {name: dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC) for name in inputs}
    with tracing(target):
        return exporter().export(network, inputs, config)


def write_beside(source: ExportSource, folder: Path) -> None:
    """Write a tokenizer.json that truncates and pads by itself."""
    from tokenizers import Tokenizer

    tokenizer = source.parts.tokenizer
    tokenizer.save_pretrained(folder)
    standalone = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    standalone.enable_truncation(source.parts.max_length, direction=tokenizer.truncation_side)
    standalone.enable_padding(
        direction=tokenizer.padding_side,
        pad_id=tokenizer.pad_token_id,
        pad_type_id=tokenizer.pad_token_type_id,
        pad_token=tokenizer.pad_token,
    )
    standalone.save(str(folder / "tokenizer.json"))


@contextlib.contextmanager
def tracing(target: str) -> Iterator[None]:
    """Hide what exporters tell their developers, and raise ModelError where they fail."""
    disabled = logging.root.manager.disable
    try:
        logging.disable(logging.WARNING)
        with warnings.catch_warnings(), torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # exporters raise in many ways; each means that this model cannot be traced
        if isinstance(error, OSError) or disk.code(error) is not None:
            raise
        raise ModelError(
            f"this model cannot be written as {target}",
            found=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            do="export --to safetensors",
        ) from error
    finally:
        logging.disable(disabled)
