"""Texts -> token ids, cut at the longest input; what was cut is counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.types import Change, Example

CHUNK = 1000
"""Texts tokenized at once."""


IGNORE = -100
"""The label of what is not learned, as torch's cross-entropy has it."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of one example, special tokens included, not padded."""

    id: str
    inputs: dict[str, list[int]]
    """What the tokenizer gives for the model: `input_ids`, for some models also `token_type_ids`."""
    label: int = IGNORE
    """Index of the label, where it is known."""

    def __len__(self) -> int:
        return len(self.inputs["input_ids"])


@dataclass(frozen=True, slots=True)
class EncodedText:
    """Token ids of one text for a causal model, and which of them are learned; not padded."""

    id: str
    ids: list[int]
    labels: list[int]
    """Per token its id where it is learned, else IGNORE; the token before a learned one predicts it."""

    def __len__(self) -> int:
        return len(self.ids)


def encode(
    examples: Sequence[Example], tokenizer: Any, max_length: int, labels: Sequence[str] = ()
) -> tuple[list[Encoded], list[Change]]:
    """Tokenize single texts or pairs; inputs over `max_length` are cut at the end (of a pair: of the longer text)."""
    index = {label: i for i, label in enumerate(labels)}
    encoded: list[Encoded] = []
    cut: list[str] = []
    for start in range(0, len(examples), CHUNK):
        chunk = examples[start : start + CHUNK]
        inputs = _tokenize(chunk, tokenizer)
        long = [i for i, one in enumerate(inputs) if len(one["input_ids"]) > max_length]
        for i, one in zip(long, _tokenize([chunk[i] for i in long], tokenizer, max_length), strict=True):
            inputs[i] = one
        encoded += [
            Encoded(example.id, one, index.get(example.label or "", IGNORE))
            for example, one in zip(chunk, inputs, strict=True)
        ]
        cut += [chunk[i].id for i in long]
    changes = [Change(f"cut at {max_length} tokens (model.max_length)", len(cut), tuple(cut[:5]))] if cut else []
    return encoded, changes


def _tokenize(examples: Sequence[Example], tokenizer: Any, max_length: int | None = None) -> list[dict[str, list[int]]]:
    if not examples:
        return []
    texts = [example.text for example in examples]
    pairs = [example.text_pair or "" for example in examples] if examples[0].text_pair is not None else None
    found = tokenizer(
        texts,
        pairs,
        truncation=max_length is not None,
        max_length=max_length,
        return_attention_mask=False,
        verbose=False,
    )
    return [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]
