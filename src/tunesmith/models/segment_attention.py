"""Attention in rows of several texts, segment by segment: tokens that do not attend to each other have no score.

Gradients are computed by hand, since autograd would fill a tensor of the whole row for each segment and layer. With
dropout, whose random bits come from models/dropout.py, the weights are kept for the backward pass as torch's own
attention does; without, torch's fused attention computes them again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from tunesmith.models import dropout as dropouts

NAME = "segments"
"""The name under which transformers knows this attention."""
FUSED = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
FUSED_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True, slots=True)
class Segment:
    """Neighbouring tokens of a row. They attend to some tokens before them and to each other."""

    start: int
    end: int
    before: tuple[tuple[int, int], ...] = ()
    """Start and end of each range of tokens that all of them attend to."""
    causal: bool = False
    """Whether a token attends to none that come after it in the segment."""

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """All that they attend to."""
        if self.before and self.before[-1][1] == self.start:
            return *self.before[:-1], (self.before[-1][0], self.end)
        return *self.before, (self.start, self.end)

    def mask(self) -> torch.Tensor:
        """Return N x M: whether each of the N tokens attends to each of the M in `ranges`."""
        size, count = self.end - self.start, sum(end - start for start, end in self.ranges)
        return torch.ones(size, count, dtype=torch.bool).tril(count - size if self.causal else count)


def set_attention(model: nn.Module, name: str) -> None:
    """Let a transformers model attend by this module (NAME), or as before. Rows without segments are not affected."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, _forward)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    cast(Any, model).set_attn_implementation(name)


def _forward(
    module: nn.Module,
    query_BHTD: torch.Tensor,
    key_BKTD: torch.Tensor,
    value_BKTD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within the `segments` of a row (B = 1), or as sdpa does where there are none. Returns B x T x H x D."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    segments = more.pop("segments", None)
    if segments is None:
        output: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query_BHTD, key_BKTD, value_BKTD, attention_mask, dropout=dropout, scaling=scaling, **more
        )
        return output
    if more.get("sliding_window") is not None or getattr(module, "is_causal", False) != segments[0].causal:
        raise ValueError("its tokens do not attend to all of their text")
    query_THD, key_TKD, value_TKD = (states[0].transpose(0, 1) for states in (query_BHTD, key_BKTD, value_BKTD))
    return attend(query_THD, key_TKD, value_TKD, segments, dropout, scaling)[None], None


def attend(
    query_THD: torch.Tensor,
    key_TKD: torch.Tensor,
    value_TKD: torch.Tensor,
    segments: Sequence[Segment],
    dropout: float = 0.0,
    scale: float | None = None,
) -> torch.Tensor:
    """Return T x H x D. H is a multiple of K; H / K neighbouring heads share their keys and values.

    segments: in order, all tokens of the row. dropout: probability of dropping an attention weight. scale: of the
    scores; by default D ** -0.5. Of states of several types, as rotary embeddings leave them under autocast, the most
    precise one is computed in.
    """
    dtype = torch.promote_types(torch.promote_types(query_THD.dtype, key_TKD.dtype), value_TKD.dtype)
    query_THD, key_TKD, value_TKD = (states.to(dtype) for states in (query_THD, key_TKD, value_TKD))
    scale = query_THD.shape[-1] ** -0.5 if scale is None else scale
    output: torch.Tensor = _Attention.apply(  # type: ignore[no-untyped-call]
        query_THD, key_TKD, value_TKD, tuple(segments), dropout, scale
    )
    return output


class _Attention(torch.autograd.Function):
    """The states of a segment are K x N x D for its tokens (N times H / K of them) and K x M x D for its keys."""

    @staticmethod
    def forward(
        ctx: Any,
        query_THD: torch.Tensor,
        key_TKD: torch.Tensor,
        value_TKD: torch.Tensor,
        segments: tuple[Segment, ...],
        dropout: float,
        scale: float,
    ) -> torch.Tensor:
        output_THD = torch.empty_like(query_THD, memory_format=torch.contiguous_format)
        heads = key_TKD.shape[1]
        ctx.segments, ctx.dropout, ctx.scale = segments, dropout, scale
        ctx.masks = _masks(segments, query_THD.shape[1] // heads, query_THD.dtype)
        saved: list[torch.Tensor] = []
        with torch.autocast("cpu", enabled=False):
            for segment, mask in zip(segments, ctx.masks, strict=True):
                query, key, value = _queries(query_THD, segment, heads), *_keys(segment, key_TKD, value_TKD)
                if dropout:
                    added = query.new_zeros(1) if mask is None else mask
                    scores = torch.baddbmm(added, query, key.transpose(1, 2), beta=mask is not None, alpha=scale)
                    weights = torch.softmax(scores, -1)
                    factors = dropouts.noise(weights.shape, dropout, weights.dtype)
                    output = torch.bmm(weights * factors, value)
                    saved += [weights, factors]
                else:
                    (output,), log_sums = FUSED(query[None], key[None], value[None], 0.0, attn_mask=mask, scale=scale)
                    saved.append(log_sums)
                _put(output, segment, output_THD, heads)
        ctx.save_for_backward(query_THD, key_TKD, value_TKD, output_THD, *saved)
        return output_THD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_THD: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query_THD, key_TKD, value_TKD, output_THD, *saved = ctx.saved_tensors
        heads, rest = key_TKD.shape[1], iter(saved)
        grad_query_THD = torch.empty_like(query_THD, memory_format=torch.contiguous_format)
        grad_key_TKD = torch.zeros_like(key_TKD, memory_format=torch.contiguous_format)
        grad_value_TKD = torch.zeros_like(value_TKD, memory_format=torch.contiguous_format)
        for segment, mask in zip(ctx.segments, ctx.masks, strict=True):
            grad, query = (_queries(states, segment, heads) for states in (grad_THD, query_THD))
            key, value = _keys(segment, key_TKD, value_TKD)
            if ctx.dropout:
                weights, factors = next(rest), next(rest)
                grad_value = torch.bmm((weights * factors).transpose(1, 2), grad)
                grad_weights = torch.bmm(grad, value.transpose(1, 2)).mul_(factors)
                grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype).mul_(ctx.scale)
                grad_query, grad_key = torch.bmm(grad_scores, key), torch.bmm(grad_scores.transpose(1, 2), query)
            else:
                output, (log_sums,) = _queries(output_THD, segment, heads), next(rest)
                states = (state[None] for state in (grad, query, key, value, output, log_sums))
                grads = FUSED_BACKWARD(*states, 0.0, False, attn_mask=mask, scale=ctx.scale)
                grad_query, grad_key, grad_value = (state[0] for state in grads)
            _put(grad_query, segment, grad_query_THD, heads)
            _add(grad_key, segment, grad_key_TKD)
            _add(grad_value, segment, grad_value_TKD)
        return grad_query_THD, grad_key_TKD, grad_value_TKD, None, None, None


@lru_cache(maxsize=2)  # the layers of a model ask for the same in turn
def _masks(segments: tuple[Segment, ...], shared: int, dtype: torch.dtype) -> list[torch.Tensor | None]:
    """Return what to add to the scores of each segment; `shared` heads with the same keys are stacked."""
    bias = {
        segment: torch.zeros((), dtype=dtype).where(segment.mask(), -torch.inf).repeat(shared, 1)
        for segment in segments
        if segment.causal
    }
    return [bias.get(segment) for segment in segments]


def _queries(states_THD: torch.Tensor, segment: Segment, heads: int) -> torch.Tensor:
    """Return K x (H / K * N) x D: the segment's tokens, with the heads that share keys one after the other."""
    rows_NHD = states_THD[segment.start : segment.end]
    size, _, channels = rows_NHD.shape
    return rows_NHD.reshape(size, heads, -1, channels).permute(1, 2, 0, 3).reshape(heads, -1, channels)


def _put(states: torch.Tensor, segment: Segment, into_THD: torch.Tensor, heads: int) -> None:
    """Write what has the shape of `_queries` to the segment's tokens."""
    size, channels = segment.end - segment.start, states.shape[-1]
    rows = into_THD[segment.start : segment.end].view(size, heads, -1, channels)
    rows.copy_(states.reshape(heads, -1, size, channels).permute(2, 0, 1, 3))


def _keys(segment: Segment, *states_TKD: torch.Tensor) -> list[torch.Tensor]:
    """Return K x M x D of all that the segment attends to."""
    parts = [[states[start:end] for start, end in segment.ranges] for states in states_TKD]
    return [(part[0] if len(part) == 1 else torch.cat(part)).transpose(0, 1) for part in parts]


def _add(states: torch.Tensor, segment: Segment, into_TKD: torch.Tensor) -> None:
    """Add what has the shape of `_keys` to the tokens that the segment attends to."""
    done = 0
    for start, end in segment.ranges:
        into_TKD[start:end] += states[:, done : done + end - start].transpose(0, 1)
        done += end - start
