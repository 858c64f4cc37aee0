"""Texts -> token ids, cut at the maximum length; a note counts what was cut."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tunesmith.data.rows import note
from tunesmith.tasks.text_targets import Target
from tunesmith.types import DataNote, Example

CHUNK = 1000
"""Texts tokenized at once."""


IGNORE = -100
"""The label of tokens that are not learned, as in torch's cross-entropy."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of one example, special tokens included, not padded."""

    id: str
    inputs: dict[str, list[int]]
    """What the tokenizer gives for the model: `input_ids`, for some models also `token_type_ids`."""
    label: int | float | list[float] = IGNORE
    """What a loss compares the model's outputs with, where it is known: the index of a label, a number, or 0 or 1 for
    each label."""
    weight: float = 1.0
    """Of the example in the loss."""

    def __len__(self) -> int:
        return len(self.inputs["input_ids"])

    def sequences(self) -> list[Encoded]:
        """Return what lies in memory for this example: itself."""
        return [self]

    def unlearned(self) -> Encoded:
        """Return the same tokens without a label; numbers become NaN."""
        if isinstance(self.label, list):
            return replace(self, label=[math.nan] * len(self.label))
        return replace(self, label=math.nan if isinstance(self.label, float) else IGNORE)


@dataclass(frozen=True, slots=True)
class Ending:
    """Another end of a text, in place of its tokens from `start` on."""

    start: int
    ids: list[int]
    labels: list[int]
    """As those of EncodedText."""


@dataclass(frozen=True, slots=True)
class EncodedText:
    """Token ids of one text for a causal model, and which of them are learned; not padded."""

    id: str
    ids: list[int]
    labels: list[int]
    """Per token its id where it is learned, else IGNORE; the token before a learned one predicts it."""
    endings: tuple[Ending, ...] = ()
    """Other ends that are learned with it, none of them longer than its own: several answers to one prompt."""

    def __len__(self) -> int:
        return len(self.ids)

    def sequences(self) -> list[EncodedText]:
        """Return what lies in memory for this text: itself, and its beginning with each other end."""
        return [
            replace(self, endings=()),
            *(
                EncodedText(self.id, self.ids[: end.start] + end.ids, [IGNORE] * end.start + end.labels)
                for end in self.endings
            ),
        ]

    def unlearned(self) -> EncodedText:
        """Return the same tokens, none of them learned."""
        return EncodedText(self.id, self.ids, [IGNORE] * len(self.ids))


def encode(
    examples: Sequence[Example], tokenizer: Any, max_length: int, target: Target | None = None
) -> tuple[list[Encoded], list[DataNote]]:
    """Tokenize single texts or pairs; inputs over `max_length` are cut at the end (of a pair: of the longer text).

    target: what the examples are to be learned with; None if nothing is learned.
    """
    encoded: list[Encoded] = []
    cut: list[str] = []
    for start in range(0, len(examples), CHUNK):
        chunk = examples[start : start + CHUNK]
        inputs, long = _tokenize(chunk, tokenizer, max_length)
        labels = [IGNORE] * len(chunk) if target is None else target.encode(chunk)
        encoded += [
            Encoded(example.id, row, label, example.weight)
            for example, row, label in zip(chunk, inputs, labels, strict=True)
        ]
        cut += [chunk[i].id for i in long]
    return encoded, [note(f"cut at {max_length} tokens (model.max_length)", cut)] if cut else []


def kept(sequences: Sequence[int | None], most: int, side: str = "right") -> list[int]:
    """Return the positions of the tokens to keep where at most `most` fit.

    sequences: which text (0 or 1) each token is from, None for special tokens. Of a pair the longer text loses its end
    (or beginning, by `side`) until both have one length. Tokenizers cut in the same way, but also build every overflow
    of one text with every overflow of the other: two long texts would exhaust memory.
    """
    texts = [[place for place, of in enumerate(sequences) if of == text] for text in (0, 1)]
    first, second = map(len, texts)
    room = max(0, most - (len(sequences) - first - second))
    short = min(first, second, room // 2)
    sizes = (short, room - short) if first <= second else (room - short, short)
    removed = {
        place
        for places, size in zip(texts, sizes, strict=True)
        for place in (places[size:] if side == "right" else places[: max(0, len(places) - size)])
    }
    return [place for place in range(len(sequences)) if place not in removed]


def _tokenize(
    examples: Sequence[Example], tokenizer: Any, max_length: int
) -> tuple[list[dict[str, list[int]]], list[int]]:
    """Return the model's inputs for each example, and which of them were cut."""
    texts = [example.text for example in examples]
    pairs = [example.text_pair or "" for example in examples] if examples[0].text_pair is not None else None
    encoded = tokenizer(texts, pairs, return_attention_mask=False, verbose=False)
    rows = [dict(zip(encoded, row, strict=True)) for row in zip(*encoded.values(), strict=True)]
    long = [i for i, row in enumerate(rows) if len(row["input_ids"]) > max_length]
    for i in long:
        if encoded.is_fast:
            places = kept(encoded.sequence_ids(i), max_length, tokenizer.truncation_side)
            rows[i] = {name: [values[place] for place in places] for name, values in rows[i].items()}
        else:  # a tokenizer in Python, which does not say which text its tokens are from
            rows[i] = dict(
                tokenizer(
                    texts[i],
                    pairs and pairs[i],
                    truncation=True,
                    max_length=max_length,
                    return_attention_mask=False,
                )
            )
    return rows, long
