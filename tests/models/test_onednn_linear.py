"""Linear layers by oneDNN compute what torch's do, gradients included."""

from __future__ import annotations

from contextlib import nullcontext

import psutil
import pytest
import torch
from torch import nn

from tests import forked
from tunesmith import recipe
from tunesmith.autotuning import Choice
from tunesmith.errors import RecipeError, TrainingError
from tunesmith.models import onednn_linear

try:
    onednn_linear._linear(torch.ones(4, 8), torch.ones(8, 8))
except (RuntimeError, AttributeError):
    pytest.skip("this torch has no oneDNN", allow_module_level=True)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(6, 16), (3, 5, 16), (2, 3, 4, 16)])
def test_outputs_and_gradients_agree(shape: tuple[int, ...], bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layer, rows = nn.Linear(16, 24, bias=bias), torch.randn(shape)
    monkeypatch.setattr(onednn_linear, "MIN_WEIGHTS", 1)
    found = []
    for wanted in (True, False):
        layer.zero_grad()
        inputs = rows.clone().requires_grad_()
        with onednn_linear.enabled(wanted):
            out = layer(inputs)
        assert ("WithGradient" in type(out.grad_fn).__name__) == wanted
        out.square().sum().backward()
        found.append([out.detach(), inputs.grad, *(p.grad for p in layer.parameters())])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_an_evaluation_uses_the_library_of_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, rows = nn.Linear(256, 256), torch.randn(8, 256)
    for trained, faster in ((True, "mkl"), (False, "onednn")):
        monkeypatch.setattr(
            onednn_linear, "measured", lambda threads, faster=faster: Choice({"backend": faster}, "cache")
        )
        used = []
        for outer in (onednn_linear.enabled(trained), nullcontext()):
            with outer, onednn_linear.enabled():
                used.append("WithGradient" in type(layer(rows).grad_fn).__name__)
        assert used == [trained, not trained]


def test_the_recipe_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn_linear, "measured", lambda threads: Choice({"backend": "mkl"}, "cache"))
    assert onednn_linear.decide("auto") == Choice({"backend": "mkl"}, "cache")
    assert onednn_linear.decide("onednn") == Choice({"backend": "onednn"}, "recipe")
    monkeypatch.setattr("torch._C._has_mkldnn", False)
    with pytest.raises(TrainingError, match="set auto or mkl"):
        onednn_linear.decide("onednn")
    with pytest.raises(RecipeError, match=r"set engine\.compile to false"):
        recipe.load({"data": {"path": "x"}, "engine": {"compile": True, "matmul_backend": "onednn"}})


def test_what_is_frozen_gets_no_gradient() -> None:
    layer = nn.Linear(256, 256).requires_grad_(False)
    inputs = torch.randn(4, 256, requires_grad=True)
    with onednn_linear.enabled(True):
        layer(inputs).sum().backward()
    assert layer.weight.grad is None
    assert inputs.grad is not None


def test_other_formats_few_rows_and_small_layers_go_torchs_way() -> None:
    def taken(rows: int, size: int = 256, dtype: torch.dtype = torch.float32) -> bool:
        layer = nn.Linear(size, size, dtype=dtype)
        return "WithGradient" in type(layer(torch.randn(rows, size, dtype=dtype)).grad_fn).__name__

    with onednn_linear.enabled(True):
        assert taken(4)
        assert not taken(3)
        assert not taken(8, size=64)
        assert not taken(8, dtype=torch.float64)
        with torch.autocast("cpu", torch.bfloat16):
            assert not taken(8)


def many_lengths(form: str) -> None:
    """Print the resident memory in MB after batches of 30 and of 80 lengths."""
    layers = nn.Sequential(nn.Linear(384, 1536), nn.Linear(1536, 384))
    for number in range(80):
        rows = torch.ones(onednn_linear.MIN_ROWS + number, 384, requires_grad=True)
        with onednn_linear.enabled(True), torch.autocast("cpu", torch.bfloat16, enabled=form == "bfloat16"):
            layers(rows).float().sum().backward()
        if number in (29, 79):
            print(psutil.Process().memory_info().rss / 2**20)


@pytest.mark.parametrize("form", ["float32", "bfloat16"])
def test_many_lengths_take_no_memory(form: str) -> None:
    """With torch's own settings the lengths between take 5 MB each."""
    early, late = map(float, forked.run(many_lengths, form).split())
    assert late < early + 80
