"""Which examples a step learns from, and how they lie in memory: the first decides the result, the second the cost."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.encode import Encoded

if TYPE_CHECKING:  # plans are made without torch, too
    import torch


class Tokenized(Protocol):
    """A tokenized example: Encoded or EncodedText."""

    @property
    def id(self) -> str:
        """Return the example's id."""
        ...

    def __len__(self) -> int:
        """Return the number of its tokens."""
        ...

    def sequences(self) -> Sequence[Self]:
        """Return what lies in memory for it: itself, or one sequence for each of several answers to a prompt."""
        ...

    def unlearned(self) -> Self:
        """Return the same tokens without anything to learn."""
        ...


GROUP = 4
"""Examples of one label that GroupedSampler draws together."""
RowT = TypeVar("RowT", bound=Tokenized)
RowT_contra = TypeVar("RowT_contra", bound=Tokenized, contravariant=True)
BatchT = TypeVar("BatchT")
BatchT_co = TypeVar("BatchT_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples padded to one length (B x T) or concatenated in one row (1 x T)."""

    inputs: dict[str, torch.Tensor]
    """What the model takes: B x T, or 1 x T."""
    labels: torch.Tensor
    """B; of causal models B x T."""
    ids: tuple[str, ...]
    """Which examples these are."""
    lengths: tuple[int, ...] | None = None
    """Tokens of each example in the one row; None where rows are padded."""
    weights: torch.Tensor | None = None
    """B: of the examples in the loss; None for 1 each."""

    def to(self, device: torch.device) -> Batch:
        inputs = {name: tensor.to(device) for name, tensor in self.inputs.items()}
        weights = None if self.weights is None else self.weights.to(device)
        return replace(self, inputs=inputs, labels=self.labels.to(device), weights=weights)


@dataclass(frozen=True)
class Sampler:
    """Draws the examples of each step: every one once an epoch, in an order that depends on (seed, epoch) alone."""

    num_examples: int
    step_size: int
    """Examples of one optimizer step, over all processes; the last step of an epoch takes what is left."""
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.num_examples / self.step_size)

    def draw(self, step: int) -> list[int]:
        """Return the indices of the examples of a step; steps count from 0."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = _order(self.num_examples, self.seed, epoch)
        return [int(i) for i in order[position * self.step_size : (position + 1) * self.step_size]]


@dataclass(frozen=True)
class BalancedSampler(Sampler):
    """Draws with replacement: a label, each equally likely, and one of its examples. Depends on (seed, step) alone."""

    labels: Sequence[str]
    """Of each example."""

    @functools.cached_property
    def _by_label(self) -> list[NDArray[np.int64]]:
        places: dict[str, list[int]] = {}
        for place, label in enumerate(self.labels):
            places.setdefault(label, []).append(place)
        return [np.array(places[label]) for label in sorted(places)]

    def draw(self, step: int) -> list[int]:
        """Return the indices of the examples of a step, as many as without balance."""
        epoch, position = divmod(step, self.steps_per_epoch)
        size = min(self.step_size, self.num_examples - position * self.step_size)
        generator = np.random.Generator(np.random.PCG64([self.seed, epoch, position]))
        drawn = generator.integers(len(self._by_label), size=size)
        return [int(generator.choice(self._by_label[label])) for label in drawn]


@dataclass(frozen=True)
class GroupedSampler(Sampler):
    """Draws every example once an epoch, GROUP neighbours of one label at a time, for losses that compare examples.

    A step thus has pairs of one label, whatever the number of labels. The steps of an epoch are of one size, or nearly:
    a last step of one example would compare nothing. Depends on (seed, epoch) alone.
    """

    labels: Sequence[str]
    """Of each example."""

    def draw(self, step: int) -> list[int]:
        """Return the indices of the examples of a step; steps count from 0."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = _order(self.num_examples, self.seed, epoch)
        by_label: dict[str, list[int]] = {}
        for i in order.tolist():
            by_label.setdefault(self.labels[i], []).append(i)
        groups = [places[k : k + GROUP] for places in by_label.values() for k in range(0, len(places), GROUP)]
        shuffled = [i for k in _order(len(groups), self.seed, epoch) for i in groups[k]]
        return [int(i) for i in np.array_split(shuffled, self.steps_per_epoch)[position]]


@functools.lru_cache(maxsize=2)
def _order(num_examples: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(num_examples)


def token_budget(setting: int | str, device: torch.device) -> int:
    """Return how many tokens to hold in memory at once.

    `auto` is what was fastest on two cores (docs/decisions.md), and more on accelerators.
    """
    if isinstance(setting, int):
        return setting
    return 1024 if device.type == "cpu" else 16_384


def plan(lengths: Sequence[int], max_tokens: int, padded: bool = True) -> list[list[int]]:
    """Return positions in groups of similar length, longest first, of at most `max_tokens` (one row always fits).

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
    labels = torch.tensor([row.label for row in rows])
    return Batch(dict(padded), labels, tuple(row.id for row in rows), weights=_weights(rows))


def _weights(rows: Sequence[Encoded]) -> torch.Tensor | None:
    import torch

    return None if all(row.weight == 1 for row in rows) else torch.tensor([row.weight for row in rows])


class Layout(Protocol[RowT_contra, BatchT_co]):
    """How examples lie in memory, which decides the cost of a step and not its result."""

    def partition(self, rows: Sequence[RowT_contra], drawn: Sequence[int], processes: int) -> list[list[int]]:
        """Split the drawn examples (indices of `rows`) into one share of similar work for each process."""
        ...

    def plan(self, rows: Sequence[RowT_contra], max_tokens: int) -> list[list[int]]:
        """Return positions in groups of at most `max_tokens`."""
        ...

    def collate(self, rows: Sequence[RowT_contra]) -> BatchT_co:
        """Return all rows as one batch."""
        ...


EncoderLayout: TypeAlias = Layout[Encoded, Batch]


class _ByLength:
    """Shares examples among processes by length, so that each gets similar work."""

    def partition(self, rows: Sequence[Encoded], drawn: Sequence[int], processes: int) -> list[list[int]]:
        by_length = sorted(drawn, key=lambda i: (-len(rows[i]), i))
        return [by_length[rank::processes] for rank in range(processes)]


@dataclass(frozen=True)
class Padded(_ByLength):
    """Rows of similar lengths, padded to the longest of them."""

    tokenizer: Any

    def plan(self, rows: Sequence[Encoded], max_tokens: int) -> list[list[int]]:
        return plan([len(row) for row in rows], max_tokens)

    def collate(self, rows: Sequence[Encoded]) -> Batch:
        return collate(rows, self.tokenizer)


@dataclass(frozen=True)
class Unpadded(_ByLength):
    """Examples concatenated in one row, for models/unpadding.py. first: the position of a first token."""

    first: int

    def plan(self, rows: Sequence[Encoded], max_tokens: int) -> list[list[int]]:
        return plan([len(row) for row in rows], max_tokens, padded=False)

    def collate(self, rows: Sequence[Encoded]) -> Batch:
        import torch

        lengths = tuple(len(row) for row in rows)
        inputs = {name: torch.tensor([[i for row in rows for i in row.inputs[name]]]) for name in rows[0].inputs}
        inputs["position_ids"] = torch.cat([torch.arange(self.first, self.first + n) for n in lengths])[None]
        labels, ids = torch.tensor([row.label for row in rows]), tuple(row.id for row in rows)
        return Batch(inputs, labels, ids, lengths, _weights(rows))


@dataclass(frozen=True)
class MicroBatches(Generic[RowT, BatchT]):
    """What one process learns from in each step: its share of the step's examples, in micro-batches."""

    rows: Sequence[RowT]
    sampler: Sampler
    layout: Layout[RowT, BatchT]
    max_tokens: int
    rank: int = 0
    processes: int = 1

    def __call__(self, step: int) -> list[BatchT]:
        """Return the micro-batches of a step; steps count from 0."""
        drawn = self.sampler.draw(step)
        share = [self.rows[i] for i in self.layout.partition(self.rows, drawn, self.processes)[self.rank]]
        if not share:  # every process takes part in the exchange of gradients: an unlearned row adds nothing to it
            share = [min((self.rows[i] for i in drawn), key=len).unlearned()]
        texts = [sequence for row in share for sequence in row.sequences()]
        return [self.layout.collate([texts[i] for i in group]) for group in self.layout.plan(texts, self.max_tokens)]

    def halved(self) -> MicroBatches[RowT, BatchT]:
        """Return the same examples in micro-batches of half the tokens."""
        return replace(self, max_tokens=max(1, self.max_tokens // 2))


@dataclass(frozen=True, slots=True)
class WholeStep:
    """All examples of a step, for losses that compare them with each other."""

    parts: tuple[Batch, ...]
    """Micro-batches."""

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(name for part in self.parts for name in part.ids)

    @property
    def labels(self) -> torch.Tensor:
        """B; of several labels B x K."""
        import torch

        return torch.cat([part.labels for part in self.parts])

    @property
    def weights(self) -> torch.Tensor:
        """B: of the examples in the loss."""
        import torch

        known = [torch.ones(len(part.ids)) if part.weights is None else part.weights for part in self.parts]
        return torch.cat(known).to(self.labels.device)

    def to(self, device: torch.device) -> WholeStep:
        return WholeStep(tuple(part.to(device) for part in self.parts))


@dataclass(frozen=True)
class WholeSteps:
    """Every step as one WholeStep. Each process has all of it: what is compared lies in one place."""

    micro_batches: MicroBatches[Encoded, Batch]
    """Of one process."""

    @property
    def sampler(self) -> Sampler:
        return self.micro_batches.sampler

    def __call__(self, step: int) -> list[WholeStep]:
        """Return the step; steps count from 0."""
        return [WholeStep(tuple(self.micro_batches(step)))]

    def halved(self) -> WholeSteps:
        """Return the same steps in micro-batches of half the tokens."""
        return WholeSteps(self.micro_batches.halved())
