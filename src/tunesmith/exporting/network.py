"""A classifier as one torch module from token ids to logits, and what exporters need to trace it."""

from __future__ import annotations

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from tunesmith.data import batches
from tunesmith.data.encode import encode
from tunesmith.errors import ModelError, RunError
from tunesmith.exporting import weights
from tunesmith.exporting.source import ExportSource
from tunesmith.protocols import ProbeHead
from tunesmith.types import Example

NAMES = ("input_ids", "attention_mask", "token_type_ids")
"""What a program is fed with, in this order; the last one only where the model was trained with it."""
AXES = {0: "batch", 1: "sequence"}


class Network(nn.Module):
    """Token ids B x T in, logits B x K out; of a probe with its pooling and regression."""

    def __init__(self, trained: ExportSource, attention: str) -> None:
        super().__init__()
        self.body = copy.deepcopy(weights.merged(trained))
        with contextlib.suppress(ValueError):  # XLNet and its kin have one attention and no choice
            self.body.set_attn_implementation(attention)
        self.head = None if trained.parts.head is None else _RegressionHead(trained.parts.head)

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
    """What `prediction.classify.embed` and the regression compute, in float32 and in one graph."""

    def __init__(self, head: ProbeHead) -> None:
        super().__init__()
        weight_KD, bias_K = torch.tensor(head.weight), torch.tensor(head.bias)
        if len(bias_K) == 1:  # of two classes the first has no weights of its own
            weight_KD, bias_K = torch.cat([0 * weight_KD, weight_KD]), torch.cat([0 * bias_K, bias_K])
        self.linear = nn.Linear(weight_KD.shape[1], weight_KD.shape[0])
        self.linear.weight.data, self.linear.bias.data = weight_KD.float(), bias_K.float()
        self.settings = head.settings

    def forward(self, hidden_BTD: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
        if self.settings.pooling == "cls":
            first_BT = (mask_BT.cumsum(1) == 1) & (mask_BT == 1)  # behind the padding, where that is on the left
            pooled_BD = (hidden_BTD * first_BT[:, :, None]).sum(1)
        else:
            mask_BT1 = mask_BT.to(hidden_BTD.dtype)[:, :, None]
            pooled_BD = (hidden_BTD * mask_BT1).sum(1) / mask_BT1.sum(1)
        if self.settings.normalize:
            pooled_BD = pooled_BD / pooled_BD.norm(dim=1, keepdim=True)
        logits_BK: torch.Tensor = self.linear(pooled_BD)
        return logits_BK


def check(trained: ExportSource, target: str) -> None:
    """Refuse what a program of this kind would not be worth: causal language models, bags of words."""
    trained.allow(target, "float32")
    if trained.parts.model is None:
        raise RunError(
            f"a bag of words cannot be written as {target}",
            found="n-grams by a regular expression and by words' characters, which its operators cut differently",
            do="export --to safetensors: two small files that need numpy alone",
        )
    if trained.parts.chat is not None:
        raise RunError(
            f"{target} would compute the whole text anew for every token that is written",
            found="a causal language model, which needs a cache of what it has read",
            do="export --to safetensors (transformers, vLLM, TGI), gguf (llama.cpp) or ollama",
        )
    if not getattr(trained.parts.tokenizer, "is_fast", False):
        raise RunError("a program needs a tokenizer in one file", found="a tokenizer in Python", do="use safetensors")


def trace(trained: ExportSource, attention: str) -> tuple[Network, tuple[torch.Tensor, ...]]:
    """The network, on the CPU, and inputs of unequal lengths to trace it with.

    attention: `sdpa` or `eager`. Whatever layout the run predicts with, a traced graph has one of these: this is the
    one place where it is set.
    """
    network, tokenizer = Network(trained, attention).cpu().eval(), trained.parts.tokenizer
    rows, _ = encode([Example("long", "a b c d e f g"), Example("short", "a b")], tokenizer, trained.parts.max_length)
    inputs = batches.collate(rows, tokenizer).inputs
    if unknown := sorted(set(inputs) - set(NAMES)):
        raise ModelError(f"this model wants {', '.join(unknown)}", expected=", ".join(NAMES), do="use safetensors")
    return network, tuple(inputs[name] for name in NAMES if name in inputs)


def write_beside(trained: ExportSource, folder: Path) -> None:
    """config.json with the label names, and a tokenizer that cuts and pads by itself, as `tokenizers` reads it."""
    from tokenizers import Tokenizer

    config = copy.deepcopy(trained.parts.model.config)
    config.id2label = dict(enumerate(trained.labels))
    config.label2id = {name: index for index, name in enumerate(trained.labels)}
    config.save_pretrained(folder)
    words = trained.parts.tokenizer
    words.save_pretrained(folder)
    alone = Tokenizer.from_str(words.backend_tokenizer.to_str())
    alone.enable_truncation(trained.parts.max_length, direction=words.truncation_side)
    alone.enable_padding(
        direction=words.padding_side,
        pad_id=words.pad_token_id,
        pad_type_id=words.pad_token_type_id,
        pad_token=words.pad_token,
    )
    alone.save(str(folder / "tokenizer.json"))


@contextlib.contextmanager
def tracing(target: str) -> Iterator[None]:
    """Without what exporters say to their developers; what they cannot trace is explained."""
    loggers = [logging.getLogger(name) for name in (None, "torch.onnx", "torch.export", "transformers")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # exporters raise in many ways; whatever it is, this model cannot be traced
        raise ModelError(
            f"this model cannot be written as {target}",
            found=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            do="export --to safetensors",
        ) from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
