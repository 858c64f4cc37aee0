"""Which examples a step learns from, and how they lie in memory: the first decides the result, the second the cost."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tunesmith.data.encode import IGNORE, Encoded

if TYPE_CHECKING:  # plans are made without torch, too
    import torch


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples padded to one length (B x T) or one behind the other (1 x T), and where they came from."""

    inputs: dict[str, torch.Tensor]
    """What the model takes: B x T, or 1 x T."""
    labels: torch.Tensor
    """B."""
    ids: tuple[str, ...]
    lengths: tuple[int, ...] | None = None
    """Tokens of each example in the one row; None where rows are padded."""

    def to(self, device: torch.device) -> Batch:
        inputs = {name: tensor.to(device) for name, tensor in self.inputs.items()}
        return replace(self, inputs=inputs, labels=self.labels.to(device))


@dataclass(frozen=True)
class Sampler:
    """Draws each step's examples: every example once an epoch, in an order that depends on (seed, epoch) alone."""

    num_examples: int
    step_size: int
    """Examples of one optimizer step, over all processes; the last step of an epoch has what is left."""
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.num_examples / self.step_size)

    def draw(self, step: int) -> list[int]:
        """Indices of the examples of a step, counted from 0."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = _order(self.num_examples, self.seed, epoch)
        return [int(i) for i in order[position * self.step_size : (position + 1) * self.step_size]]


@functools.lru_cache(maxsize=2)
def _order(num_examples: int, seed: int, epoch: int) -> Any:
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(num_examples)


def token_budget(setting: int | str, device: torch.device) -> int:
    """Tokens in memory at once. `auto`: what was fastest on two cores (docs/decisions.md), more for accelerators."""
    if isinstance(setting, int):
        return setting
    return 1024 if device.type == "cpu" else 16_384


def plan(lengths: Sequence[int], max_tokens: int, padded: bool = True) -> list[list[int]]:
    """Positions by similar length, longest first, in groups of at most `max_tokens` (one row always fits).

    padded: every row counts as long as the longest of its group.
    """
    groups: list[list[int]] = []
    used = 0
    for position in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        more = lengths[groups[-1][0]] if groups and padded else lengths[position]
        if groups and used + more <= max_tokens:
            groups[-1].append(position)
            used += more
        else:
            groups.append([position])
            used = lengths[position]
    return groups


def collate(rows: Sequence[Encoded], tokenizer: Any) -> Batch:
    """Pad rows to the longest of them, on the tokenizer's side."""
    import torch

    padded = tokenizer.pad([row.inputs for row in rows], return_tensors="pt", return_attention_mask=True, verbose=False)
    return Batch(dict(padded), torch.tensor([row.label for row in rows]), tuple(row.id for row in rows))


class Layout(Protocol):
    """How examples lie in memory."""

    def plan(self, lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
        """Positions in groups of at most `max_tokens`."""
        ...

    def collate(self, rows: Sequence[Encoded]) -> Batch:
        """One batch of all rows."""
        ...


@dataclass(frozen=True)
class Padded:
    """Rows of similar lengths, padded to the longest of them."""

    tokenizer: Any

    def plan(self, lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
        return plan(lengths, max_tokens)

    def collate(self, rows: Sequence[Encoded]) -> Batch:
        return collate(rows, self.tokenizer)


@dataclass(frozen=True)
class Unpadded:
    """Examples one behind the other in one row, for models/unpadding.py. first: the position of a first token."""

    first: int

    def plan(self, lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
        return plan(lengths, max_tokens, padded=False)

    def collate(self, rows: Sequence[Encoded]) -> Batch:
        import torch

        lengths = tuple(len(row) for row in rows)
        inputs = {name: torch.tensor([[i for row in rows for i in row.inputs[name]]]) for name in rows[0].inputs}
        inputs["position_ids"] = torch.cat([torch.arange(self.first, self.first + n) for n in lengths])[None]
        return Batch(inputs, torch.tensor([row.label for row in rows]), tuple(row.id for row in rows), lengths)


@dataclass(frozen=True)
class MicroBatches:
    """What one process learns from in each step: its share of the step's examples, in micro-batches."""

    rows: Sequence[Encoded]
    sampler: Sampler
    layout: Layout
    max_tokens: int
    rank: int = 0
    processes: int = 1

    def __call__(self, step: int) -> list[Batch]:
        """The micro-batches of a step, counted from 0."""
        drawn = sorted(self.sampler.draw(step), key=lambda i: (-len(self.rows[i]), i))
        mine = [self.rows[i] for i in drawn[self.rank :: self.processes]]  # dealt by length: similar work for all
        if not mine:  # every process takes part in the exchange of gradients: a row without a label adds nothing
            mine = [replace(self.rows[drawn[-1]], label=IGNORE)]
        groups = self.layout.plan([len(row) for row in mine], self.max_tokens)
        return [self.layout.collate([mine[i] for i in group]) for group in groups]

    def smaller(self) -> MicroBatches:
        """The same examples in micro-batches of half the tokens."""
        return replace(self, max_tokens=max(1, self.max_tokens // 2))
