"""Packed rows against every sequence alone: the same losses and gradients, whatever is shared; and what it saves."""

from __future__ import annotations

import copy
import functools
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from hypothesis import given, settings, strategies as st
from torch import nn

from tests import tiny
from tunesmith.data.batches import MicroBatches, Sampler
from tunesmith.data.encode import IGNORE, EncodedText
from tunesmith.errors import ModelError
from tunesmith.models import packing, segment_attention
from tunesmith.recipe import Evaluate, Train
from tunesmith.training import causal, loop

FAMILIES = ("llama", "qwen3", "gpt2", "opt", "gpt_neox")
EXACT = ("gpt2", "opt", "gpt_neox")
"""Families that compute in float64 throughout where asked to; the others' norms are always in float32."""
Row = tuple[list[int], list[int]]
BRANCHES = [
    ([5, 6, 7, 8, 9], [IGNORE, IGNORE, 7, 8, 9]),
    ([5, 6, 7, 4], [IGNORE, IGNORE, 7, 4]),
    ([11, 6, 7, 4, 4, 12], [IGNORE, IGNORE, IGNORE, 4, 4, 12]),
]


@functools.lru_cache
def model(family: str, attention: str = "sdpa") -> Any:
    """With a head that is not close to uniform, so that differences show."""
    made = tiny.causal(family, attention)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.05)
    return made.double() if family in EXACT else made


def tolerance(family: str) -> float:
    return 1e-9 if family in EXACT else 1e-5


def texts(rows: Sequence[Row]) -> list[EncodedText]:
    return [EncodedText(f"row:{i}", ids, labels) for i, (ids, labels) in enumerate(rows)]


def gradients(network: nn.Module, total: torch.Tensor) -> dict[str, torch.Tensor]:
    """Gradients of a loss by parameter name, zero where there is none."""
    named = {name: p for name, p in network.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(named.items(), found, strict=True)}


def alone(network: nn.Module, rows: Sequence[Row]) -> torch.Tensor:
    """The textbook: every sequence on its own, full logits, shifted labels."""
    return sum(
        nn.functional.cross_entropy(
            network(torch.tensor([ids])).logits[0, :-1],
            torch.tensor(labels[1:]),
            ignore_index=IGNORE,
            reduction="sum",
        )
        for ids, labels in rows
        if len(ids) > 1
    )  # type: ignore[return-value]


def assert_same(network: nn.Module, rows: Sequence[Row], relative: float, chunk: int = 512) -> None:
    """Packed, padded and alone: one loss, one gradient, one count."""
    batch, padded = causal.pack(texts(rows)), causal.pad(texts(rows), 0)
    count = sum(label != IGNORE for _, labels in rows for label in labels[1:])
    expected = alone(network, rows)
    wanted = gradients(network, expected)
    scale = max(float(g.abs().max()) for g in wanted.values())
    for loss, given_batch in ((causal.PackedCausal(chunk), batch), (causal.PaddedCausal(chunk), padded)):
        assert loss.count(given_batch) == count
        total = loss.total(network, given_batch)
        assert total.item() == pytest.approx(expected.item(), rel=relative)
        for name, found in gradients(network, total).items():
            assert float((found - wanted[name]).abs().max()) <= relative * scale, name


@st.composite
def trees(draw: st.DrawFn) -> list[Row]:
    """1 to 6 sequences of 1 to 12 tokens, often going on from the prefix of another; any tokens may be learned."""
    rows: list[Row] = []
    token = st.integers(4, 6)
    for _ in range(draw(st.integers(1, 6))):
        prefix = draw(st.sampled_from(rows))[0] if rows and draw(st.booleans()) else []
        prefix = prefix[: draw(st.integers(0, len(prefix)))]
        ids = (prefix + draw(st.lists(token, min_size=not prefix, max_size=12)))[:12]
        learned = draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)))
        rows.append((ids, [i if yes else IGNORE for i, yes in zip(ids, learned, strict=True)]))
    return [*rows, ([4, 5], [IGNORE, 5])]  # something is learned in every example


@given(rows=trees(), family=st.sampled_from(FAMILIES), chunk=st.sampled_from([3, 512]))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_same_loss_and_gradient_as_alone(rows: list[Row], family: str, chunk: int) -> None:
    assert_same(model(family), rows, tolerance(family), chunk)


CASES = {
    "identical": [BRANCHES[0]] * 3,
    "a prefix of another": [BRANCHES[0], (BRANCHES[0][0][:3], [IGNORE, 6, 7])],
    "length one": [([5], [5]), ([6], [IGNORE]), BRANCHES[0]],
    "nothing shared": [BRANCHES[0], BRANCHES[2]],
    "a learned prefix is shared": [([5, 6, 7, 8], [5, 6, 7, 8]), ([5, 6, 7, 9], [5, 6, 7, 9])],
    "one place, other labels": [([5, 6], [IGNORE, 6]), ([5, 6], [IGNORE, 9])],
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("case", CASES)
def test_edge_cases(case: str, family: str) -> None:
    assert_same(model(family), CASES[case], tolerance(family))


@pytest.mark.parametrize("family", FAMILIES)
def test_eager_attention(family: str) -> None:
    assert_same(model(family, "eager"), BRANCHES, 1e-5)


def test_nothing_learned_is_a_zero_with_zero_gradients() -> None:
    rows = [(ids, [IGNORE] * len(ids)) for ids, _ in BRANCHES]
    for loss, batch in (
        (causal.PackedCausal(), causal.pack(texts(rows))),
        (causal.PaddedCausal(), causal.pad(texts(rows), 0)),
    ):
        total = loss.total(model("gpt2"), batch)
        assert (loss.count(batch), total.item()) == (0.0, 0.0)
        found = torch.autograd.grad(total, list(model("gpt2").parameters()))  # every parameter takes part
        assert all(not g.any() for g in found)


def test_tree_of_a_row() -> None:
    packed = packing.pack([[5, 6, 7], [5, 6, 8, 9], [5, 6]], [[IGNORE, 6, 7], [IGNORE, IGNORE, 8, 9], [IGNORE, 6]])
    assert packed.ids.tolist() == [[5, 6, 7, 8, 9]]
    assert packed.positions.tolist() == [[0, 1, 2, 2, 3]]
    assert packed.mask()[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 0, 1, 0],
        [1, 1, 0, 1, 1],
    ]
    assert [place.tolist() for place in packed.places] == [[0, 1, 2], [0, 1, 3, 4], [0, 1]]
    assert packed.target_places.tolist() == [0, 1, 3]
    assert packed.target_index.tolist() == [0, 0, 1, 1, 2]
    assert packed.target_ids.tolist() == [6, 6, 7, 8, 9]


def test_labels_must_fit_their_tokens() -> None:
    with pytest.raises(ValueError, match="3 tokens has 2 labels"):
        packing.pack([[5, 6, 7]], [[5, 6]])


@pytest.mark.parametrize("family", FAMILIES)
def test_unpack_gives_the_states_of_each_sequence(family: str) -> None:
    network = model(family)
    packed = packing.pack(*zip(*BRANCHES, strict=True))
    with torch.no_grad():
        found = packing.unpack(packing.hidden_states(network, packed), packed)
        for (ids, _), hidden_LD in zip(BRANCHES, found, strict=True):
            expected_LD = network.base_model(torch.tensor([ids])).last_hidden_state[0]
            torch.testing.assert_close(hidden_LD, expected_LD, rtol=1e-5, atol=1e-6)


# ---- the head


@contextmanager
def rows_of_the_head(head: nn.Module) -> Iterator[list[int]]:
    """How many places the head saw in each of its calls."""
    calls: list[int] = []
    hook = head.register_forward_hook(lambda module, inputs, output: calls.append(output.numel() // output.shape[-1]))
    yield calls
    hook.remove()


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_chunks_bound_the_logits_and_change_nothing(layout: str) -> None:
    draw = random.Random(0)
    rows = [(ids, [IGNORE, *ids[1:]]) for ids in ([draw.randint(4, 49) for _ in range(90)] for _ in range(3))]
    network = model("gpt2")
    batch = causal.pack(texts(rows)) if layout == "packed" else causal.pad(texts(rows), 0)
    kind = causal.PackedCausal if layout == "packed" else causal.PaddedCausal
    whole = kind().total(network, batch)
    with rows_of_the_head(packing.head(network)) as calls:
        chunked = kind(chunk=64).total(network, batch)
        found = gradients(network, chunked)
    assert max(calls) == 64
    assert sum(calls) == 2 * 3 * 89 + (
        1 if layout == "packed" else 3
    )  # twice each; and once for the model's own forward
    torch.testing.assert_close(chunked, whole, rtol=1e-12, atol=0)
    for name, expected in gradients(network, whole).items():
        torch.testing.assert_close(found[name], expected, rtol=1e-9, atol=1e-12)


def test_the_head_runs_once_for_a_shared_place() -> None:
    with rows_of_the_head(packing.head(model("llama"))) as calls:
        causal.PackedCausal().total(model("llama"), causal.pack(texts([BRANCHES[0]] * 5)))
    assert calls == [1, 3]  # the model's own forward is left one place; then the learned ones


def test_a_model_without_a_head_is_named() -> None:
    with pytest.raises(ModelError, match="GPT2Model has no output embedding"):
        packing.head(model("gpt2").base_model)


# ---- what is packed together


def alpaca_like(rows: int) -> list[EncodedText]:
    """A preamble of 40 tokens before each instruction, a closing line of 5, and a learned answer."""
    draw = random.Random(1)
    made = []
    for number in range(rows):
        task = [draw.randint(100, 900) for _ in range(draw.randint(5, 25))]
        answer = [draw.randint(100, 900) for _ in range(draw.randint(3, 60))]
        prompt = [*range(10, 50), *task, *range(50, 55)]
        made.append(EncodedText(f"train:{number}", prompt + answer, [IGNORE] * len(prompt) + answer))
    return made


def row_size(sequences: list[list[int]]) -> int:
    return packing.pack(sequences, sequences).ids.numel()


def test_plan_keeps_the_budget_and_every_sequence() -> None:
    sequences = [row.ids for row in alpaca_like(100)] + [list(range(1000, 1400))]
    for budget in (1, 60, 150, 256, 1000, 10_000):
        groups = packing.plan(sequences, budget)
        assert sorted(i for group in groups for i in group) == list(range(101))
        sizes = [row_size([sequences[i] for i in group]) for group in groups]
        assert all(size <= budget or len(group) == 1 for size, group in zip(sizes, groups, strict=True))
        assert groups == packing.plan(sequences, budget)
    assert packing.plan(sequences, 1) == [[i] for i in sorted(range(101), key=sequences.__getitem__)]


def test_plan_balances() -> None:
    sequences = [row.ids for row in alpaca_like(100)]
    groups = packing.plan(sequences, 1000)
    sizes = [row_size([sequences[i] for i in group]) for group in groups]
    assert len(groups) == -(-(row_size(sequences) + 40 * (len(groups) - 1)) // 1000)  # no more rows than needed
    assert max(sizes) - min(sizes) < 130  # about one example
    assert packing.plan([], 100) == []


def test_what_sharing_saves() -> None:
    """On a set like Alpaca's, 32 a step: 43% of the tokens, 56% against padding."""
    rows = [row.ids for row in alpaca_like(32)]
    separate, padded = sum(map(len, rows)), len(rows) * max(map(len, rows))
    assert row_size(rows) == separate - 31 * 40  # the preamble once
    assert (separate, row_size(rows), padded) == (2897, 1657, 3808)


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_feeds_give_every_drawn_example_once(layout: str, processes: int) -> None:
    rows = alpaca_like(20)
    sampler = Sampler(len(rows), step_size=6, seed=3)
    count = causal.PackedCausal().count if layout == "packed" else causal.PaddedCausal().count
    for step in range(5):
        micro = [b for rank in range(processes) for b in feed(layout, rows, sampler, rank, processes)(step)]
        drawn = [rows[i] for i in sampler.draw(step)]
        assert {name for batch in micro for name in batch.ids} == {row.id for row in drawn}
        assert sum(map(count, micro)) == sum(label != IGNORE for row in drawn for label in row.labels)
        learned = [name for batch in micro if count(batch) for name in batch.ids]
        assert len(learned) == len(set(learned))


def feed(layout: str, rows: list[EncodedText], sampler: Sampler, rank: int = 0, processes: int = 1) -> Any:
    if layout == "packed":
        return MicroBatches(rows, sampler, causal.PackedTexts(), 200, rank, processes)
    return MicroBatches(rows, sampler, causal.PaddedTexts(0), 200, rank, processes)


def test_halved_micro_batches_hold_less() -> None:
    rows = alpaca_like(20)
    sampler = Sampler(20, 20, 0)
    packed, padded = feed("packed", rows, sampler), feed("padded", rows, sampler)
    assert packed.halved().max_tokens == padded.halved().max_tokens == 100
    assert len(packed.halved()(0)) > len(packed(0))
    assert len(padded.halved()(0)) > len(padded(0))


def test_training_is_the_same_in_both_layouts() -> None:
    """Ten steps of the loop: the same losses, gradient norms and weights."""
    rows = alpaca_like(20)
    start = tiny.causal("llama", vocab_size=1000).double()
    found = []
    for layout, loss in (("packed", causal.PackedCausal(chunk=50)), ("padded", causal.PaddedCausal())):
        network = copy.deepcopy(start)
        train = Train(learning_rate=1e-3, max_steps=10)
        plan = loop.TrainingPlan.from_settings(4, train, Evaluate(eval_strategy="no"), True)
        accelerator = Accelerator(cpu=True)
        state = loop.begin(network, train, plan, accelerator)
        batches = feed(layout, rows, Sampler(20, 6, 0))
        done = list(loop.steps(state, batches, loss, train, accelerator, plan, dict))
        found.append([(step.loss, step.grad_norm) for step in done] + [(p.sum().item(),) for p in network.parameters()])
    for packed, padded in zip(*found, strict=True):
        assert packed == pytest.approx(padded, rel=1e-4, abs=1e-6)


# ---- which models agree


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_families_agree(family: str, attention: str) -> None:
    rows = alpaca_like(6)
    network = tiny.causal(family, attention, vocab_size=1000)
    assert disagreement(network, rows) is None
    assert network.config._attn_implementation == (segment_attention.NAME if attention == "sdpa" else attention)


def test_compiled_layers_keep_the_mask() -> None:
    network = tiny.causal("llama", vocab_size=1000)
    for layer in network.model.layers:
        layer.compile(backend="eager")
    assert disagreement(network, alpaca_like(6)) is None
    assert network.config._attn_implementation == "sdpa"


def disagreement(network: nn.Module, rows: Sequence[EncodedText]) -> str | None:
    return packing.set_up(network, [row.ids for row in rows], [row.labels for row in rows])


SHORT = texts([(ids, ids) for ids in ([5, 6, 7, 8], [5, 6, 9], [4, 7, 7, 7, 5])])
LONG = texts([(ids, ids) for ids in ([*range(5, 25)], [*range(5, 15), *range(20, 30)])])
MISTRAL = tiny.DECODER_LIKE | {"num_key_value_heads": 1}


@pytest.mark.parametrize(
    ("family", "sizes"),
    [
        ("bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 2}),
        ("mamba", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}),
        ("xlnet", {}),
    ],
)
def test_models_that_cannot_say_why(family: str, sizes: dict[str, Any]) -> None:
    reason = disagreement(tiny.causal(family, "eager", **sizes), SHORT)
    assert reason is not None
    assert reason.startswith("it cannot run a packed row (")


@pytest.mark.parametrize(
    ("family", "sizes"),
    [
        ("bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 2}),
        ("mamba", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}),
        ("mistral", tiny.DECODER_LIKE | {"num_key_value_heads": 1, "sliding_window": 3}),
    ],
)
def test_models_that_cannot_are_trained_padded(family: str, sizes: dict[str, Any]) -> None:
    network = tiny.causal(family, "eager", **sizes)
    expected = alone(network, BRANCHES)
    total = causal.PaddedCausal().total(network, causal.pad(texts(BRANCHES), 0))
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)
    wanted = gradients(network, expected)
    for name, found in gradients(network, total).items():
        torch.testing.assert_close(found, wanted[name], rtol=1e-4, atol=1e-5)


def test_sliding_windows_agree_only_below_their_window() -> None:
    assert disagreement(tiny.causal("mistral", **MISTRAL, sliding_window=8), SHORT) is None
    assert disagreement(tiny.causal("mistral", **MISTRAL, sliding_window=None), LONG) is None
    reason = disagreement(tiny.causal("mistral", **MISTRAL, sliding_window=8), LONG)
    assert reason == "its layers attend to 8 tokens, and a sequence has 19"


def test_windows_that_no_setting_names_are_found_by_trying(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "sliding_window", lambda model: None)
    reason = disagreement(tiny.causal("mistral", **MISTRAL, sliding_window=8, initializer_range=0.5), LONG)
    assert reason is not None
    assert "its logits differ by" in reason


def test_trying_leaves_the_modes_alone() -> None:
    network = tiny.causal("gpt2").train()
    network.transformer.h[0].eval()
    before = [module.training for module in network.modules()]
    assert disagreement(network, SHORT) is None  # with dropout on it would differ
    assert [module.training for module in network.modules()] == before


# ---- what may be wrapped around a model


def with_lora(network: nn.Module) -> nn.Module:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], lora_dropout=0.0, init_lora_weights=False)
    return peft.get_peft_model(network, config).eval()


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft reads the old name
def test_lora() -> None:
    network = with_lora(copy.deepcopy(model("llama")))
    assert_same(network, BRANCHES, 1e-5)
    assert disagreement(network, SHORT) is None
    found = gradients(network, causal.PackedCausal().total(network, causal.pack(texts(BRANCHES))))
    assert found
    assert all("lora_" in name for name in found)
    assert all(gradient.any() for gradient in found.values())


def test_activation_checkpointing() -> None:
    network = copy.deepcopy(model("gpt2")).train()
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    network.activation_checkpointing_enable({"use_reentrant": False})
    assert_same(network, BRANCHES, 1e-9)


def test_autocast(fresh_accelerator: None) -> None:
    """The model's forward is the one that accelerate patches; the head outside of it takes what comes."""
    expected = causal.PackedCausal().total(model("llama"), causal.pack(texts(BRANCHES)))
    network = Accelerator(cpu=True, mixed_precision="bf16").prepare_model(copy.deepcopy(model("llama")))
    types = []
    network.base_model.layers[0].mlp.up_proj.register_forward_hook(lambda m, i, output: types.append(output.dtype))
    found = causal.PackedCausal().total(network, causal.pack(texts(BRANCHES)))
    assert types == [torch.bfloat16]
    assert found.item() == pytest.approx(expected.item(), rel=2e-2)


@pytest.fixture
def one_process_group(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("chunk", [2, 512])
def test_data_parallel(one_process_group: Callable[[], None], chunk: int) -> None:
    """The wrapper's forward runs, so its exchange of gradients is armed, and every parameter is counted once."""
    network = copy.deepcopy(model("gpt2"))
    wrapped = nn.parallel.DistributedDataParallel(network)
    exchanged: list[int] = []

    def hook(state: object, bucket: Any) -> torch.futures.Future[torch.Tensor]:
        exchanged.append(bucket.buffer().numel())
        future: torch.futures.Future[torch.Tensor] = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    hook.__annotations__ = {"bucket": torch.distributed.GradBucket}  # torch compares types, not their names
    wrapped.register_comm_hook(None, hook)
    for _ in range(2):
        network.zero_grad()
        causal.PackedCausal(chunk).total(wrapped, causal.pack(texts(BRANCHES))).backward()
    assert sum(exchanged) == 2 * sum(p.numel() for p in network.parameters())
    wanted = gradients(network, alone(network, BRANCHES))
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name], rtol=1e-9, atol=1e-12)
