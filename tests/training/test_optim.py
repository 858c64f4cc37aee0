"""Optimizers by name, warm-up in steps, noisy embeddings: what they compute, and that resumed runs keep the bits."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn
from transformers import get_scheduler
from transformers.optimization import Adafactor

from tests import tiny
from tunesmith import recipe as recipes
from tunesmith.data.batches import MicroBatches, Sampler
from tunesmith.data.encode import IGNORE, EncodedText
from tunesmith.errors import MissingExtra, TrainingError
from tunesmith.models import packing, quantize
from tunesmith.recipe import Train
from tunesmith.training import causal, checkpoint, loop, neftune, optim, sharding

BITS = pytest.mark.skipif(quantize.unavailable() is not None, reason="no bitsandbytes")
NAMES = ["adafactor", *(pytest.param(name, marks=BITS) for name in ("lion", "adamw_8bit", "lion_8bit"))]
ROWS = [
    EncodedText(f"row:{i}", [5 + i % 7, 6, *range(10 + i % 5, 20)], [IGNORE, IGNORE, *range(10 + i % 5, 20)])
    for i in range(23)
]


@pytest.fixture(autouse=True)
def fresh_accelerator() -> Iterator[None]:
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)


def begin(settings: Train, dtype: torch.dtype) -> tuple[loop.TrainState, Iterator[loop.Step]]:
    """A packed training of 30 steps; the embedding, 4,096 weights and more, has 8-bit state."""
    accelerator = Accelerator(cpu=True)
    plan = loop.TrainingPlan(30, None, "", False, None)
    state = loop.begin(tiny.causal("llama", vocab_size=128).to(dtype), settings, plan, accelerator)
    feed = MicroBatches(ROWS, Sampler(len(ROWS), 4, 0), causal.PackedTexts(), 60)
    return state, loop.steps(state, feed, causal.PackedCausal(), settings, accelerator, plan, dict, seed=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_learns_and_resumes_to_the_bit(
    name: str, dtype: torch.dtype, tmp_path: Path, one_thread: None
) -> None:
    settings = Train(optim=name, learning_rate=1e-3 if "lion" in name else 5e-3, lr_scheduler_type="constant")
    state, steps = begin(settings, dtype)
    losses = [next(steps).loss for _ in range(12)]
    saved = checkpoint.save(tmp_path, checkpoint.snapshot(state), checkpoint.SessionNotes([], None, 0.0, 0, 1), 1)
    losses += [step.loss for step in steps]
    assert losses[-1] < 0.75 * losses[0]
    assert isinstance(state.optimizer, optim.MasterWeights) == (dtype == torch.bfloat16)
    again, rest = begin(settings, dtype)
    checkpoint.load(saved, again)
    assert [step.loss for step in rest] == losses[12:]
    for key, weight in state.model.state_dict().items():
        assert torch.equal(weight, again.model.state_dict()[key])
    in_8_bits = {
        slot.dtype for slots in state.optimizer.state.values() for slot in slots.values() if hasattr(slot, "dtype")
    }
    assert (torch.uint8 in in_8_bits) == name.endswith("8bit")


def test_adafactor_is_that_of_transformers_trainer() -> None:
    """With the learning rate as it is given: neither relative to the step nor to the size of the weights."""
    layer = nn.Linear(8, 8, bias=False)
    other = copy.deepcopy(layer)
    mine = optim.optimizer(layer, Train(optim="adafactor", learning_rate=1e-2, weight_decay=0.1))
    theirs = Adafactor(other.parameters(), lr=1e-2, weight_decay=0.1, scale_parameter=False, relative_step=False)
    for step in range(5):
        layer.weight.grad = torch.randn(8, 8, generator=torch.Generator().manual_seed(step))
        other.weight.grad = layer.weight.grad.clone()
        mine.step()
        theirs.step()
    assert torch.equal(layer.weight, other.weight)


@BITS
def test_lion_steps_by_the_sign_and_spares_biases_from_decay() -> None:
    """Chen et al. 2023: w <- w - lr (sign(0.9 m + 0.1 g) + decay w), and the first m is 0."""
    layer = nn.Linear(4, 4)
    before = copy.deepcopy(layer)
    optimizer = optim.optimizer(layer, Train(optim="lion", learning_rate=1e-2, weight_decay=0.5))
    for parameter in layer.parameters():
        parameter.grad = torch.linspace(-1, 1, parameter.numel()).view_as(parameter)
    optimizer.step()
    sign = layer.weight.grad.sign()
    torch.testing.assert_close(layer.weight, before.weight * (1 - 1e-2 * 0.5) - 1e-2 * sign)
    torch.testing.assert_close(layer.bias, before.bias - 1e-2 * layer.bias.grad.sign())


def test_an_optimizer_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize, "unavailable", lambda: "bitsandbytes is not installed")
    with pytest.raises(MissingExtra, match=r"(?s)AdamW8bit.*not installed.*tunesmith\[qlora\].*train\.optim=adamw"):
        optim.optimizer(nn.Linear(2, 2), Train(optim="adamw_8bit"))


def test_other_tools_names_are_understood() -> None:
    words = {"lion_32bit": "lion", "paged_adamw_8bit": "adamw_8bit", "adamw_torch": "adamw", "lion": "lion"}
    for word, meant in words.items():
        assert recipes.load({"data": {"path": "x"}}, [f"optim={word}"]).train.optim == meant


def test_only_adamws_state_is_sharded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    accelerator: Any = SimpleNamespace(distributed_type=None)
    sharding.check(nn.Linear(2, 2), "adamw", accelerator)
    with pytest.raises(TrainingError, match=r"train\.optim=lion"):
        sharding.check(nn.Linear(2, 2), "lion", accelerator)


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine"])
def test_warmup_steps_are_those_of_transformers(kind: str) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    name = "constant_with_warmup" if kind == "constant" else kind
    expected = get_scheduler(name, optimizer, num_warmup_steps=7, num_training_steps=20)
    factor = optim.schedule(Train(lr_scheduler_type=kind, warmup_steps=7, warmup_ratio=0.5), 20)
    for step in range(20):
        assert factor(step) == pytest.approx(expected.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        expected.step()
    assert optim.schedule(Train(warmup_steps=0), 20)(0) == 1.0


def test_neftune_adds_uniform_noise_by_length_in_training_only() -> None:
    """At most alpha / sqrt(L x D), and nearly that much somewhere; L is the longest text, packed or padded."""
    model = tiny.causal("llama")
    embedding = model.get_input_embeddings()
    size = 5.0 / math.sqrt(12 * embedding.embedding_dim)
    rows, embedded = [ROWS[0], ROWS[7]], list[torch.Tensor]()
    assert max(map(len, rows)) == 12
    padded = causal.pad(rows, 0)
    packed = causal.pack(rows).row
    with neftune.noise(model, 5.0):
        probe = model.model.layers[0].register_forward_pre_hook(
            lambda module, args, kwargs: embedded.append(args[0] if args else kwargs["hidden_states"]),
            with_kwargs=True,
        )
        for training in (True, False):
            model.train(training)
            packing.run_body(model, padded.inputs)
            packing.hidden_states(model, packed)
        probe.remove()
    clean = [nn.functional.embedding(ids, embedding.weight) for ids in (padded.inputs["input_ids"], packed.ids)] * 2
    noise = [(noisy - plain).abs().max().item() for noisy, plain in zip(embedded, clean, strict=True)]
    assert noise[:2] == pytest.approx([size, size], rel=0.02)
    assert noise[2:] == [0.0, 0.0]
    assert not embedding._forward_hooks
    assert not model._forward_pre_hooks
