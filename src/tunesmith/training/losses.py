"""Losses return a sum; their count is known before the forward pass, so that one division per step is exact.

Whatever the layout of a step's examples (micro-batches, processes), sum / global count and its gradient are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import torch
from torch import nn

from tunesmith.data.batches import Batch
from tunesmith.data.encode import IGNORE
from tunesmith.models import unpadding


class AnyBatch(Protocol):
    """What the loop needs of a batch; each loss has its own class of batches."""

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the examples."""
        ...

    def to(self, device: torch.device) -> Self:
        """Return the batch on a device."""
        ...


BatchT_contra = TypeVar("BatchT_contra", bound=AnyBatch, contravariant=True)


class Loss(Protocol[BatchT_contra]):
    """What the loop minimises: the sum of `total` over a step's batches, divided by the sum of `count`."""

    def count(self, batch: BatchT_contra) -> float:
        """Return the batch's weight: its number of examples or tokens, or the sum of their weights."""
        ...

    def total(self, model: nn.Module, batch: BatchT_contra) -> torch.Tensor:
        """Return the loss summed over the batch, a scalar with a gradient."""
        ...


RowLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""A loss of the user (`train.loss`): logits N x K and targets N -> N values."""


@dataclass(frozen=True)
class Classification:
    """Cross-entropy of class logits. weights: one per class; as in torch, the mean divides by their sum."""

    weights: torch.Tensor
    per_row: RowLoss | None = None
    """Instead of cross-entropy."""

    def count(self, batch: Batch) -> float:
        labels = batch.labels.cpu()
        return float(self.weights[labels[labels != IGNORE]].sum())

    def total(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        logits_BK = unpadding.run(model, batch).logits.float()
        weights = self.weights.to(logits_BK.device, logits_BK.dtype)
        if self.per_row is not None:
            learned_B = batch.labels != IGNORE
            labels = batch.labels[learned_B]
            return (weights[labels] * self.per_row(logits_BK[learned_B], labels)).sum()
        return nn.functional.cross_entropy(
            logits_BK, batch.labels, weight=weights, ignore_index=IGNORE, reduction="sum"
        )


@dataclass(frozen=True)
class NumberLoss:
    """Squared error of the one output, or the Huber loss (Huber 1964), quadratic up to 1 and linear beyond.

    Labels are standardised, so that 1 is the standard deviation of the training rows.
    """

    huber: bool = False
    per_row: RowLoss | None = None
    """Instead, from logits N x 1 and numbers N."""

    def count(self, batch: Batch) -> float:
        return float((~batch.labels.isnan()).sum())

    def total(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        logits_B1 = unpadding.run(model, batch).logits.float()
        learned_B = ~batch.labels.isnan()
        outputs_N1, values_N = logits_B1[learned_B], batch.labels[learned_B]
        if self.per_row is not None:
            return self.per_row(outputs_N1, values_N).sum()
        loss = nn.functional.huber_loss if self.huber else nn.functional.mse_loss
        return loss(outputs_N1[:, 0], values_N, reduction="sum")
