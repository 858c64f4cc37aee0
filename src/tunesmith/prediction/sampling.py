"""Sampling of tokens: temperature, top-k, top-p and repetition penalty, reproducible for each row in every batch."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from tunesmith.data.prompts import Ids
from tunesmith.recipe import Generate


@dataclass(eq=False)
class GenerationRow:
    """One answer to generate. number: its index among several answers to one prompt."""

    prompt: Ids
    seed: int
    limit: int
    """Most tokens of the answer."""
    settings: Generate
    number: int = 0
    answer: Ids = field(default_factory=list)
    """Its tokens so far."""

    @cached_property
    def random(self) -> np.random.Generator:
        """Random numbers of this row's own, so that it gets the same tokens in every batch."""
        key = [self.seed, self.number, zlib.crc32(np.array(self.prompt, np.int64).tobytes())]
        return np.random.Generator(np.random.PCG64(key))


def choose_tokens(rows: Sequence[GenerationRow], logits_BV: torch.Tensor) -> list[int]:
    """Return the next token of each row: the likeliest, or one that is drawn."""
    tokens: dict[GenerationRow, int] = {}
    for settings in {row.settings for row in rows}:
        alike = [i for i, row in enumerate(rows) if row.settings == settings]
        chosen = [rows[i] for i in alike]
        scores_BV = logits_BV.float() if len(alike) == len(rows) else logits_BV[alike].float()
        tokens.update(zip(chosen, _choose(chosen, scores_BV, settings), strict=True))
    return [tokens[row] for row in rows]


def _choose(rows: Sequence[GenerationRow], scores_BV: torch.Tensor, settings: Generate) -> list[int]:
    if settings.repetition_penalty != 1:
        scores_BV = _penalize(rows, scores_BV, settings.repetition_penalty)
    if not settings.do_sample:
        return scores_BV.argmax(-1).tolist()
    weights_BV = _weights(scores_BV, settings).cumsum(-1)
    draws_B1 = torch.tensor([[row.random.random()] for row in rows], dtype=torch.float64, device=scores_BV.device)
    return torch.searchsorted(weights_BV, draws_B1 * weights_BV[:, -1:], right=True)[:, 0].tolist()


def _penalize(rows: Sequence[GenerationRow], scores_BV: torch.Tensor, penalty: float) -> torch.Tensor:
    """Divide positive scores of earlier tokens by the penalty and multiply negative ones (Keskar et al. 2019)."""
    scores_BV = scores_BV.clone()
    for row, scores_V in zip(rows, scores_BV, strict=True):
        used = sorted({*row.prompt, *row.answer})
        scores = scores_V[used]
        scores_V[used] = torch.where(scores < 0, scores * penalty, scores / penalty)
    return scores_BV


def _weights(scores_BV: torch.Tensor, settings: Generate) -> torch.Tensor:
    """Return unnormalised probabilities in the order of ids; sorted, near-ties could change places."""
    weights_BV = (scores_BV.double() / settings.temperature).softmax(-1)
    if settings.top_k:
        kept = weights_BV.topk(min(settings.top_k, weights_BV.shape[1])).values[:, -1:]
        weights_BV = weights_BV.where(weights_BV >= kept, 0.0)
    if settings.top_p < 1:
        sorted_BV, order_BV = weights_BV.sort(descending=True)
        before_BV = sorted_BV.cumsum(-1) - sorted_BV
        out_BV = before_BV >= settings.top_p * sorted_BV.sum(-1, keepdim=True)
        weights_BV = weights_BV.masked_fill(torch.zeros_like(out_BV).scatter_(1, order_BV, out_BV), 0.0)
    return weights_BV
