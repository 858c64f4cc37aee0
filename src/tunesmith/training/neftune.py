"""Noisy embeddings in training, NEFTune (arXiv:2310.05914)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from tunesmith.models import packing


@contextmanager
def noise(model: nn.Module, alpha: float | None) -> Iterator[None]:
    """Within this, add uniform noise of +-alpha / sqrt(L x D) to the embeddings of a model in training mode.

    D: size of an embedding. L: tokens of the longest text in memory, as in a padded batch, whatever the layout; the
    shared prefixes of a packed row have one noise, as they have one dropout. alpha: None for no noise.
    """
    if alpha is None:
        yield
        return
    network = packing.inner(model)
    length = 1

    def note_length(module: nn.Module, args: tuple[Any, ...], inputs: Mapping[str, torch.Tensor]) -> None:
        nonlocal length
        positions = inputs.get("position_ids")
        length = inputs["input_ids"].shape[1] if positions is None else int(positions.max()) + 1

    def add_noise(module: nn.Module, args: tuple[Any, ...], embedded_BTD: torch.Tensor) -> torch.Tensor | None:
        if not module.training:
            return None
        size = alpha / math.sqrt(length * embedded_BTD.shape[-1])
        return embedded_BTD + torch.empty_like(embedded_BTD).uniform_(-size, size)

    hooks = [
        network.register_forward_pre_hook(note_length, with_kwargs=True),
        network.get_input_embeddings().register_forward_hook(add_noise),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
