"""Keys and values of the answers that a causal language model is generating.

Every answer has a place of its own in one cache, which is never copied as a whole. Prompts that start together are
packed into a row, so that their common beginnings are computed once. Models that cannot do this get a cache for each
answer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import psutil
import torch
from torch import nn
from torch.nn import functional

from tunesmith import processes
from tunesmith.data.encode import IGNORE
from tunesmith.models import packing
from tunesmith.models.graphs import GraphModel
from tunesmith.models.llama_cpp import LlamaCppModel, Sequences, Token

with processes.without("scipy"):
    from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache

PREFILL_TOKENS = 512
"""Tokens of prompts that are computed in one row, unless one prompt alone is longer: a token attends to the whole row,
most of it masked, so longer rows cost more than they share."""
MEMORY_SHARE = 0.25
"""Of the free memory, what the cache of keys and values may take."""
BLOCK = 128
"""The cache grows by this many positions."""
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
"""Largest difference of two logits that is rounding, relative to the largest logit; 5e-2 for 16-bit weights."""


def of(model: nn.Module, places: int) -> GenerationCache:
    """Return an empty cache for answers of this model. places: how many at once."""
    if isinstance(model, GraphModel):
        return _GraphCache(model)
    if isinstance(model, LlamaCppModel):
        return _LlamaCppCache(model, places)
    model.eval()
    return _SharedCache(model, places) if places > 1 and _shares(model) else _SeparateCaches(model)


def most_places(model: nn.Module, longest: int, most: int) -> int:
    """Return how many answers the free memory allows at once, 1 to `most`. longest: tokens of each, with its prompt."""
    inner = packing.inner(model)
    if isinstance(inner, LlamaCppModel):
        most = min(most, inner.most_sequences)
    config: Any = inner.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    bytes_per_token: int = 2 * config.num_hidden_layers * heads * size * inner.dtype.itemsize
    device = inner.device
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    return max(1, min(most, int(MEMORY_SHARE * free) // (bytes_per_token * longest)))


class GenerationCache(ABC):
    """Keys and values of the answers under way, numbered from 0."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.device = packing.inner(model).device

    @abstractmethod
    def start(self, prompts: packing.Tokens) -> torch.Tensor:
        """Add prompts behind the answers under way; return the logits of their first tokens, N x V."""

    @abstractmethod
    def advance(self, tokens: Sequence[int]) -> torch.Tensor:
        """Add a token to every answer; return the logits of the next ones, B x V."""

    @abstractmethod
    def keep(self, numbers: Sequence[int]) -> list[int]:
        """Drop all other answers; return those that are left, in their new order."""


class _SeparateCaches(GenerationCache):
    """A cache for each answer, as the model makes it: any model, an answer at a time."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.caches: list[Any] = []

    def start(self, prompts: packing.Tokens) -> torch.Tensor:
        self.caches += [None] * len(prompts)
        return self._run(range(len(self.caches) - len(prompts), len(self.caches)), prompts)

    def advance(self, tokens: Sequence[int]) -> torch.Tensor:
        return self._run(range(len(tokens)), [[token] for token in tokens])

    def keep(self, numbers: Sequence[int]) -> list[int]:
        self.caches = [self.caches[number] for number in numbers]
        return list(numbers)

    def _run(self, numbers: Sequence[int], ids: packing.Tokens) -> torch.Tensor:
        logits = []
        for number, new in zip(numbers, ids, strict=True):
            ids_1T = torch.tensor([new], device=self.device)
            inputs = {"input_ids": ids_1T, "past_key_values": self.caches[number], "use_cache": True}
            _, output = packing.run_trimmed(self.model, inputs, lambda hidden_1TD: hidden_1TD[:, -1:])
            self.caches[number] = output.past_key_values
            logits.append(output.logits[0, -1])
        return torch.stack(logits)


class _GraphCache(GenerationCache):
    """The cache of an exported graph, whose mask hides what stands in front of shorter answers."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.cache: dict[str, torch.Tensor] = {}
        self.lengths: list[int] = []

    def start(self, prompts: packing.Tokens) -> torch.Tensor:
        lengths = [len(ids) for ids in prompts]
        width = max(lengths)
        ids_NT = torch.tensor([[0] * (width - len(ids)) + list(ids) for ids in prompts])
        logits_NV, started = self._run(ids_NT, lengths, {})
        width = max([width, *self.lengths])
        self.cache = {
            name: torch.cat(
                [
                    functional.pad(part, (0, 0, width - part.shape[2], 0))
                    for part in (self.cache.get(name, new[:0]), new)
                ]
            )
            for name, new in started.items()
        }
        self.lengths += lengths
        return logits_NV

    def advance(self, tokens: Sequence[int]) -> torch.Tensor:
        self.lengths = [length + 1 for length in self.lengths]
        logits_BV, self.cache = self._run(torch.tensor(tokens)[:, None], self.lengths, self.cache)
        return logits_BV

    def keep(self, numbers: Sequence[int]) -> list[int]:
        self.lengths = [self.lengths[number] for number in numbers]
        width = max(self.lengths, default=0)
        chosen = torch.tensor(numbers, dtype=torch.long)
        kept = {name: part[chosen, :, part.shape[2] - width :] for name, part in self.cache.items()}
        self.cache = kept if numbers else {}
        return list(numbers)

    def _run(
        self, ids_BT: torch.Tensor, lengths: Sequence[int], past: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return logits of the last tokens, and the longer cache. lengths: of the answers with these tokens."""
        width = max(lengths)
        mask_BW = (torch.arange(width) >= width - torch.tensor(lengths)[:, None]).long()
        positions_BT = (mask_BW.cumsum(1) - 1).clamp(min=0)[:, -ids_BT.shape[1] :].contiguous()
        output = self.model(ids_BT, mask_BW, positions_BT, past, logits_to_keep=1)
        return output.logits[:, -1], output.past_key_values


class _LlamaCppCache(GenerationCache):
    """llama.cpp's, with a sequence for each answer."""

    def __init__(self, model: LlamaCppModel, places: int) -> None:
        super().__init__(model)
        self.sequences, self.unused = Sequences(model, places), list(range(places))
        self.answers: list[tuple[int, int]] = []
        """The sequence and the length of each."""

    def start(self, prompts: packing.Tokens) -> torch.Tensor:
        numbers = [self.unused.pop() for _ in prompts]
        shared = _common_length(prompts) if len(prompts) > 1 else 0
        if shared:
            self.sequences.compute(
                [Token(id_, place, numbers[0], False) for place, id_ in enumerate(prompts[0][:shared])]
            )
            for number in numbers[1:]:
                self.sequences.copy(numbers[0], number)
        self.answers += [(number, len(ids)) for number, ids in zip(numbers, prompts, strict=True)]
        return self.sequences.compute(
            [
                Token(id_, place, number, place == len(ids) - 1)
                for number, ids in zip(numbers, prompts, strict=True)
                for place, id_ in enumerate(ids[shared:], shared)
            ]
        )

    def advance(self, tokens: Sequence[int]) -> torch.Tensor:
        logits_BV = self.sequences.compute(
            [Token(id_, length, number) for id_, (number, length) in zip(tokens, self.answers, strict=True)]
        )
        self.answers = [(number, length + 1) for number, length in self.answers]
        return logits_BV

    def keep(self, numbers: Sequence[int]) -> list[int]:
        for answer in set(range(len(self.answers))) - set(numbers):
            self.sequences.remove(self.answers[answer][0])
            self.unused.append(self.answers[answer][0])
        self.answers = [self.answers[answer] for answer in numbers]
        return list(numbers)


class _SharedCache(GenerationCache):
    """One cache with a place for each answer."""

    def __init__(self, model: nn.Module, places: int) -> None:
        super().__init__(model)
        self.cache = _PlacedCache(places, packing.inner(model).config.get_text_config().num_hidden_layers)
        self.lengths: list[int] = []

    def start(self, prompts: packing.Tokens) -> torch.Tensor:
        logits: dict[int, torch.Tensor] = {}
        first = len(self.lengths)
        self.lengths += map(len, prompts)
        for group in packing.plan(prompts, PREFILL_TOKENS):
            chosen = [prompts[i] for i in group]
            packed = packing.pack(chosen, [[IGNORE] * len(ids) for ids in chosen]).to(self.device)
            last = torch.tensor([int(places[-1]) for places in packed.places], device=self.device)
            cache = DynamicCache()
            inputs = packing.inputs(self.model, packed) | {"past_key_values": cache, "use_cache": True}
            _, output = packing.run_trimmed(self.model, inputs, lambda hidden_1TD: hidden_1TD[:, last])  # noqa: B023
            logits.update(zip(group, output.logits[0], strict=True))
            for i, places in zip(group, packed.places, strict=True):
                self.cache.fill(first + i, cache, places.to(self.device))
        return torch.stack([logits[i] for i in range(len(prompts))])

    def advance(self, tokens: Sequence[int]) -> torch.Tensor:
        positions_B = torch.tensor(self.lengths, device=self.device)
        self.lengths = [length + 1 for length in self.lengths]
        width = max(self.lengths)
        self.cache.expect(positions_B, width)
        dtype = packing.inner(self.model).dtype
        mask_B11T = torch.zeros(len(tokens), 1, 1, width, dtype=dtype, device=self.device)
        later_BT = torch.arange(width, device=self.device) > positions_B[:, None]
        mask_B11T.masked_fill_(later_BT[:, None, None], torch.finfo(dtype).min)
        output = self.model(
            input_ids=torch.tensor(tokens, device=self.device)[:, None],
            position_ids=positions_B[:, None],
            attention_mask=mask_B11T,
            past_key_values=self.cache,
            use_cache=True,
        )
        logits_BV: torch.Tensor = output.logits[:, -1]
        return logits_BV

    def keep(self, numbers: Sequence[int]) -> list[int]:
        count = len(numbers)
        order = [number if number in set(numbers) else -1 for number in range(count)]
        movers = [number for number in numbers if number >= count]
        for place in range(count):
            if order[place] < 0:
                order[place] = movers.pop()
                self.cache.move(order[place], place, self.lengths[order[place]])
        self.lengths = [self.lengths[number] for number in order]
        return order


@dataclass
class _NextTokens:
    """Where the next tokens stand, as all layers know it. It refers to none of them: the tensors of a cache that is no
    longer used are freed at once, which those of a circle of objects are not.
    """

    places: int
    """How many answers there may be."""
    positions: torch.Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    """Of the tokens of places 0 to B - 1."""
    width: int = 0
    """To how many positions they attend, at most."""


class _PlacedCache(Cache):  # type: ignore[misc]
    """Keys and values of each layer as one tensor, places x heads x positions x size; a place is one answer's."""

    def __init__(self, places: int, layers: int) -> None:
        self.next_tokens = _NextTokens(places)
        super().__init__(layers=[_PlacedLayer(self.next_tokens) for _ in range(layers)])

    def expect(self, positions_B: torch.Tensor, width: int) -> None:
        """The next tokens stand at these positions of places 0 to B - 1, and attend to at most `width` positions."""
        self.next_tokens.positions, self.next_tokens.width = positions_B, width

    def fill(self, place: int, prompts: DynamicCache, positions_L: torch.Tensor) -> None:
        """Copy keys and values of a prompt from the row in which it was computed."""
        for layer, computed in zip(self.layers, prompts.layers, strict=True):
            layer.reserve(computed.keys, place + 1, len(positions_L))
            for own, row in ((layer.keys, computed.keys), (layer.values, computed.values)):
                own[place, :, : len(positions_L)] = row[0].index_select(1, positions_L)

    def move(self, source: int, target: int, length: int) -> None:
        """Copy a place to another."""
        for layer in self.layers:
            for own in (layer.keys, layer.values):
                own[target, :, :length] = own[source, :, :length]


class _PlacedLayer(CacheLayerMixin):  # type: ignore[misc]
    is_sliding = False

    def __init__(self, next_tokens: _NextTokens) -> None:
        super().__init__()
        self.next_tokens = next_tokens

    def reserve(self, like: torch.Tensor, count: int, length: int) -> None:
        """Make room for `count` places of `length` positions. Unused ones hold zeros: masked values must be finite."""
        places, positions = (0, 0) if self.keys is None else (self.keys.shape[0], self.keys.shape[2])
        if count <= places and length <= positions:
            return
        if count > places:  # twice as many, as few answers at once are common where many would be possible
            places = min(self.next_tokens.places, max(count, 2 * places))
        size = (places, like.shape[1], max(positions, -(-length // BLOCK) * BLOCK), like.shape[3])
        for name in ("keys", "values"):
            before, after = getattr(self, name), like.new_zeros(size)
            if before is not None:
                after[: before.shape[0], :, : before.shape[2]] = before
            setattr(self, name, after)

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> Any:
        """Store the new token of every answer; return keys and values of all its tokens."""
        self.reserve(key_states, len(key_states), self.next_tokens.width)
        count, width, positions_B = len(key_states), self.next_tokens.width, self.next_tokens.positions
        rows_B = torch.arange(count, device=positions_B.device)
        self.keys[rows_B, :, positions_B] = key_states[:, :, 0]
        self.values[rows_B, :, positions_B] = value_states[:, :, 0]
        return self.keys[:count, :, :width], self.values[:count, :, :width]

    def get_seq_length(self) -> int:
        return self.next_tokens.width - 1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.next_tokens.width, 0

    def get_max_length(self) -> int:
        return -1

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """`reserve` does this."""


def _shares(model: nn.Module) -> bool:
    """Whether two answers in one cache get the logits that each gets alone; asked once of a model."""
    inner = packing.inner(model)
    if not hasattr(inner, "_tunesmith_shares"):
        inner._tunesmith_shares = _agrees(model)
    return bool(inner._tunesmith_shares)


def _agrees(model: nn.Module) -> bool:
    if packing.sliding_window(model):
        return False
    prompts = [[1, 2, 3, 1], [1, 3]]
    shared, separate = _SharedCache(model, 2), _SeparateCaches(model)
    try:
        with torch.inference_mode():
            logits = [torch.cat([cache.start(prompts), cache.advance([2, 1])]) for cache in (shared, separate)]
    except Exception:  # models may raise anything where they cannot do this
        return False
    difference = (logits[0] - logits[1]).abs().max() / logits[1].abs().max()
    return bool(difference <= TOLERANCE.get(logits[0].dtype, 5e-2))  # not so for NaN


def _common_length(prompts: packing.Tokens) -> int:
    """Return how many tokens all prompts begin with, without the last one of any."""
    return sum(1 for _ in takewhile(lambda ids: len({*ids}) == 1, zip(*(ids[:-1] for ids in prompts), strict=False)))
