"""Multinomial logistic regression whose weights are the product of two thin matrices, fitted in minibatches by torch.

For more classes than an exact solver has memory for: only the two factors, their gradients and moments, and the scores
of one minibatch are in memory. The L2 penalty on the factors is one on the nuclear norm of the weights (Srebro et al.,
Maximum-Margin Matrix Factorization, 2004).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from tunesmith import console

RANK = 128
MEMORY = 1 << 30
"""Bytes for the factors, their gradients and Adam's two moments: more features than 500,000 make the rank lower."""
BATCH = 512
EPOCHS = 5
STEPS = 300
"""At least: small data is passed over more often."""
LEARNING_RATE = 0.01
"""Adam's at the start; it falls to 0."""
PENALTY = 10.0
"""What 1 / C is multiplied by. Chosen by held-out log loss, see docs/decisions.md."""


def fit(
    features: Any, gold: NDArray[np.intp], row_weights: NDArray[np.float64], classes: int, C: float
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return projection (features x rank), weight (classes x rank) and bias (classes), all float32.

    features: rows x features, a CSR matrix or an array. C: inverse strength of the L2 penalty. Equal inputs give
    equal bits.
    """
    N, D = features.shape
    rank = max(1, min(RANK, D, MEMORY // (16 * (D + classes))))
    generator = torch.Generator().manual_seed(0)
    projection_DR = (torch.randn(D, rank, generator=generator) / rank**0.5).requires_grad_()
    weight_KR, bias_K = torch.zeros(classes, rank, requires_grad=True), torch.zeros(classes, requires_grad=True)
    parameters = [projection_DR, weight_KR, bias_K]
    optimizer = torch.optim.Adam(
        [{"params": parameters[:2], "weight_decay": PENALTY / (C * N)}, {"params": parameters[2:]}],
        lr=LEARNING_RATE,
        fused=True,
    )
    epochs = max(EPOCHS, -(-STEPS * BATCH // N))
    steps = epochs * -(-N // BATCH)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    targets, scale = torch.from_numpy(gold), torch.from_numpy(row_weights.astype(np.float32))
    with console.meter("fit", steps) as meter:
        for epoch in range(epochs):
            order = torch.randperm(N, generator=generator)
            for step, rows in enumerate(torch.split(order, BATCH), start=epoch * (steps // epochs) + 1):
                scores_BK = functional.linear(_projected(features[rows.numpy()], projection_DR), weight_KR, bias_K)
                losses_B = functional.cross_entropy(scores_BK, targets[rows], reduction="none")
                optimizer.zero_grad()
                (losses_B * scale[rows]).mean().backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                meter(step)
    projection, weight, bias = (parameter.detach().numpy() for parameter in parameters)
    return projection, weight, bias


def _projected(features_BD: Any, projection_DR: torch.Tensor) -> torch.Tensor:
    """Rows of features, times the projection: B x rank."""
    if isinstance(features_BD, np.ndarray):
        return torch.from_numpy(features_BD.astype(np.float32)) @ projection_DR
    indices, starts = (torch.from_numpy(array.astype(np.int64)) for array in (features_BD.indices, features_BD.indptr))
    values = torch.from_numpy(features_BD.data.astype(np.float32))
    return functional.embedding_bag(indices, projection_DR, starts[:-1], mode="sum", per_sample_weights=values)
