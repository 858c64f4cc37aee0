"""Dropout from cheap random bits."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tunesmith.models import dropout


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5, 0.999, 1.0])
def test_as_many_are_dropped_as_asked_for(probability: float) -> None:
    factors = dropout.noise((400, 250), probability, torch.float32)
    deviation = (probability * (1 - probability) / factors.numel()) ** 0.5
    assert abs((factors == 0).double().mean() - probability) <= 5 * deviation + 1e-5
    kept = factors[factors != 0]
    assert not len(kept) or kept.unique().tolist() == pytest.approx([1 / (1 - probability)], rel=0.01)


def test_what_is_dropped_follows_from_torchs_seed() -> None:
    torch.manual_seed(3)
    first, second = (dropout.noise((50, 3), 0.5, torch.float32) for _ in range(2))
    torch.manual_seed(3)
    assert torch.equal(dropout.noise((50, 3), 0.5, torch.float32), first)
    assert not torch.equal(first, second)


def test_every_dropout_of_a_model_is_replaced() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Dropout(0.25), nn.Dropout(0.0)))
    names = list(model.state_dict())
    dropout.replace(model)
    assert list(model.state_dict()) == names
    assert [type(m) for m in model.modules() if isinstance(m, nn.Dropout)] == [dropout.Dropout] * 2
    rows = torch.ones(1000, 3, requires_grad=True)
    output = model[1](rows)
    output.sum().backward()
    assert rows.grad is not None
    assert torch.equal(rows.grad, output)  # what is dropped has no gradient, and the rest the same factor
    output = output.detach()
    assert output.unique().tolist() == pytest.approx([0, 1 / 0.75], rel=1e-4)
    assert float(output.mean()) == pytest.approx(1, abs=0.05)
    assert torch.equal(model.eval()[1](rows), rows)
