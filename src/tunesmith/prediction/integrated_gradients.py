"""Integrated gradients (Sundararajan et al. 2017, arXiv:1703.01365) over the input embeddings of an encoder.

The path goes from a baseline text to the text itself. The integral along it is computed by Gauss-Legendre quadrature,
which needs fewer points than sums at equal distances.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tunesmith.models import packing
from tunesmith.tasks.classification import SingleLabel
from tunesmith.tasks.regression import Number
from tunesmith.tasks.text_targets import Target

Score = Callable[[torch.Tensor], torch.Tensor]
"""Logits, B x K, to the number that is explained, B."""


def score_of(target: Target, output: int) -> Score:
    """Return the score of an output: its log-odds, or the number."""

    def score(logits_BK: torch.Tensor) -> torch.Tensor:
        chosen_B = logits_BK[:, output]
        if isinstance(target, Number):
            return chosen_B * target.scale + target.mean
        if isinstance(target, SingleLabel):
            others = [k for k in range(logits_BK.shape[1]) if k != output]
            return chosen_B - logits_BK[:, others].logsumexp(dim=1)
        return chosen_B

    return score


def contributions(
    model: nn.Module,
    inputs: dict[str, torch.Tensor],
    baseline_ids: torch.Tensor,
    score: Score,
    points: int,
    rows: int,
    on_batch: Callable[[], None],
) -> tuple[NDArray[np.float64], float, float]:
    """Return what each token adds to the score (T), the score of the text, and that of the baseline.

    inputs: of one text, 1 x T each. baseline_ids: 1 x T; where they are those of the text, tokens add nothing.
    rows: points that are computed at once. on_batch: called before each batch.
    """
    embedding = packing.inner(model).get_input_embeddings()
    with torch.no_grad():
        # detached, as a hook of gradient checkpointing may have let them require gradients
        first_TD, last_TD = (embedding(ids)[0].detach() for ids in (baseline_ids, inputs["input_ids"]))
    nodes, weights = np.polynomial.legendre.leggauss(points)
    path_P, weights_P = (torch.tensor(values / 2).to(first_TD) for values in (nodes + 1, weights))
    summed_TD = torch.zeros_like(first_TD)

    def run(part_B: torch.Tensor, gradients: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scores, and embeddings, at these parts of the path."""
        on_batch()
        embedded_BTD = first_TD + part_B[:, None, None] * (last_TD - first_TD)
        embedded_BTD.requires_grad_(gradients)
        expanded = {name: tensor.expand(len(part_B), -1) for name, tensor in inputs.items()}
        hook = embedding.register_forward_hook(
            lambda module, args, output: (
                embedded_BTD if torch.equal(args[0], expanded["input_ids"]) else embedded_BTD.transpose(0, 1)  # XLNet
            )
        )
        try:
            with torch.set_grad_enabled(gradients):
                return score(model(**expanded).logits), embedded_BTD
        finally:
            hook.remove()

    for start in range(0, points, rows):
        scores_B, embedded_BTD = run(path_P[start : start + rows], True)
        (gradient_BTD,) = torch.autograd.grad(scores_B.sum(), embedded_BTD)
        summed_TD += (weights_P[start : start + rows, None, None] * gradient_BTD).sum(dim=0)
    ends, _ = run(torch.tensor([0.0, 1.0]).to(first_TD), False)
    contributions_T = ((last_TD - first_TD) * summed_TD).sum(dim=1).double().cpu().numpy()
    return contributions_T, float(ends[1]), float(ends[0])
