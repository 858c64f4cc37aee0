"""The ordinal loss."""

from __future__ import annotations

import torch

from tunesmith.training import losses


def test_ordinal_loss_is_the_sum_of_binary_cross_entropies() -> None:
    torch.manual_seed(0)
    logits_NK, labels_N = torch.randn(20, 5, dtype=torch.float64), torch.arange(20) % 5
    above_NJ = logits_NK.softmax(dim=1).flip(1).cumsum(dim=1).flip(1)[:, 1:]
    known_NJ = (labels_N[:, None] > torch.arange(4)).double()
    expected = torch.nn.functional.binary_cross_entropy(above_NJ, known_NJ, reduction="none").sum(dim=1)
    assert torch.allclose(losses.ordinal(logits_NK, labels_N), expected, atol=1e-12)


def test_ordinal_loss_grows_with_the_distance_and_stays_finite() -> None:
    logits_NK = torch.tensor([[30.0, 0, 0, 0, 0]]).repeat(5, 1).requires_grad_()
    values = losses.ordinal(logits_NK, torch.arange(5))
    assert (values.diff() > 0).all()
    (100 * values).sum().backward()
    assert logits_NK.grad is not None
    assert torch.isfinite(logits_NK.grad).all()
