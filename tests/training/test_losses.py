"""The focal, ordinal and contrastive losses: formulas, limits, gradients where a row is as good as certain."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tunesmith.data.batches import Batch, WholeStep
from tunesmith.training import losses


class Given(nn.Module):
    """A model whose logits are its inputs."""

    def forward(self, logits: torch.Tensor) -> nn.Module:
        self.logits = logits
        return self


def batch(logits_BK: torch.Tensor, labels: torch.Tensor) -> Batch:
    return Batch({"logits": logits_BK}, labels, tuple(map(str, range(len(labels)))))


@pytest.mark.parametrize(("p", "ratio"), [(0.9, 100), (0.968377, 1000)])
def test_figures_of_the_paper(p: float, ratio: float) -> None:
    """With gamma 2 a row of p = 0.9 has a loss 100 times lower than cross-entropy, one of 0.968 about 1000 times."""
    logits_12 = torch.tensor([[0.0, math.log(p / (1 - p))]], dtype=torch.float64)
    loss = losses.focal(logits_12, torch.tensor([1]), gamma=2)
    assert -math.log(p) / loss.item() == pytest.approx(ratio, rel=1e-4)
    loss_fn = losses.MultilabelLoss(torch.ones(1), gamma=2)
    both = loss_fn.total(Given(), batch(logits_12[:, 1:].float(), torch.ones(1, 1)))
    assert -math.log(p) / both.item() == pytest.approx(ratio, rel=1e-4)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
def test_class_weights_and_focus_multiply(gamma: float) -> None:
    draw = torch.Generator().manual_seed(0)
    logits_NK = torch.randn(50, 4, generator=draw)
    labels_N, weights_K = torch.randint(4, (50,), generator=draw), torch.tensor([0.5, 1.0, 2.0, 3.0])
    p_N = logits_NK.softmax(-1)[torch.arange(50), labels_N]
    expected = -(weights_K[labels_N] * (1 - p_N) ** gamma * p_N.log()).sum()
    loss = losses.Classification(weights_K, lambda logits, labels: losses.focal(logits, labels, gamma=gamma))
    torch.testing.assert_close(loss.total(Given(), batch(logits_NK, labels_N)), expected)

    labels_NK = (torch.rand(50, 4, generator=draw) < 0.3).float()
    p_NK = logits_NK.sigmoid()
    positive = -weights_K * (1 - p_NK) ** gamma * p_NK.log() * labels_NK
    negative = -(p_NK**gamma) * (1 - p_NK).log() * (1 - labels_NK)
    total = losses.MultilabelLoss(weights_K, gamma).total(Given(), batch(logits_NK, labels_NK))
    torch.testing.assert_close(total, (positive + negative).sum())


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_rows_that_are_certain_have_finite_gradients(gamma: float) -> None:
    """A power of 1 - p itself would have an infinite gradient at p = 1 with gamma below 1."""
    logits_NK = torch.tensor([[200.0, -200.0, 0.0], [-200.0, 200.0, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    losses.focal(logits_NK, torch.tensor([0, 0, 0]), gamma=gamma).sum().backward()
    right, wrong, unsure = logits_NK.grad
    assert right.abs().max() == 0
    torch.testing.assert_close(wrong, torch.tensor([-1.0, 1.0, 0.0]))  # as cross-entropy's
    assert unsure[0] < 0
    logits_NK.grad = None
    labels_NK = torch.tensor([[1.0, 0, 0], [1, 0, 1], [0, 1, 0]])
    losses.MultilabelLoss(torch.ones(3), gamma).total(Given(), batch(logits_NK, labels_NK)).backward()
    assert logits_NK.grad.isfinite().all()
    torch.testing.assert_close(logits_NK.grad[1, :2], torch.tensor([-1.0, 1.0]))


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


def looped(vectors_BD: torch.Tensor, sets: list[set[int]], temperature: float) -> list[float | None]:
    """The supervised contrastive loss by definition; None of a text whose labels no other text has."""
    found: list[float | None] = []
    for i, labels in enumerate(sets):
        others = [j for j in range(len(sets)) if j != i]
        exponents = {
            j: math.exp(nn.functional.cosine_similarity(vectors_BD[i], vectors_BD[j], dim=0).item() / temperature)
            for j in others
        }
        shares = {j: len(labels & sets[j]) / len(labels | sets[j]) if labels | sets[j] else 0.0 for j in others}
        total = sum(shares.values())
        losses_of_pairs = [-shares[j] * math.log(exponents[j] / sum(exponents.values())) for j in others]
        found.append(sum(losses_of_pairs) / total if total else None)
    return found


class Vectors(nn.Module):
    """A body whose hidden states are its inputs."""

    last_hidden_state: torch.Tensor

    def forward(self, vectors: torch.Tensor, attention_mask: torch.Tensor) -> nn.Module:
        self.last_hidden_state = vectors[:, None]
        return self


@pytest.mark.parametrize("kind", ["one label", "several labels"])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_contrastive_loss_is_that_of_a_double_loop(kind: str, weighted: bool) -> None:
    """In one micro-batch or in several; texts that share no label with another are not in the mean."""
    draw = torch.Generator().manual_seed(0)
    vectors_BD = torch.randn(12, 5, generator=draw).double()
    if kind == "one label":
        labels = torch.tensor([0, 1, 2, 0, 1, 0, 3, 1, 0, 0, 2, 4])
        sets = [{int(label)} for label in labels]
    else:
        labels = (torch.rand(12, 4, generator=draw) < 0.3).float()
        labels[:2] = 0
        sets = [{k for k in range(4) if row[k]} for row in labels]
    weights = torch.rand(12, generator=draw) if weighted else torch.ones(12)
    expected = looped(vectors_BD, sets, 0.3)
    alone = [loss is None for loss in expected]
    assert 0 < sum(alone) < 6
    total = sum(float(weight) * loss for weight, loss in zip(weights, expected, strict=True) if loss is not None)
    loss_fn = losses.Contrastive("mean", 0.3)
    for size in (12, 5, 1):
        parts = [
            Batch(
                {"vectors": vectors_BD[k : k + size], "attention_mask": torch.ones(len(labels[k : k + size]), 1)},
                labels[k : k + size],
                tuple(map(str, range(k, min(12, k + size)))),
                weights=weights[k : k + size] if weighted else None,
            )
            for k in range(0, 12, size)
        ]
        step = WholeStep(tuple(parts))
        assert step.ids == tuple(map(str, range(12)))
        assert loss_fn.count(step) == pytest.approx(float(weights[[not single for single in alone]].sum()))
        assert loss_fn.total(Vectors(), step).item() == pytest.approx(total, rel=1e-5)
