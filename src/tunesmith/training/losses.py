"""Losses return a sum; their count is known before the forward pass, so that one division per step is exact.

Whatever the layout of a step's examples (micro-batches, processes), sum / global count and its gradient are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, Self, TypeVar

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from tunesmith.data.batches import Batch, WholeStep
from tunesmith.data.encode import IGNORE
from tunesmith.models import pooling, unpadding


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
CROSS_ENTROPY: RowLoss = partial(nn.functional.cross_entropy, reduction="none")


def _row_weights(batch: Batch, learned_B: torch.Tensor) -> torch.Tensor:
    """Return the weights of the rows that are learned, N."""
    weights_B = torch.ones(len(learned_B)) if batch.weights is None else batch.weights
    return weights_B.to(learned_B.device)[learned_B]


def focal(logits_NK: torch.Tensor, labels_N: torch.Tensor, *, gamma: float) -> torch.Tensor:
    """Return the focal loss of each row (Lin et al. 2017), -(1 - p)^gamma log p, with p the softmax of its label."""
    log_p_NK = logits_NK.log_softmax(-1)
    place_N1 = labels_N[:, None]
    log_rest_N = log_p_NK.scatter(1, place_N1, -torch.inf).logsumexp(1)  # log(1 - p), exact where p is nearly 1
    return -(gamma * log_rest_N).exp() * log_p_NK.gather(1, place_N1)[:, 0]


@dataclass(frozen=True)
class Classification:
    """Cross-entropy of class logits. weights: one per class; as in torch, the mean divides by their sum."""

    weights: torch.Tensor
    per_row: RowLoss | None = None
    """Instead of cross-entropy."""

    def count(self, batch: Batch) -> float:
        labels = batch.labels.cpu()
        learned_B = labels != IGNORE
        return float((self.weights[labels[learned_B]] * _row_weights(batch, learned_B)).sum())

    def total(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        logits_BK = unpadding.run(model, batch).logits.float()
        weights = self.weights.to(logits_BK.device, logits_BK.dtype)
        per_row = self.per_row if batch.weights is None else self.per_row or CROSS_ENTROPY
        if per_row is not None:
            learned_B = batch.labels != IGNORE
            labels = batch.labels[learned_B]
            scale_N = weights[labels] * _row_weights(batch, learned_B)
            return (scale_N * per_row(logits_BK[learned_B], labels)).sum()
        return nn.functional.cross_entropy(
            logits_BK, batch.labels, weight=weights, ignore_index=IGNORE, reduction="sum"
        )


def ordinal(logits_NK: torch.Tensor, labels_N: torch.Tensor) -> torch.Tensor:
    """Return, for labels in their order, the cross-entropies of the K - 1 questions "is it above k?", summed: N.

    The loss of CORAL (Cao et al. 2020, arXiv:1901.07884). There, shared weights keep the answers from contradicting
    each other; here they are sums of one softmax, which cannot, and the head stays that of any classifier.
    """
    logs_NK = logits_NK.log_softmax(dim=1)
    below_NJ = logs_NK.logcumsumexp(dim=1)[:, :-1]
    above_NJ = logs_NK.flip(1).logcumsumexp(dim=1).flip(1)[:, 1:]
    is_above_NJ = labels_N[:, None] > torch.arange(logits_NK.shape[1] - 1, device=labels_N.device)
    return -torch.where(is_above_NJ, above_NJ, below_NJ).sum(dim=1)


@dataclass(frozen=True)
class NumberLoss:
    """Squared error of the one output, or the Huber loss (Huber 1964), quadratic up to 1 and linear beyond.

    Labels are standardised, so that 1 is the standard deviation of the training rows.
    """

    huber: bool = False
    per_row: RowLoss | None = None
    """Instead, from logits N x 1 and numbers N."""

    def count(self, batch: Batch) -> float:
        return float(_row_weights(batch, ~batch.labels.isnan()).sum())

    def total(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        logits_B1 = unpadding.run(model, batch).logits.float()
        learned_B = ~batch.labels.isnan()
        outputs_N1, values_N = logits_B1[learned_B], batch.labels[learned_B]
        if self.per_row is not None:
            losses_N = self.per_row(outputs_N1, values_N)
        else:
            loss = nn.functional.huber_loss if self.huber else nn.functional.mse_loss
            losses_N = loss(outputs_N1[:, 0], values_N, reduction="none")
        return (losses_N * _row_weights(batch, learned_B)).sum()


@dataclass(frozen=True)
class MultilabelLoss:
    """Binary cross-entropy of every label, averaged over rows and labels as in torch's BCEWithLogitsLoss."""

    positive_weights: torch.Tensor
    """K: of each label where it applies."""
    gamma: float = 0.0
    """Focusing parameter of the focal loss (Lin et al. 2017), with p the logistic function; 0 is cross-entropy."""
    per_row: RowLoss | None = None
    """Instead, from logits and labels (0 or 1), both N x K."""

    def count(self, batch: Batch) -> float:
        total = float(_row_weights(batch, ~batch.labels.isnan().any(dim=1)).sum())
        return total if self.per_row is not None else total * batch.labels.shape[1]

    def total(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        logits_BK = unpadding.run(model, batch).logits.float()
        learned_B = ~batch.labels.isnan().any(dim=1)
        logits_NK, labels_NK, scale_N = logits_BK[learned_B], batch.labels[learned_B], _row_weights(batch, learned_B)
        if self.per_row is not None:
            return (self.per_row(logits_NK, labels_NK) * scale_N).sum()
        weights = self.positive_weights.to(logits_BK.device, logits_BK.dtype)
        losses_NK = nn.functional.binary_cross_entropy_with_logits(
            logits_NK, labels_NK, scale_N[:, None], pos_weight=weights, reduction="none"
        )
        if self.gamma:  # (1 - p)^gamma of what each label is
            losses_NK = losses_NK * (self.gamma * nn.functional.logsigmoid(logits_NK * (1 - 2 * labels_NK))).exp()
        return losses_NK.sum()


def common(labels: torch.Tensor) -> torch.Tensor:
    """Return B x B: the share of their labels that two texts have in common, 0 or 1 where each has one; diagonal 0.

    labels: B, or B x K of 0 and 1, which are compared by Jaccard's index.
    """
    if labels.ndim == 1:
        shares_BB = (labels[:, None] == labels).float()
    else:
        both_BB, number_B = labels @ labels.T, labels.sum(dim=1)
        shares_BB = both_BB / (number_B[:, None] + number_B - both_BB).clamp(min=1)
    return shares_BB.fill_diagonal_(0)


def supervised_contrastive(similarities_BB: torch.Tensor, common_BB: torch.Tensor) -> torch.Tensor:
    """Return, for each text, the cross-entropy of finding those with its labels among all others, B; 0 where none has.

    L_out of Khosla et al. 2020 (arXiv:2004.11362), where texts that share labels in part count in part.
    """
    itself_BB = torch.eye(len(common_BB), dtype=torch.bool, device=common_BB.device)
    log_p_BB = similarities_BB.masked_fill(itself_BB, -torch.inf).log_softmax(dim=1).masked_fill(itself_BB, 0)
    return -(common_BB * log_p_BB).sum(dim=1) / common_BB.sum(dim=1).clamp(min=torch.finfo(common_BB.dtype).tiny)


KEPT = 4
"""Micro-batches of a step whose activations `Contrastive` keeps."""


@dataclass(frozen=True)
class Contrastive:
    """Supervised contrastive loss of all pairs of a step's texts, each of which is encoded once.

    Activations of a few micro-batches are kept. Those of others are computed again in the backward pass, with the same
    dropout, so that the memory does not grow with the step: gradient caching (Gao et al. 2021, arXiv:2101.06983).
    """

    pooling: str
    """What a text's embedding is, as in `probe.pooling`."""
    temperature: float
    """Divides the cosine similarities."""

    def count(self, batch: WholeStep) -> float:
        return float(batch.weights[common(batch.labels).any(dim=1)].sum())

    def total(self, model: nn.Module, batch: WholeStep) -> torch.Tensor:
        parts = [
            self._embed(model, part) if index < KEPT else checkpoint(self._embed, model, part, use_reentrant=False)
            for index, part in enumerate(batch.parts)
        ]
        vectors_BD = nn.functional.normalize(torch.cat(parts), dim=1)
        losses_B = supervised_contrastive(vectors_BD @ vectors_BD.T / self.temperature, common(batch.labels))
        return (losses_B * batch.weights).sum()

    def _embed(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        return pooling.pool(unpadding.run(model, batch).last_hidden_state, batch, self.pooling).float()
