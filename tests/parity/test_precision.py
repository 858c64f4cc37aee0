"""Weights in bfloat16 on float32 masters: nothing small is lost, a resumed run is the same, curves follow float32's."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from torch import nn

import tunesmith
from tests import forked, tiny
from tunesmith import recipe as recipes
from tunesmith.data.batches import MicroBatches, Sampler
from tunesmith.data.encode import IGNORE, EncodedText
from tunesmith.errors import TrainingError
from tunesmith.pipeline.fitting import weight_setup
from tunesmith.pipeline.task_table import job_of
from tunesmith.recipe import Train
from tunesmith.runs import Run
from tunesmith.training import causal, checkpoint, loop, optim, precision
from tunesmith.types import Splits

TRAIN = Train(learning_rate=2e-3, weight_decay=0.1, warmup_ratio=0.1, lr_scheduler_type="cosine")
ROWS = [
    EncodedText(f"row:{i}", [5 + i % 7, 6, *range(10 + i % 5, 20)], [IGNORE, IGNORE, *range(10 + i % 5, 20)])
    for i in range(23)
]


pytestmark = pytest.mark.usefixtures("fresh_accelerator")


def network(family: str = "llama", dtype: torch.dtype = torch.bfloat16) -> nn.Module:
    dropout = {"resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1} if family == "gpt2" else {}
    made: nn.Module = tiny.causal(family, **dropout).to(dtype)
    return made


class Training:
    """The loop over packed rows, begun and perhaps gone on with."""

    def __init__(self, model: nn.Module, steps: int, precision: str = "no", scale: float | None = None) -> None:
        self.plan = loop.TrainingPlan(steps, None, "", False, None)
        self.accelerator = Accelerator(cpu=True, mixed_precision=precision)
        if scale is not None:
            self.accelerator.native_amp = True  # as on a GPU
            self.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        self.state = loop.begin(model, TRAIN, self.plan, self.accelerator)
        feed = MicroBatches(ROWS, Sampler(len(ROWS), 4, 0), causal.PackedTexts(), 60)
        loss = causal.PackedCausal()
        self.steps = loop.steps(self.state, feed, loss, TRAIN, self.accelerator, self.plan, dict, seed=1)

    def run(self, until: int) -> list[float]:
        return [next(self.steps).loss for _ in range(until - self.state.step)]


# ---- the optimizer


def test_steps_below_the_weights_resolution_add_up() -> None:
    """A weight of 1 has bfloat16 neighbours 0.0039 below: 100 steps of 1e-4 move it, though none of them alone does."""
    layer = nn.Linear(1, 1, bias=False).bfloat16()
    nn.init.ones_(layer.weight)
    plain = torch.optim.AdamW([nn.Parameter(layer.weight.detach().clone())], lr=1e-4, weight_decay=0.0)
    masters = optim.optimizer(layer, Train(learning_rate=1e-4, weight_decay=0.0))
    seen = []
    for _ in range(100):
        for optimizer, weight in ((plain, plain.param_groups[0]["params"][0]), (masters, layer.weight)):
            weight.grad = torch.ones_like(weight)
            optimizer.step()
        seen.append(layer.weight.item())
    assert plain.param_groups[0]["params"][0].item() == 1.0  # lost
    assert seen[0] == 1.0
    assert masters.param_groups[0]["params"][0].item() == pytest.approx(0.99, abs=1e-5)
    assert layer.weight.item() == torch.tensor(0.99).bfloat16().item()


def test_only_weights_of_16_bits_have_masters() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4).bfloat16(), nn.Linear(4, 4).bfloat16().requires_grad_(False))
    optimizer = optim.optimizer(model, Train())
    assert isinstance(optimizer, optim.MasterWeights)
    assert [weight.shape for weight, _ in optimizer.pairs] == [(4, 4), (4,)]
    assert all(p.dtype == torch.float32 for group in optimizer.param_groups for p in group["params"])
    model[1].requires_grad_(False)
    assert not isinstance(optim.optimizer(model, Train()), optim.MasterWeights)  # as LoRA in float32 on bfloat16


def test_float32_steps_are_adamws() -> None:
    """Masters that see the same gradients as a float32 model take the same steps, to the last bit."""
    layer = nn.Linear(8, 8)
    layer.weight.data = layer.weight.data.bfloat16().float()
    half = copy.deepcopy(layer).bfloat16()
    layer.bias.data = half.bias.data.float()
    pair = [(one, optim.optimizer(one, TRAIN)) for one in (layer, half)]
    for step in range(5):
        gradient = torch.randn(8, 8, generator=torch.Generator().manual_seed(step)).bfloat16()
        for model, optimizer in pair:
            model.weight.grad = gradient.to(model.weight.dtype)
            optimizer.step()
            assert model.weight.grad is None or model is layer
            optimizer.zero_grad()
            assert all(p.grad is None for p in model.parameters())
    assert torch.equal(pair[0][1].param_groups[0]["params"][0], pair[1][1].param_groups[0]["params"][0])
    assert torch.equal(half.weight, layer.weight.bfloat16())


def test_state_dict_returns_the_masters_exactly() -> None:
    """Through accelerate too, which loads an optimizer's own state back when it prepares it; before and after steps."""
    training = Training(network(), 4)
    before = [p.clone() for p in training.state.optimizer.param_groups[0]["params"]]
    training.accelerator.prepare_optimizer(training.state.optimizer)
    assert all(map(torch.equal, before, training.state.optimizer.param_groups[0]["params"]))
    assert "exp_avg" not in training.state.optimizer.state_dict()["state"][0]
    training.run(3)
    content = copy.deepcopy(training.state.optimizer.state_dict())
    other = Training(network(), 4).state.optimizer
    other.load_state_dict(content)
    for index, slots in other.state_dict()["state"].items():
        assert set(slots) == {"step", "exp_avg", "exp_avg_sq", "master"}
        assert all(slots[name].dtype == torch.float32 for name in slots)
        assert all(torch.equal(slots[name], content["state"][index][name]) for name in slots)


# ---- the loop


@pytest.mark.parametrize("mixed", ["no", "bf16"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_resumed_is_bit_identical(family: str, mixed: str, tmp_path: Path, one_thread: None) -> None:
    """8 steps, against 4, a checkpoint, a fresh model and 4 more: weights, masters and Adam's state; dropout on."""
    whole = Training(network(family), 8, mixed)
    losses = whole.run(8)
    first = Training(network(family), 8, mixed)
    assert first.run(4) == losses[:4]
    notes = checkpoint.SessionNotes([], None, 0.0, 0, 1)
    saved = checkpoint.save(tmp_path, checkpoint.snapshot(first.state), notes, 1)
    second = Training(network(family), 8, mixed)
    assert checkpoint.load(saved, second.state) == notes
    assert second.run(8) == losses[4:]
    for name, weight in whole.state.model.state_dict().items():
        assert weight.dtype == torch.bfloat16 or "bias" in name
        assert torch.equal(weight, second.state.model.state_dict()[name]), name
    slots, others = (state.optimizer.state_dict()["state"] for state in (whole.state, second.state))
    assert all(torch.equal(slots[i][name], others[i][name]) for i in slots for name in slots[i])


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_curves_follow_float32s(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """100 steps, loss 3.9 to below 1: each within 0.01 of float32 weights (0.003 seen); without masters, 0.1 above."""
    exact = network(family, torch.float32)
    losses = Training(copy.deepcopy(exact), 100).run(100)
    half = exact.bfloat16()
    found = Training(copy.deepcopy(half), 100).run(100)
    assert losses[0] > 3.8
    assert losses[-1] < 1.0
    np.testing.assert_allclose(found, losses, atol=0.01)
    monkeypatch.setattr(optim, "HALF", ())
    assert Training(half, 100).run(100)[-1] > losses[-1] + 0.1


def test_fp16_scaling_and_weights_of_16_bits_are_refused() -> None:
    accelerator = Accelerator(cpu=True)
    accelerator.scaler = torch.amp.GradScaler("cpu")
    with pytest.raises(TrainingError, match=r"set model\.dtype=float32"):
        loop.begin(network(), TRAIN, loop.TrainingPlan(1, None, "", False, None), accelerator)


def test_fp16_follows_float32(one_thread: None) -> None:
    """Autocast to float16 with a gradient scaler: 30 losses within 1% of those of float32."""
    losses = Training(network(dtype=torch.float32), 30).run(30)
    AcceleratorState._reset_state(True)
    half = Training(network(dtype=torch.float32), 30, "fp16", scale=2.0**8)
    np.testing.assert_allclose(half.run(30), losses, rtol=1e-2)
    assert half.state.skipped == 0


def test_fp16_skips_steps_that_overflow(tmp_path: Path, one_thread: None) -> None:
    """The first scale takes gradients beyond float16's 65,504: such a step leaves weights and schedule as they are, and
    halves the scale. A run resumed from a checkpoint after an overflow is bit-identical."""
    whole = Training(network(dtype=torch.float32), 30, "fp16", scale=2.0**24)
    before = copy.deepcopy(whole.state.model.state_dict())
    losses = whole.run(1)
    assert (whole.state.skipped, whole.state.scaler.get_scale(), whole.state.scheduler.last_epoch) == (1, 2.0**23, 0)
    assert all(torch.equal(weight, before[name]) for name, weight in whole.state.model.state_dict().items())
    saved = checkpoint.save(tmp_path, checkpoint.snapshot(whole.state), checkpoint.SessionNotes([], None, 0.0, 0, 1), 1)
    losses += whole.run(30)
    assert 1 < whole.state.skipped < 15
    assert whole.state.scaler.get_scale() == 2.0 ** (24 - whole.state.skipped)
    assert losses[-1] < 0.9 * losses[0]
    resumed = Training(network(dtype=torch.float32), 30, "fp16", scale=1.0)
    checkpoint.load(saved, resumed.state)
    assert resumed.run(30) == losses[1:]


def test_fp16_is_refused_where_nothing_scales_the_loss(tmp_path: Path) -> None:
    folder = tiny.model("bert", tmp_path / "model")
    data = tmp_path / "rows.csv"
    data.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in tiny.texts(60)))
    source = {"data": {"path": str(data)}, "model": {"name_or_path": str(folder)}}
    with pytest.raises(TrainingError, match=r"(?s)cannot train in fp16 on cpu.*mixed_precision=bf16"):
        tunesmith.train(source, ["mixed_precision=fp16"], run_dir=tmp_path / "run")


# ---- the choice


def test_what_is_measured_decides_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` of weights and of mixed precision: one measurement, kept in the manifest for a resumed run."""
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    cpu = torch.device("cpu")
    measured = precision.measure(cpu)
    run = Run(tmp_path / "run")
    job = job_of(recipes.load({"data": {"path": "x"}}), Splits((), (), (), (), {}), run)
    monkeypatch.setattr(precision, "measure", lambda device: measured)
    first = weight_setup.measured_precision(job, cpu)
    monkeypatch.setattr(precision, "measure", None)
    assert first == weight_setup.measured_precision(job, cpu) == measured


@pytest.mark.parametrize(
    ("bfloat16", "largest", "chosen"),
    [(4.4, 64 * 128**2, ("no", "float32")), (1e-3, 1024 * 512**2, ("bf16", "bfloat16"))],
    ids=["slow", "fast"],
)
def test_a_measurement_is_short_on_any_processor(
    bfloat16: float, largest: int, chosen: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """bfloat16: seconds for the largest block. All blocks together take at most 0.5 s after the first turn."""
    timed: list[tuple[int, float]] = []

    def seconds(block: nn.Sequential, inputs: torch.Tensor, half: bool) -> float:
        work = len(inputs) * inputs.shape[1] ** 2
        in_16_bits = half or inputs.dtype == torch.bfloat16
        timed.append((work, (bfloat16 if in_16_bits else 2e-3) * work / (1024 * 512**2)))
        return timed[-1][1]

    monkeypatch.setattr(precision, "_seconds", seconds)
    measured = precision.measure(torch.device("cpu"))
    assert sum(time for _, time in timed) <= 0.5 + sum(time for _, time in timed[:3])
    assert max(work for work, _ in timed) == largest
    assert (measured.mixed_precision, measured.dtype) == chosen
    assert measured.bfloat16_speedup == round(2e-3 / bfloat16, 2)


# ---- the head under autocast


def test_the_head_runs_in_the_format_of_autocast() -> None:
    """Its product in bfloat16, the softmax in float32: gradients in float32 that point the same way."""
    model = network(dtype=torch.float32)
    batch = causal.pack(ROWS[:6])
    seen = []
    for mixed in ("no", "bf16"):
        AcceleratorState._reset_state(True)
        accelerator = Accelerator(cpu=True, mixed_precision=mixed)
        wrapped = accelerator.prepare_model(copy.deepcopy(model))
        loop._backward(wrapped, [batch], causal.PackedCausal(), accelerator)
        seen.append(torch.cat([p.grad.flatten() for p in wrapped.parameters()]))
        with accelerator.autocast():
            assert causal._compute_dtype(model.lm_head.weight) == (torch.bfloat16 if mixed == "bf16" else torch.float32)
            assert causal.PackedCausal().total(model, batch).dtype == torch.float32
    assert seen[1].dtype == torch.float32
    assert torch.cosine_similarity(*seen, dim=0) > 0.999


# ---- two processes


def train_llama() -> None:
    """Train in one of several processes; the first prints the losses."""
    accelerator = Accelerator(cpu=True, kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)])
    plan = loop.TrainingPlan(6, None, "", False, None)
    state = loop.begin(network("llama"), TRAIN, plan, accelerator)
    place = accelerator.process_index, accelerator.num_processes
    feed = MicroBatches(ROWS, Sampler(len(ROWS), 4, 0), causal.PackedTexts(), 60, *place)
    losses = [step.loss for step in loop.steps(state, feed, causal.PackedCausal(), TRAIN, accelerator, plan, dict)]
    same = accelerator.gather(state.model.get_input_embeddings().weight.detach().float().flatten()[None])
    assert torch.equal(same[0], same[-1])
    if accelerator.is_main_process:
        print(*losses)


def test_two_processes_follow_one() -> None:
    """Gradients are summed in bfloat16, in another order: losses within 1%; both processes hold the same weights."""
    two, one = (
        list(map(float, forked.run(train_llama, environments=forked.ranks(n, ACCELERATE_USE_CPU="true")).split()))
        for n in (2, 1)
    )
    assert len(one) == 6
    np.testing.assert_allclose(two, one, rtol=1e-2)
