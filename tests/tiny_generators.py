"""Tiny generators with random weights, and one that writes a given text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests import tiny
from tunesmith.data.prompts import ChatEncoder
from tunesmith.exporting.source import ExportSource
from tunesmith.prediction.generate import Generator
from tunesmith.recipe import Generate, Model, Prompt

FAMILIES = ["llama", "gpt2", "opt", "gpt_neox"]
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}[SEP]\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_tokenizer(pad: str = "[PAD]") -> Any:
    """Every byte is a token, so most characters of most scripts are split."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "<|im_start|>"]
    alphabet = special + sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE({token: i for i, token in enumerate(alphabet)}, []))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens(special)
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token=pad, eos_token="[SEP]", model_max_length=512)


def generator(
    family: str = "llama", template: str = "alpaca", pad: str = "[PAD]", max_length: int = 500, **changes: Any
) -> Generator:
    words = byte_tokenizer(pad)
    words.chat_template = CHAT
    model = tiny.causal(family, vocab_size=len(words), max_position_embeddings=512, **changes)
    for weight in model.parameters():  # further apart than at the start: the likeliest token leads clearly
        if weight.ndim == 2:
            weight.data *= 3
    return Generator(model, ChatEncoder.of(Prompt(template=template), words), max_length)


def scripted(generator: Generator, text: str, ended: bool = True) -> Generator:
    """Make a generator write this text, token by token, whatever it is asked."""
    ids = generator.chat_encoder.tokens([text])[0] + ([3] if ended else []) + [40] * 200
    calls = iter(ids)

    def force(module: Any, args: Any, output: Any) -> None:
        output.logits = torch.zeros_like(output.logits[:, -1:])
        output.logits[:, :, next(calls)] = 1

    generator.model.register_forward_hook(force)
    return generator


def export_source(generator: Generator, settings: Generate, **changes: Any) -> ExportSource:
    """What an export starts from, as of a run of this generator."""
    facts: dict[str, Any] = {"is_adapter": False, "base": Model(name_or_path="tiny"), "generate": settings}
    return ExportSource(
        "generator", generator, generator.parts(), (), Path("run/model"), Generator.load, **facts | changes
    )
