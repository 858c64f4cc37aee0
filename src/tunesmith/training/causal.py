"""Cross-entropy of the learned tokens of a causal language model, in two layouts with one result.

`Packed...` merges the sequences of a micro-batch into one row (models/packing.py); `Padded...` is for models that
cannot be run so. In both the head runs only where something is learned, a chunk at a time: the largest tensor of logits
has chunk x vocabulary numbers, however many tokens a micro-batch holds.
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
        with _joined_input(model) as joint:
            hidden_UD = packing.hidden_states(model, row).index_select(0, row.target_places)
        return sum_cross_entropy(packing.head(model), hidden_UD, row.target_index, row.target_ids, self.chunk, joint)


@dataclass(frozen=True)
class PaddedCausal:
    """The same on padded batches: inputs input_ids and attention_mask, B x T; labels B x T, IGNORE on pads."""

    chunk: int = CHUNK
    through_model: bool = False
    """Take the logits that the model's own forward makes, of all learned places at once: for models whose head does
    not have the last word, see `head_decides`."""

    def count(self, batch: Batch) -> float:
        return float((batch.labels[:, 1:] != IGNORE).sum())

    def total(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        next_BT = batch.labels[:, 1:]
        learned_BT = next_BT != IGNORE
        ids_U = next_BT[learned_BT]
        if self.through_model:
            return nn.functional.cross_entropy(_own_logits(model, batch.inputs, learned_BT), ids_U, reduction="sum")
        with _joined_input(model) as joint:
            hidden_UD = packing.run_body(model, batch.inputs)[:, :-1][learned_BT]
        each_U = torch.arange(len(hidden_UD), device=hidden_UD.device)
        return sum_cross_entropy(packing.head(model), hidden_UD, each_U, ids_U, self.chunk, joint)


def head_decides(model: nn.Module, ids: Sequence[int]) -> bool:
    """Whether the model's logits are what its head gives: tried on a sequence, at places where the head gives +-100.

    Not so where logits are capped (Gemma 2) or scaled (Cohere, Granite) afterwards: only
    `PaddedCausal(through_model=True)` has the right loss then. Caps bend large logits alone, hence the size.
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
            found = model(input_ids=torch.tensor([list(ids)], device=next(model.parameters()).device)).logits
    finally:
        hook.remove()
    with torch.no_grad():
        expected = head(seen[1])
    return torch.allclose(found.float(), expected.float(), rtol=1e-2, atol=1e-2)


def _own_logits(model: nn.Module, inputs: dict[str, torch.Tensor], learned_BT: torch.Tensor) -> torch.Tensor:
    """The model's own logits, U x V in float32 at least, at the learned places of all but the last column."""
    _, output = packing.run_trimmed(
        model, {**inputs, "use_cache": False}, lambda hidden_BTD: hidden_BTD[:, :-1][learned_BT][None]
    )
    logits_UV: torch.Tensor = output.logits[0]
    return logits_UV.to(torch.promote_types(logits_UV.dtype, torch.float32))


def sum_cross_entropy(
    head: nn.Module,
    hidden_UD: torch.Tensor,
    index_P: torch.Tensor,
    ids_P: torch.Tensor,
    chunk: int = CHUNK,
    joint: _Joint | None = None,
) -> torch.Tensor:
    """The summed loss of predicting ids_P[p] from hidden_UD[index_P[p]]; index_P ascends. At least in float32.

    No logits are kept for the backward pass: a plain head's gradients are made with them (`_LinearCrossEntropy`), and
    of another head, where there is more than one chunk, they are computed again.
    """
    if torch.is_grad_enabled() and _is_plain(head):
        total: torch.Tensor = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
            hidden_UD, head.weight, head.bias, index_P, ids_P, chunk, joint
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
    """Where the predictions of each chunk of places begin, and where the last end."""
    starts = torch.tensor([*range(0, max(1, places), chunk), places], device=index_P.device)
    found: list[int] = torch.searchsorted(index_P, starts).tolist()
    return found


def _chunk(head: nn.Module, hidden_CD: torch.Tensor, index_P: torch.Tensor, ids_P: torch.Tensor) -> torch.Tensor:
    """One softmax per place, however many predictions are made there; without any, a zero with a gradient of zeros."""
    logits_CV: torch.Tensor = head(hidden_CD)
    logits_CV = logits_CV.to(torch.promote_types(logits_CV.dtype, torch.float32))
    return -logits_CV.log_softmax(-1)[index_P, ids_P].sum()


def _is_plain(head: nn.Module) -> bool:
    """Whether a head is a matrix and nothing more: no adapter, no hooks that would be passed over, no shards.

    float16 is left to autograd, which sees the gradients after the loss was scaled: before, the small ones vanish.
    """
    kind = type(head.weight) if type(head) is nn.Linear else None
    hooked = head._forward_hooks or head._forward_pre_hooks or head._backward_hooks or head._backward_pre_hooks
    return kind is nn.Parameter and not hooked and _format(head.weight) != torch.float16


def _format(weight: Any) -> torch.dtype:
    """What a product with these weights is computed in here."""
    device = weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype


@dataclass
class _Joint:
    """The gradient of weights that are head and input embedding, on its way from the one to the other."""

    armed: bool = False
    """The embedding ran, and will hand the gradient on."""
    gradient: torch.Tensor | None = None

    def take(self) -> torch.Tensor | None:
        found, self.gradient = self.gradient, None
        return found


@contextmanager
def _joined_input(model: nn.Module) -> Iterator[_Joint]:
    """Within, an input embedding that shares the head's weights adds its rows to the head's gradient in place.

    Autograd would make a second matrix of V x D for a few hundred rows, and add the two.
    """
    head, joint = packing.head(model), _Joint()

    def rerun(module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        joint.armed = True
        found: torch.Tensor = _JoinedEmbedding.apply(  # type: ignore[no-untyped-call]
            args[0], module.weight, module.padding_idx, joint
        )
        return found

    plain = torch.is_grad_enabled() and _is_plain(head)
    shared = [m for m in model.modules() if plain and type(m) is nn.Embedding and m.weight is head.weight]
    shared = [m for m in shared if m.weight.requires_grad and not (m._forward_hooks or m.max_norm or m.sparse)]
    hooks = [m.register_forward_hook(rerun) for m in shared if not m.scale_grad_by_freq and len(shared) == 1]
    try:
        yield joint
    finally:
        for hook in hooks:
            hook.remove()


class _JoinedEmbedding(torch.autograd.Function):
    """An embedding whose gradient is added to what `joint` brings."""

    @staticmethod
    def forward(
        ctx: Any, ids_BT: torch.Tensor, weight_VD: torch.Tensor, padding_idx: int | None, joint: _Joint
    ) -> torch.Tensor:
        ctx.save_for_backward(ids_BT, weight_VD)
        ctx.padding_idx, ctx.joint = padding_idx, joint
        return nn.functional.embedding(ids_BT, weight_VD)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BTD: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        ids_BT, weight_VD = ctx.saved_tensors
        grad_VD = ctx.joint.take()
        grad_VD = torch.zeros_like(weight_VD) if grad_VD is None else grad_VD
        ids_N, grad_ND = ids_BT.flatten(), grad_BTD.flatten(0, -2)
        if ctx.padding_idx is not None:
            grad_ND = grad_ND * (ids_N != ctx.padding_idx)[:, None]
        return None, grad_VD.index_add_(0, ids_N, grad_ND.to(grad_VD.dtype)), None, None


class _LinearCrossEntropy(torch.autograd.Function):
    """Head and cross-entropy in one: the gradients are made with the logits, which are then forgotten.

    As in Liger Kernel (arXiv 2410.10989): the loss is a sum, so the gradients of what comes before only lack a factor
    that the backward pass knows. Products run in the format of autocast, the softmax in float32 at least.
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
        joint: _Joint | None,
    ) -> torch.Tensor:
        form = _format(weight_VD)
        learns, learns_bias = ctx.needs_input_grad[1:3]
        weight, bias = weight_VD.to(form), None if bias_V is None else bias_V.to(form)
        grad_UD = torch.empty_like(hidden_UD)
        grad_VD = torch.zeros_like(weight_VD) if learns else None
        grad_V = torch.zeros_like(bias_V) if bias_V is not None and learns_bias else None
        total = hidden_UD.new_zeros((), dtype=torch.promote_types(hidden_UD.dtype, torch.float32))
        bounds = _bounds(index_P, len(hidden_UD), chunk)
        with torch.autocast(weight.device.type, enabled=False):
            for start, first, last in zip(range(0, len(hidden_UD), chunk), bounds[:-1], bounds[1:], strict=False):
                hidden_CD = hidden_UD[start : start + chunk].to(form)
                logits_CV = nn.functional.linear(hidden_CD, weight, bias)
                loss, grad_CV = _softmax_gradient(logits_CV, index_P[first:last] - start, ids_P[first:last])
                total += loss
                grad_CV = grad_CV.to(form)
                grad_UD[start : start + chunk] = grad_CV @ weight
                if grad_VD is not None:
                    _add_product(grad_VD, grad_CV, hidden_CD)
                if grad_V is not None:
                    grad_V += grad_CV.sum(0)
        ctx.grads, ctx.joint = [grad_UD, grad_VD, grad_V], joint
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factor: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grads: list[torch.Tensor | None] = []
        while ctx.grads:  # given away: what something else still holds, autograd copies
            grad = ctx.grads.pop(0)
            grads.append(None if grad is None else grad.mul_(factor))
        if ctx.joint is not None and ctx.joint.armed:
            ctx.joint.gradient, grads[1] = grads[1], None
        return *grads, None, None, None, None


def _softmax_gradient(
    logits_CV: torch.Tensor, index_P: torch.Tensor, ids_P: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Summed loss and its gradient, which takes the place of the logits where they are in float32."""
    logits_CV = logits_CV.to(torch.promote_types(logits_CV.dtype, torch.float32))
    logits_CV.sub_(logits_CV.amax(-1, keepdim=True))
    chosen_P = logits_CV[index_P, ids_P]
    sums_C = logits_CV.exp_().sum(-1)
    loss = (sums_C.log()[index_P] - chosen_P).sum()
    logits_CV.mul_((torch.bincount(index_P, minlength=len(sums_C)) / sums_C)[:, None])
    logits_CV.index_put_((index_P, ids_P), logits_CV.new_tensor(-1.0), accumulate=True)
    return loss, logits_CV


def _add_product(total_VD: torch.Tensor, grad_CV: torch.Tensor, hidden_CD: torch.Tensor) -> None:
    if total_VD.dtype == grad_CV.dtype:
        total_VD.addmm_(grad_CV.T, hidden_CD)
    else:
        total_VD += grad_CV.T @ hidden_CD


@dataclass(frozen=True)
class PackedTexts:
    """A layout: texts merged into one row that shares their prefixes."""

    def partition(self, rows: Sequence[EncodedText], drawn: Sequence[int], processes: int) -> list[list[int]]:
        lots = packing.deal([rows[i].ids for i in drawn], processes)
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
