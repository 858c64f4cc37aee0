"""Sampling of tokens: temperature, top-k, top-p and repetition penalty, reproducible for each row in every batch."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tunesmith.data.prompts import Ids
from tunesmith.recipe import Generate


@dataclass(frozen=True)
class GenerationRow:
    """One answer to generate. number: its index among several answers to one prompt."""

    prompt: Ids
    seed: int
    number: int = 0


@dataclass(frozen=True)
class SeededSampler:
    """A logits processor of transformers' `generate` that samples, or penalises repetition.

    Unlike the library's own, its penalty ignores padding and its random numbers belong to a row instead of a batch, so
    that a row gets the same tokens in every batch.
    """

    settings: Generate
    pads: list[int]
    """Tokens of padding at the start of each row."""
    generators: list[np.random.Generator]

    @classmethod
    def of(cls, rows: Sequence[GenerationRow], width: int, settings: Generate) -> SeededSampler:
        """Return a sampler for rows padded on the left to `width`; each has a random generator of its own."""
        keys = [[row.seed, row.number, zlib.crc32(np.array(row.prompt, np.int64).tobytes())] for row in rows]
        pads = [width - len(row.prompt) for row in rows]
        return cls(settings, pads, [np.random.Generator(np.random.PCG64(key)) for key in keys])

    def __call__(self, ids_BT: torch.Tensor, scores_BV: torch.Tensor) -> torch.Tensor:
        """Return scores whose maximum is the token to take."""
        scores_BV = self._penalize(ids_BT, scores_BV)
        if not self.settings.do_sample:
            return scores_BV
        weights_BV = self._weights(scores_BV).cumsum(-1)
        draws_B1 = torch.tensor([[rng.random()] for rng in self.generators], dtype=torch.float64, device=ids_BT.device)
        chosen_B1 = torch.searchsorted(weights_BV, draws_B1 * weights_BV[:, -1:], right=True)
        return torch.full_like(scores_BV, -torch.inf).scatter_(1, chosen_B1, 0.0)

    def _penalize(self, ids_BT: torch.Tensor, scores_BV: torch.Tensor) -> torch.Tensor:
        """Divide positive scores of earlier tokens by the penalty and multiply negative ones (Keskar et al. 2019)."""
        penalty = self.settings.repetition_penalty
        if penalty == 1:
            return scores_BV
        scores_BV = scores_BV.clone()
        for row, pads in enumerate(self.pads):
            used = torch.unique(ids_BT[row, pads:])
            scores = scores_BV[row, used]
            scores_BV[row, used] = torch.where(scores < 0, scores * penalty, scores / penalty)
        return scores_BV

    def _weights(self, scores_BV: torch.Tensor) -> torch.Tensor:
        """Return unnormalised probabilities in the order of ids; sorted, near-ties could change places."""
        weights_BV = (scores_BV.double() / self.settings.temperature).softmax(-1)
        if self.settings.top_k:
            kept = weights_BV.topk(min(self.settings.top_k, weights_BV.shape[1])).values[:, -1:]
            weights_BV = weights_BV.where(weights_BV >= kept, 0.0)
        if self.settings.top_p < 1:
            sorted_BV, order_BV = weights_BV.sort(descending=True)
            before_BV = sorted_BV.cumsum(-1) - sorted_BV
            out_BV = before_BV >= self.settings.top_p * sorted_BV.sum(-1, keepdim=True)
            weights_BV = weights_BV.masked_fill(torch.zeros_like(out_BV).scatter_(1, order_BV, out_BV), 0.0)
        return weights_BV
