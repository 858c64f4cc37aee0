"""Losses return a sum; their count is known before the forward pass, so one division per step is exact.

However a step's examples are laid out (micro-batches, processes), sum / global count and its gradient stay the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import torch
from torch import nn

from tunesmith.data.batches import Batch
from tunesmith.data.encode import IGNORE
from tunesmith.models import unpadding


class AnyBatch(Protocol):
    """What the loop knows of a batch; each loss knows its own kind."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Where the examples came from."""
        ...

    def to(self, device: torch.device) -> Self:
        """The same batch on a device."""
        ...


Seen = TypeVar("Seen", bound=AnyBatch, contravariant=True)


class Loss(Protocol[Seen]):
    """What the loop minimises: the sum of `total` over a step's batches, divided by the sum of `count`."""

    def count(self, batch: Seen) -> float:
        """How much the batch weighs: its number of examples or tokens, or the sum of their weights."""
        ...

    def total(self, model: nn.Module, batch: Seen) -> torch.Tensor:
        """The loss summed over the batch, a scalar with a gradient."""
        ...


@dataclass(frozen=True)
class Classification:
    """Cross-entropy of class logits; weights: one per class (torch's weighted mean: divided by the sum of weights)."""

    weights: torch.Tensor

    def count(self, batch: Batch) -> float:
        labels = batch.labels.cpu()
        return float(self.weights[labels[labels != IGNORE]].sum())

    def total(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        logits_BK = unpadding.run(model, batch).logits.float()
        weights = self.weights.to(logits_BK.device, logits_BK.dtype)
        return nn.functional.cross_entropy(
            logits_BK, batch.labels, weight=weights, ignore_index=IGNORE, reduction="sum"
        )
