"""Weights in 4 bits."""

from __future__ import annotations

import pytest
import torch

from tunesmith.models import quantize


@pytest.mark.parametrize("shape", [(40, 16), (40, 32), (128, 96), (7, 64), (33, 128), (64, 100)])
def test_a_block_of_weights_may_span_rows(shape: tuple[int, int]) -> None:
    """Rows of 16, 32 or 96 weights come back wrong from bitsandbytes alone, on processors with AVX-512."""
    functional = pytest.importorskip("bitsandbytes.functional")
    quantize.correct_dequantization()
    weights = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    packed, state = functional.quantize_4bit(weights, quant_type="nf4")
    codes = torch.stack([packed.flatten() >> 4, packed.flatten() & 15], 1).flatten().long()
    expected = (state.code[codes].view(-1, state.blocksize) * state.absmax[:, None]).view(shape)
    torch.testing.assert_close(functional.dequantize_4bit(packed, state), expected, rtol=0, atol=0)
