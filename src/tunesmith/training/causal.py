"""Cross-entropy of the learned tokens of a causal language model, in two layouts with the same result.

`Packed...` merges the sequences of a micro-batch into one row (models/packing.py); `Padded...` is for models that do
not support packing. In both, the head runs only where tokens are learned, one chunk at a time: the largest tensor of
logits has chunk x vocabulary elements, however many tokens a micro-batch has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from tunesmith.data import batches
from tunesmith.data.batches import Batch
from tunesmith.data.encode import IGNORE, EncodedText
from tunesmith.models import packing
from tunesmith.training.losses import RowLoss

CHUNK = 512
"""How many places the head processes at once."""


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Examples packed into one row."""

    row: packing.Packed
    ids: tuple[str, ...]
    """The ids of the examples."""

    def to(self, device: torch.device) -> PackedBatch:
        return PackedBatch(self.row.to(device), self.ids)


@dataclass(frozen=True)
class PackedCausal:
    """Cross-entropy, summed over the learned tokens of packed rows."""

    chunk: int = CHUNK
    per_token: RowLoss | None = None
    """Instead of cross-entropy; the logits of all learned tokens are then in memory at once."""

    def count(self, batch: PackedBatch) -> float:
        return float(len(batch.row.target_ids))

    def total(self, model: nn.Module, batch: PackedBatch) -> torch.Tensor:
        row = batch.row
        with _tied_embedding(model) as tied:
            hidden_UD = packing.hidden_states(model, row).index_select(0, row.target_places)
        if self.per_token is not None:
            logits_UV = packing.head(model)(hidden_UD).float()
            return self.per_token(logits_UV[row.target_index], row.target_ids).sum()
        return sum_cross_entropy(packing.head(model), hidden_UD, row.target_index, row.target_ids, self.chunk, tied)


@dataclass(frozen=True)
class PaddedCausal:
    """The same for padded batches: inputs input_ids and attention_mask, B x T; labels B x T, IGNORE on padding."""

    chunk: int = CHUNK
    through_model: bool = False
    """Use the logits of the model's own forward, at all learned places at once: for models that change the output of
    their head, see `head_decides`."""
    per_token: RowLoss | None = None
    """Instead of cross-entropy."""

    def count(self, batch: Batch) -> float:
        return float((batch.labels[:, 1:] != IGNORE).sum())

    def total(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        next_BT = batch.labels[:, 1:]
        learned_BT = next_BT != IGNORE
        ids_U = next_BT[learned_BT]
        if self.through_model or self.per_token is not None:
            inputs = {**batch.inputs, "use_cache": False}
            _, output = packing.run_trimmed(model, inputs, lambda hidden_BTD: hidden_BTD[:, :-1][learned_BT][None])
            logits_UV: torch.Tensor = output.logits[0]
            logits_UV = logits_UV.to(torch.promote_types(logits_UV.dtype, torch.float32))
            if self.per_token is not None:
                return self.per_token(logits_UV, ids_U).sum()
            return nn.functional.cross_entropy(logits_UV, ids_U, reduction="sum")
        with _tied_embedding(model) as tied:
            hidden_UD = packing.run_body(model, batch.inputs)[:, :-1][learned_BT]
        each_U = torch.arange(len(hidden_UD), device=hidden_UD.device)
        return sum_cross_entropy(packing.head(model), hidden_UD, each_U, ids_U, self.chunk, tied)


def head_decides(model: nn.Module, ids: Sequence[int]) -> bool:
    """Return whether the model's logits are the output of its head, by a run in which the head returns up to +-100.

    They are not if logits are capped (Gemma 2) or scaled (Cohere, Granite) afterwards: then only
    `PaddedCausal(through_model=True)` has the right loss. Caps change only large logits, hence the size.
    ids: those of any text, of which the first few are run.
    """
    head = packing.head(model)
    seen: list[torch.Tensor] = []

    def enlarge(module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        if not seen:
            seen.append(args[0])
            logits_BTV = module(args[0])
            seen.append(args[0] * (100 / logits_BTV.abs().max().clamp_min(1e-6)))
            return seen[1], *args[1:]
        return args

    hook = head.register_forward_pre_hook(enlarge)
    try:
        with torch.no_grad():
            logits_BTV = model(input_ids=torch.tensor([list(ids[:8])], device=next(model.parameters()).device)).logits
    finally:
        hook.remove()
    with torch.no_grad():
        expected = head(seen[1])
    return torch.allclose(logits_BTV.float(), expected.float(), rtol=1e-2, atol=1e-2)


def sum_cross_entropy(
    head: nn.Module,
    hidden_UD: torch.Tensor,
    index_P: torch.Tensor,
    ids_P: torch.Tensor,
    chunk: int = CHUNK,
    tied: _TiedGradient | None = None,
) -> torch.Tensor:
    """Return the summed loss of predicting ids_P[p] from hidden_UD[index_P[p]], at least in float32; index_P ascends.

    No logits are kept for the backward pass: the gradients of a plain head are computed together with its logits
    (`_LinearCrossEntropy`); other heads recompute them in the backward pass if there is more than one chunk.
    """
    if torch.is_grad_enabled() and _is_plain(head):
        total: torch.Tensor = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
            hidden_UD, head.weight, head.bias, index_P, ids_P, chunk, tied
        )
        return total
    starts = range(0, max(1, len(hidden_UD)), chunk)
    bounds = _bounds(index_P, len(hidden_UD), chunk)
    total = hidden_UD.new_zeros((), dtype=torch.promote_types(hidden_UD.dtype, torch.float32))
    for start, first, last in zip(starts, bounds[:-1], bounds[1:], strict=True):
        part = (head, hidden_UD[start : start + chunk], index_P[first:last] - start, ids_P[first:last])
        total = total + (checkpoint(_chunk, *part, use_reentrant=False) if len(starts) > 1 else _chunk(*part))
    return total


def _bounds(index_P: torch.Tensor, places: int, chunk: int) -> list[int]:
    """Return the index of the first prediction of each chunk of places, and the number of predictions."""
    starts = torch.tensor([*range(0, max(1, places), chunk), places], device=index_P.device)
    bounds: list[int] = torch.searchsorted(index_P, starts).tolist()
    return bounds


def _chunk(head: nn.Module, hidden_CD: torch.Tensor, index_P: torch.Tensor, ids_P: torch.Tensor) -> torch.Tensor:
    """Return the summed loss with one softmax per place, however many predictions it makes; zero without any."""
    logits_CV: torch.Tensor = head(hidden_CD)
    logits_CV = logits_CV.to(torch.promote_types(logits_CV.dtype, torch.float32))
    return -logits_CV.log_softmax(-1)[index_P, ids_P].sum()


def _is_plain(head: nn.Module) -> bool:
    """Return whether a head is only a matrix: no adapter, no hooks that would be skipped, no shards.

    float16 is left to autograd, which computes gradients of the scaled loss: unscaled, the small ones vanish.
    """
    kind = type(head.weight) if type(head) is nn.Linear else None
    hooked = head._forward_hooks or head._forward_pre_hooks or head._backward_hooks or head._backward_pre_hooks
    return kind is nn.Parameter and not hooked and _compute_dtype(head.weight) != torch.float16


def _compute_dtype(weight: Any) -> torch.dtype:
    """Return the dtype of a multiplication with these weights: autocast's, if it is enabled."""
    device = weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype


@dataclass
class _TiedGradient:
    """Passes the gradient of tied weights from the head to the input embedding."""

    embedding_ran: bool = False
    """Whether the embedding's backward pass will follow, and return the gradient."""
    gradient: torch.Tensor | None = None


@contextmanager
def _tied_embedding(model: nn.Module) -> Iterator[_TiedGradient]:
    """Within this, an input embedding that shares the head's weights adds its rows to the head's gradient in place.

    Autograd would allocate a second matrix of V x D for a few hundred rows, and add the two.
    """
    head, tied = packing.head(model), _TiedGradient()

    def rerun(module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        tied.embedding_ran = True
        embedded_BTD: torch.Tensor = _TiedEmbedding.apply(  # type: ignore[no-untyped-call]
            args[0], module.weight, module.padding_idx, tied
        )
        return embedded_BTD

    plain = torch.is_grad_enabled() and _is_plain(head)
    shared = [m for m in model.modules() if plain and type(m) is nn.Embedding and m.weight is head.weight]
    shared = [m for m in shared if m.weight.requires_grad and not (m._forward_hooks or m.max_norm or m.sparse)]
    hooks = [m.register_forward_hook(rerun) for m in shared if not m.scale_grad_by_freq and len(shared) == 1]
    try:
        yield tied
    finally:
        for hook in hooks:
            hook.remove()


class _TiedEmbedding(torch.autograd.Function):
    """An embedding that adds its gradient to the head's."""

    @staticmethod
    def forward(
        ctx: Any, ids_BT: torch.Tensor, weight_VD: torch.Tensor, padding_idx: int | None, tied: _TiedGradient
    ) -> torch.Tensor:
        ctx.save_for_backward(ids_BT, weight_VD)
        ctx.padding_idx, ctx.tied = padding_idx, tied
        return nn.functional.embedding(ids_BT, weight_VD)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BTD: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        ids_BT, weight_VD = ctx.saved_tensors
        grad_VD, ctx.tied.gradient = ctx.tied.gradient, None
        grad_VD = torch.zeros_like(weight_VD) if grad_VD is None else grad_VD
        ids_N, grad_ND = ids_BT.flatten(), grad_BTD.flatten(0, -2)
        if ctx.padding_idx is not None:
            grad_ND = grad_ND * (ids_N != ctx.padding_idx)[:, None]
        return None, grad_VD.index_add_(0, ids_N, grad_ND.to(grad_VD.dtype)), None, None


class _LinearCrossEntropy(torch.autograd.Function):
    """Head and cross-entropy in one: gradients are computed together with the logits, which are then freed.

    As in Liger Kernel (arXiv:2410.10989): the loss is a sum, so the gradients only lack a factor that the backward pass
    receives. Multiplications run in autocast's dtype, the softmax at least in float32.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_UD: torch.Tensor,
        weight_VD: torch.Tensor,
        bias_V: torch.Tensor | None,
        index_P: torch.Tensor,
        ids_P: torch.Tensor,
        chunk: int,
        tied: _TiedGradient | None,
    ) -> torch.Tensor:
        dtype = _compute_dtype(weight_VD)
        weight_learns, bias_learns = ctx.needs_input_grad[1:3]
        weight, bias = weight_VD.to(dtype), None if bias_V is None else bias_V.to(dtype)
        grad_UD = torch.empty_like(hidden_UD)
        grad_VD = torch.zeros_like(weight_VD) if weight_learns else None
        grad_V = torch.zeros_like(bias_V) if bias_V is not None and bias_learns else None
        total = hidden_UD.new_zeros((), dtype=torch.promote_types(hidden_UD.dtype, torch.float32))
        bounds = _bounds(index_P, len(hidden_UD), chunk)
        with torch.autocast(weight.device.type, enabled=False):
            for start, first, last in zip(range(0, len(hidden_UD), chunk), bounds[:-1], bounds[1:], strict=False):
                hidden_CD = hidden_UD[start : start + chunk].to(dtype)
                logits_CV = nn.functional.linear(hidden_CD, weight, bias)
                loss, grad_CV = _softmax_gradient(logits_CV, index_P[first:last] - start, ids_P[first:last])
                total += loss
                grad_CV = grad_CV.to(dtype)
                grad_UD[start : start + chunk] = grad_CV @ weight
                if grad_VD is not None and grad_VD.dtype == dtype:
                    grad_VD.addmm_(grad_CV.T, hidden_CD)
                elif grad_VD is not None:
                    grad_VD += grad_CV.T @ hidden_CD
                if grad_V is not None:
                    grad_V += grad_CV.sum(0)
        ctx.grads, ctx.tied = [grad_UD, grad_VD, grad_V], tied
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factor: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grads: list[torch.Tensor | None] = []
        while ctx.grads:  # popped, because autograd copies gradients that something else still refers to
            grad = ctx.grads.pop(0)
            grads.append(None if grad is None else grad.mul_(factor))
        if ctx.tied is not None and ctx.tied.embedding_ran:
            ctx.tied.gradient, grads[1] = grads[1], None
        return *grads, None, None, None, None


def _softmax_gradient(
    logits_CV: torch.Tensor, index_P: torch.Tensor, ids_P: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the summed loss and its gradient, which overwrites the logits if they are in float32."""
    logits_CV = logits_CV.to(torch.promote_types(logits_CV.dtype, torch.float32))
    logits_CV.sub_(logits_CV.amax(-1, keepdim=True))
    chosen_P = logits_CV[index_P, ids_P]
    sums_C = logits_CV.exp_().sum(-1)
    loss = (sums_C.log()[index_P] - chosen_P).sum()
    logits_CV.mul_((torch.bincount(index_P, minlength=len(sums_C)) / sums_C)[:, None])
    logits_CV.index_put_((index_P, ids_P), logits_CV.new_tensor(-1.0), accumulate=True)
    return loss, logits_CV


@dataclass(frozen=True)
class PackedTexts:
    """A layout: texts merged into one row that shares their prefixes."""

    def partition(self, rows: Sequence[EncodedText], drawn: Sequence[int], processes: int) -> list[list[int]]:
        lots = packing.partition([rows[i].ids for i in drawn], processes)
        return [[drawn[position] for position in lot] for lot in lots]

    def plan(self, rows: Sequence[EncodedText], max_tokens: int) -> list[list[int]]:
        return packing.plan([row.ids for row in rows], max_tokens)

    def collate(self, rows: Sequence[EncodedText]) -> PackedBatch:
        return pack(rows)


@dataclass(frozen=True)
class PaddedTexts:
    """A layout: texts of similar lengths, padded to the longest of them."""

    pad_id: int

    def partition(self, rows: Sequence[EncodedText], drawn: Sequence[int], processes: int) -> list[list[int]]:
        by_length = sorted(drawn, key=lambda i: len(rows[i]), reverse=True)
        return [by_length[rank::processes] for rank in range(processes)]

    def plan(self, rows: Sequence[EncodedText], max_tokens: int) -> list[list[int]]:
        return batches.plan([len(row) for row in rows], max_tokens)

    def collate(self, rows: Sequence[EncodedText]) -> Batch:
        return pad(rows, self.pad_id)


def pack(rows: Sequence[EncodedText]) -> PackedBatch:
    """Return texts as one packed row."""
    packed = packing.pack([row.ids for row in rows], [row.labels for row in rows])
    return PackedBatch(packed, tuple(row.id for row in rows))


def pad(rows: Sequence[EncodedText], pad_id: int) -> Batch:
    """Return texts padded on the right, which a causal model's earlier tokens never attend to."""
    length = max(map(len, rows))
    ids_BT = torch.tensor([row.ids + [pad_id] * (length - len(row)) for row in rows])
    labels_BT = torch.tensor([row.labels + [IGNORE] * (length - len(row)) for row in rows])
    mask_BT = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    return Batch({"input_ids": ids_BT, "attention_mask": mask_BT}, labels_BT, tuple(row.id for row in rows))
