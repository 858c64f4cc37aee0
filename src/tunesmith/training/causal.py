"""Cross-entropy of the learned tokens of a causal language model, in two layouts with one result.

`Packed...` merges the sequences of a micro-batch into one row (models/packing.py); `Padded...` is for models that
cannot be run so. In both the head runs only where something is learned, a chunk at a time: the largest tensor of logits
has chunk x vocabulary numbers, however many tokens a micro-batch holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from tunesmith.data import batches
from tunesmith.data.batches import Batch, Sampler
from tunesmith.data.encode import IGNORE, EncodedText
from tunesmith.models import packing

CHUNK = 512
"""Places at which the head runs at once."""


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Examples packed into one row; ids: where they came from."""

    row: packing.Packed
    ids: tuple[str, ...]

    def to(self, device: torch.device) -> PackedBatch:
        return PackedBatch(self.row.to(device), self.ids)


@dataclass(frozen=True)
class PackedCausal:
    """Cross-entropy summed over the learned tokens of packed rows."""

    chunk: int = CHUNK

    def count(self, batch: PackedBatch) -> float:
        return float(len(batch.row.target_ids))

    def total(self, model: nn.Module, batch: PackedBatch) -> torch.Tensor:
        row = batch.row
        hidden_UD = packing.hidden_states(model, row).index_select(0, row.target_places)
        return sum_cross_entropy(packing.head(model), hidden_UD, row.target_index, row.target_ids, self.chunk)


@dataclass(frozen=True)
class PaddedCausal:
    """The same on padded batches: inputs input_ids and attention_mask, B x T; labels B x T, IGNORE on pads."""

    chunk: int = CHUNK

    def count(self, batch: Batch) -> float:
        return float((batch.labels[:, 1:] != IGNORE).sum())

    def total(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        next_BT = batch.labels[:, 1:]
        learned_BT = next_BT != IGNORE
        hidden_UD = packing.run_body(model, batch.inputs)[:, :-1][learned_BT]
        each_U = torch.arange(len(hidden_UD), device=hidden_UD.device)
        return sum_cross_entropy(packing.head(model), hidden_UD, each_U, next_BT[learned_BT], self.chunk)


def sum_cross_entropy(
    head: nn.Module, hidden_UD: torch.Tensor, index_P: torch.Tensor, ids_P: torch.Tensor, chunk: int = CHUNK
) -> torch.Tensor:
    """The summed loss of predicting ids_P[p] from hidden_UD[index_P[p]]; index_P ascends. At least in float32.

    With more than one chunk the logits are not kept for the backward pass but computed again.
    """
    starts = range(0, max(1, len(hidden_UD)), chunk)
    bounds = torch.searchsorted(index_P, torch.tensor([*starts, len(hidden_UD)], device=index_P.device)).tolist()
    total = hidden_UD.new_zeros((), dtype=torch.promote_types(hidden_UD.dtype, torch.float32))
    for start, first, last in zip(starts, bounds, bounds[1:], strict=False):
        part = (head, hidden_UD[start : start + chunk], index_P[first:last] - start, ids_P[first:last])
        total = total + (checkpoint(_chunk, *part, use_reentrant=False) if len(starts) > 1 else _chunk(*part))
    return total


def _chunk(head: nn.Module, hidden_CD: torch.Tensor, index_P: torch.Tensor, ids_P: torch.Tensor) -> torch.Tensor:
    """One softmax per place, however many predictions are made there; without any, a zero with a gradient of zeros."""
    logits_CV: torch.Tensor = head(hidden_CD)
    logits_CV = logits_CV.to(torch.promote_types(logits_CV.dtype, torch.float32))
    return -logits_CV.log_softmax(-1)[index_P, ids_P].sum()


@dataclass(frozen=True)
class PackedFeed:
    """What one process learns from in each step, in packed rows of at most `max_tokens`."""

    rows: Sequence[EncodedText]
    sampler: Sampler
    max_tokens: int
    rank: int = 0
    processes: int = 1

    def __call__(self, step: int) -> list[PackedBatch]:
        """The micro-batches of a step, counted from 0."""
        drawn = [self.rows[i] for i in self.sampler.draw(step)]
        lot = packing.deal([row.ids for row in drawn], self.processes)[self.rank]
        mine = [drawn[i] for i in lot] or [_unlearned(drawn)]
        groups = packing.plan([row.ids for row in mine], self.max_tokens)
        return [pack([mine[i] for i in group]) for group in groups]

    def smaller(self) -> PackedFeed:
        """The same examples in rows of half the tokens."""
        return replace(self, max_tokens=max(1, self.max_tokens // 2))


@dataclass(frozen=True)
class PaddedFeed:
    """The same examples in padded micro-batches of similar lengths, rows x longest <= `max_tokens`."""

    rows: Sequence[EncodedText]
    sampler: Sampler
    pad_id: int
    max_tokens: int
    rank: int = 0
    processes: int = 1

    def __call__(self, step: int) -> list[Batch]:
        """The micro-batches of a step, counted from 0."""
        drawn = sorted((self.rows[i] for i in self.sampler.draw(step)), key=len, reverse=True)
        mine = drawn[self.rank :: self.processes] or [_unlearned(drawn)]
        groups = batches.plan([len(row) for row in mine], self.max_tokens)
        return [pad([mine[i] for i in group], self.pad_id) for group in groups]

    def smaller(self) -> PaddedFeed:
        """The same examples in micro-batches of half the tokens."""
        return replace(self, max_tokens=max(1, self.max_tokens // 2))


def pack(rows: Sequence[EncodedText]) -> PackedBatch:
    """Texts as one row."""
    packed = packing.pack([row.ids for row in rows], [row.labels for row in rows])
    return PackedBatch(packed, tuple(row.id for row in rows))


def pad(rows: Sequence[EncodedText], pad_id: int) -> Batch:
    """Texts padded on the right, which a causal model's earlier tokens never see."""
    length = max(map(len, rows))
    ids_BT = torch.tensor([row.ids + [pad_id] * (length - len(row)) for row in rows])
    labels_BT = torch.tensor([row.labels + [IGNORE] * (length - len(row)) for row in rows])
    mask_BT = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    return Batch({"input_ids": ids_BT, "attention_mask": mask_BT}, labels_BT, tuple(row.id for row in rows))


def _unlearned(rows: Sequence[EncodedText]) -> EncodedText:
    """For a process without a share: every process takes part in the exchange of gradients, and this adds nothing."""
    shortest = min(rows, key=len)
    return replace(shortest, labels=[IGNORE] * len(shortest))
