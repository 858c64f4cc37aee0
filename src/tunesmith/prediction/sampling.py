"""Drawing tokens: temperature, top-k, top-p and penalties, reproducible for each row whatever its batch."""

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
    """One answer to be written. number: of several to one prompt."""

    prompt: Ids
    seed: int
    number: int = 0


@dataclass(frozen=True)
class SeededSampler:
    """Chooses next tokens where not simply the likeliest is wanted: a `logits processor` of the library.

    Its own penalty does not see padding, as the library's does, and its numbers belong to a row, not to a batch: so a
    row gets the same tokens in every batch.
    """

    settings: Generate
    pads: list[int]
    """How many of a row's first tokens are padding."""
    numbers: list[np.random.Generator]

    @classmethod
    def of(cls, rows: Sequence[GenerationRow], width: int, settings: Generate) -> SeededSampler:
        """For rows padded on the left to `width`. A row's numbers follow from seed, prompt and its own number."""
        keys = [[row.seed, row.number, zlib.crc32(np.array(row.prompt, np.int64).tobytes())] for row in rows]
        pads = [width - len(row.prompt) for row in rows]
        return cls(settings, pads, [np.random.Generator(np.random.PCG64(key)) for key in keys])

    def __call__(self, ids_BT: torch.Tensor, scores_BV: torch.Tensor) -> torch.Tensor:
        """Scores whose largest is the token to take."""
        scores_BV = self._penalize(ids_BT, scores_BV)
        if not self.settings.do_sample:
            return scores_BV
        weights_BV = self._weights(scores_BV).cumsum(-1)
        draws_B1 = torch.tensor([[rng.random()] for rng in self.numbers], dtype=torch.float64, device=ids_BT.device)
        chosen_B1 = torch.searchsorted(weights_BV, draws_B1 * weights_BV[:, -1:], right=True)
        return torch.full_like(scores_BV, -torch.inf).scatter_(1, chosen_B1, 0.0)

    def _penalize(self, ids_BT: torch.Tensor, scores_BV: torch.Tensor) -> torch.Tensor:
        """Keskar et al. 2019: what was used is divided by the penalty where positive, else multiplied."""
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
        """What each token is drawn with, not normalised; by id and not by size, whose order near-ties could change."""
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
