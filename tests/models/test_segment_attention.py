"""Attention segment by segment is attention with a mask, and so are its gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tunesmith.models.segment_attention import Segment, attend

TEXTS = (Segment(0, 7), Segment(7, 8), Segment(8, 13))
TREE = (
    Segment(0, 5, causal=True),
    Segment(5, 8, ((0, 5),), causal=True),  # goes on where the one before it ends
    Segment(8, 9, ((0, 3),), causal=True),
    Segment(9, 13, ((0, 3), (5, 7)), causal=True),
)


def states(shared: int = 1) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    shapes = (13, 2 * shared, 4), (13, 2, 4), (13, 2, 4)
    return [torch.randn(shape, generator=draw, dtype=torch.float64, requires_grad=True) for shape in shapes]


def expected(
    segments: tuple[Segment, ...], query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> torch.Tensor:
    mask = torch.zeros(13, 13, dtype=torch.bool)
    for segment in segments:
        for row in range(segment.start, segment.end):
            for start, end in segment.before:
                mask[row, start:end] = True
            mask[row, segment.start : row + 1 if segment.causal else segment.end] = True
    rows = (tensor.transpose(0, 1)[None] for tensor in (query, key, value))
    return nn.functional.scaled_dot_product_attention(*rows, mask, scale=0.5, enable_gqa=True)[0].transpose(0, 1)


@pytest.mark.parametrize("segments", [TEXTS, TREE])
@pytest.mark.parametrize("shared", [1, 3])
@pytest.mark.parametrize("dropout", [0.0, 1e-9])
def test_it_is_attention_with_a_mask(segments: tuple[Segment, ...], shared: int, dropout: float) -> None:
    """With a probability that rounds to none, what dropout takes part in gives the same."""
    inputs, again = states(shared), states(shared)
    results = attend(*inputs, segments, dropout, 0.5), expected(segments, *again)
    assert torch.allclose(*results, atol=1e-12)
    for result in results:
        (result**2).sum().backward()
    assert all(torch.allclose(one.grad, two.grad, atol=1e-12) for one, two in zip(inputs, again, strict=True))


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_states_of_several_types(dropout: float) -> None:
    """Under autocast, rotary embeddings leave queries and keys in float32, and values in bfloat16."""
    query, key, value = (state.detach().float().requires_grad_() for state in states())
    half = value.detach().bfloat16().requires_grad_()
    results = []
    for values in (half, half.detach().float().requires_grad_()):
        torch.manual_seed(3)
        results.append(attend(query, key, values, TREE, dropout))
        results[-1].sum().backward()
    assert results[0].dtype == torch.float32
    assert torch.equal(*results)
    assert half.grad is not None
    assert half.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("segments", [TEXTS, TREE])
@pytest.mark.parametrize("shared", [1, 3])
def test_gradients_with_dropout(segments: tuple[Segment, ...], shared: int) -> None:
    def seeded(*inputs: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(5)
        return attend(*inputs, segments, 0.3)

    assert torch.autograd.gradcheck(seeded, states(shared))


def test_with_dropout_it_is_right_on_average() -> None:
    inputs = [state.detach() for state in states()]
    outputs = torch.stack([attend(*inputs, TREE, 0.2, 0.5) for _ in range(2000)])
    error = outputs.std(0) / len(outputs) ** 0.5
    assert ((outputs.mean(0) - expected(TREE, *inputs)).abs() <= 5 * error + 1e-9).all()
