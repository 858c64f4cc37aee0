"""The loop against the textbook, and what must not change a result: accumulation, layout, batch size, a second run."""

from __future__ import annotations

import copy
import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn
from torch._dynamo.utils import counters
from transformers import get_scheduler

from tests import tiny
from tunesmith.data.batches import Batch, EncoderLayout, MicroBatches, Padded, Sampler, Unpadded, WholeSteps, collate
from tunesmith.data.encode import IGNORE, Encoded, EncodedText, encode
from tunesmith.errors import TrainingError
from tunesmith.models import adapters, pretrained, unpadding
from tunesmith.recipe import Evaluate, Model, Train
from tunesmith.tasks.classification import SingleLabel
from tunesmith.training import causal, compilation, loop, losses, optim
from tunesmith.types import Example

LABELS = tuple(tiny.WORDS)
Models = Callable[[str], Path]


def setup(folder: Path, rows: int = 37) -> tuple[nn.Module, pretrained.Tokenizer, list]:
    settings = Model(name_or_path=str(folder))
    tokenizer = pretrained.tokenizer(settings)
    model = pretrained.sequence_classifier(settings, tokenizer, SingleLabel(LABELS), seed=1).module
    examples = [Example(f"row:{i}", text, label=label) for i, (text, label) in enumerate(tiny.texts(rows))]
    encoded, _ = encode(examples, tokenizer, 64, SingleLabel(LABELS))
    return model, tokenizer, encoded


def run(
    model: nn.Module, tokenizer, encoded, settings: Train, steps: int, weights=None, max_tokens=None
) -> list[loop.Step]:
    size = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
    feed = MicroBatches(encoded, Sampler(len(encoded), size, 7), Padded(tokenizer), max_tokens or 4096)
    loss = losses.Classification(torch.ones(len(LABELS)) if weights is None else weights)
    evaluate = Evaluate(eval_strategy="no")
    limited = settings.model_copy(update={"max_steps": steps})
    plan = loop.TrainingPlan.from_settings(feed.sampler.steps_per_epoch, limited, evaluate, higher_is_better=True)
    accelerator = Accelerator(cpu=True)
    state = loop.begin(model, settings, plan, accelerator)
    return list(loop.steps(state, feed, loss, settings, accelerator, plan, dict))


def no_dropout(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def textbook(model: nn.Module, tokenizer, encoded, settings: Train, steps: int) -> list[float]:
    """The loop as every tutorial has it: one padded batch, the model's own mean loss, AdamW, a scheduler."""
    norms = {id(p) for m in model.modules() if isinstance(m, nn.LayerNorm) for p in m.parameters()}
    named = list(model.named_parameters())
    plain = [p for n, p in named if "bias" in n or id(p) in norms]
    decayed = [p for n, p in named if not ("bias" in n or id(p) in norms)]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate)
    warmup = int(np.ceil(settings.warmup_ratio * steps))
    scheduler = get_scheduler(settings.lr_scheduler_type, optimizer, warmup, steps)
    sampler = Sampler(len(encoded), settings.per_device_train_batch_size, 7)
    found = []
    model.train()
    for step in range(steps):
        batch = collate([encoded[i] for i in sampler.draw(step)], tokenizer)
        loss = model(**batch.inputs, labels=batch.labels).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        found.append(loss.item())
    return found


@pytest.mark.parametrize("shape", ["constant", "linear", "cosine"])
def test_losses_equal_the_textbook_loop(tiny_models: Models, shape: str) -> None:
    name = "constant_with_warmup" if shape == "constant" else shape
    settings = Train(per_device_train_batch_size=8, learning_rate=1e-3, lr_scheduler_type=shape, weight_decay=0.1)
    model, tokenizer, encoded = setup(tiny_models("bert"))
    no_dropout(model)
    theirs = textbook(
        copy.deepcopy(model), tokenizer, encoded, settings.model_copy(update={"lr_scheduler_type": name}), 12
    )
    ours = [step.loss for step in run(model, tokenizer, encoded, settings, 12, max_tokens=60)]
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def gradients(model: nn.Module, feed: MicroBatches[Encoded, Batch], weights: torch.Tensor) -> torch.Tensor:
    loss = losses.Classification(weights)
    accelerator = Accelerator(cpu=True)
    loop._backward(model, feed(0), loss, accelerator)
    found = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    return found


@pytest.mark.parametrize("family", ["bert", "xlnet", "gpt2"])
@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [0.2, 1.0, 3.0]])
def test_layout_does_not_change_gradients(tiny_models: Models, family: str, weights: list[float]) -> None:
    """One batch of 16, or micro-batches of 1, 2, ... rows: gradients equal within 1e-5 relative."""
    model, tokenizer, encoded = setup(tiny_models(family))
    no_dropout(model).train()
    feeds = [
        MicroBatches(encoded, Sampler(len(encoded), 16, 3), Padded(tokenizer), tokens) for tokens in (10_000, 64, 1)
    ]
    counts = [len(feed(0)) for feed in feeds]
    assert counts[0] == 1 < counts[1] < counts[2] == 16
    one, some, each = (gradients(model, feed, torch.tensor(weights)) for feed in feeds)
    for other in (some, each):
        assert (one - other).norm() / one.norm() < 1e-5


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
def test_unpadded_rows_have_the_gradients_of_padded_ones(tiny_models: Models, family: str, checkpointed: bool) -> None:
    """16 texts in one row, or in several: gradients of a padded batch within 1e-5 relative; the model still pads."""
    model, tokenizer, encoded = setup(tiny_models(family))
    no_dropout(model).train()
    if checkpointed:
        pretrained.checkpoint_activations(model)
    weights, sampler = torch.tensor([0.2, 1.0, 3.0]), Sampler(len(encoded), 16, 3)
    padded = MicroBatches(encoded, sampler, Padded(tokenizer), 10_000)
    expected = gradients(model, padded, weights)
    layout = unpadding.find(model, tokenizer)
    assert isinstance(layout, Unpadded)
    for tokens, batches in ((10_000, 1), (64, None), (1, 16)):
        feed = MicroBatches(encoded, sampler, layout, tokens)
        assert batches is None or len(feed(0)) == batches
        assert all(sum(batch.lengths) <= tokens or len(batch.ids) == 1 for batch in feed(0))
        found = gradients(model, feed, weights)
        assert (found - expected).norm() / expected.norm() < 1e-5
    assert torch.equal(gradients(model, padded, weights), expected)


def step_gradients(
    model: nn.Module, encoded: list[Encoded], layout: EncoderLayout, tokens: int, pooling: str
) -> tuple[torch.Tensor, float, int]:
    """Gradients, loss and number of micro-batches of a step of 16 texts that are compared with each other."""
    feed = WholeSteps(MicroBatches(encoded, Sampler(len(encoded), 16, 3), layout, tokens))
    ((step,)) = feed(0)
    torch.manual_seed(5)
    loss = loop._backward(model, [step], losses.Contrastive(pooling, 0.1), Accelerator(cpu=True))
    found = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    return found, loss, len(step.parts)


def body(folder: Path) -> tuple[nn.Module, pretrained.Tokenizer, list[Encoded]]:
    """A body to whose weights texts are not nearly the same, as they are to small random ones."""
    _, tokenizer, encoded = setup(folder)
    model = pretrained.body(Model(name_or_path=str(folder)), tokenizer)
    for parameter in model.parameters():
        parameter.data *= 10 if parameter.ndim > 1 else 1
    return model, tokenizer, encoded


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "xlnet"])
def test_texts_are_compared_across_micro_batches(tiny_models: Models, family: str, pooling: str) -> None:
    """Padded or in one row, in one micro-batch, in several, or in one for each text: gradients within 1e-5 relative."""
    model, tokenizer, encoded = body(tiny_models(family))
    no_dropout(model).train()
    expected, loss, count = step_gradients(model, encoded, Padded(tokenizer), 10_000, pooling)
    assert count == 1
    layouts: list[EncoderLayout] = [Padded(tokenizer)]
    if family != "xlnet":
        found = unpadding.find(model, tokenizer)
        assert isinstance(found, Unpadded)
        layouts.append(found)
    for layout in layouts:
        for tokens, counts in ((64, range(3, losses.KEPT + 3)), (1, [16])):
            gradients, other, count = step_gradients(model, encoded, layout, tokens, pooling)
            assert count in counts
            assert other == pytest.approx(loss, rel=1e-5)
            assert (gradients - expected).norm() / expected.norm() < 1e-5


def test_activations_that_are_computed_again_have_the_same_dropout(
    tiny_models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last bit; without dropout the gradient is another."""
    model, tokenizer, encoded = body(tiny_models("bert"))
    layout = unpadding.find(model.train(), tokenizer)
    assert isinstance(layout, Unpadded)
    found = []
    for kept in (16, 4, 0):
        monkeypatch.setattr(losses, "KEPT", kept)
        found.append(step_gradients(model, encoded, layout, 1, "mean"))
        assert found[-1][2] == 16
    assert all(torch.equal(gradients, found[0][0]) and loss == found[0][1] for gradients, loss, _ in found)
    model.eval()
    assert step_gradients(model, encoded, layout, 1, "mean")[1] != found[0][1]


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
def test_predicting_ends_the_last_layer_with_the_first_tokens(tiny_models: Models, family: str) -> None:
    """The logits of padded rows; in training, dropout is drawn for every token, as it always was."""
    model, tokenizer, encoded = setup(tiny_models(family))
    no_dropout(model).eval()
    padded = Padded(tokenizer).collate(encoded[:5])
    expected = model(**padded.inputs).logits
    layout = unpadding.find(model, tokenizer)
    assert isinstance(layout, Unpadded)
    shapes: list[tuple[int, ...]] = []
    norms = [module for module in model.base_model.modules() if isinstance(module, torch.nn.LayerNorm)]
    norms[-1].register_forward_hook(lambda module, args, output: shapes.append(tuple(output.shape[:2])))
    for count in (5, 1):
        batch = layout.collate(encoded[:count])
        torch.testing.assert_close(unpadding.run(model, batch).logits, expected[:count], rtol=1e-5, atol=1e-5)
        assert shapes.pop() == (count, 1)
    unpadding.run(model.train(), batch)
    assert shapes.pop() == (1, len(encoded[0]))


@pytest.mark.parametrize("family", ["xlnet", "deberta", "gpt2"])
def test_models_that_need_padding_say_why(tiny_models: Models, family: str) -> None:
    """Relative positions, or a head at the last token; and the attention is as it was."""
    model, tokenizer, _ = setup(tiny_models(family))
    before = model.config._attn_implementation
    assert isinstance(unpadding.find(model, tokenizer), str)
    assert model.config._attn_implementation == before


def test_accumulation_is_a_larger_batch(tiny_models: Models) -> None:
    """16 x 1, 4 x 4 and 1 x 16 give the same losses, the short last step of an epoch included."""
    found = []
    for size, accumulate in ((16, 1), (4, 4), (1, 16)):
        model, tokenizer, encoded = setup(tiny_models("bert"))
        settings = Train(per_device_train_batch_size=size, gradient_accumulation_steps=accumulate, learning_rate=1e-3)
        found.append([step.loss for step in run(no_dropout(model), tokenizer, encoded, settings, 7)])
    assert found[0] == found[1] == found[2]


def test_class_weights_are_torchs_weighted_mean(tiny_models: Models) -> None:
    model, tokenizer, encoded = setup(tiny_models("bert"))
    no_dropout(model).train()
    weights = torch.tensor([0.5, 2.0, 1.0])
    feed = MicroBatches(encoded, Sampler(len(encoded), 12, 3), Padded(tokenizer), 50)
    ours = loop._backward(model, feed(0), losses.Classification(weights), Accelerator(cpu=True))
    batch = collate([encoded[i] for i in feed.sampler.draw(0)], tokenizer)
    theirs = nn.functional.cross_entropy(model(**batch.inputs).logits, batch.labels, weight=weights)
    assert ours == pytest.approx(theirs.item(), rel=1e-6)


def test_same_seed_same_weights_other_seed_other_weights(tiny_models: Models, one_thread: None) -> None:
    """Dropout on: two runs agree to the last bit, and the head depends on the seed alone."""
    settings = Train(per_device_train_batch_size=8, learning_rate=1e-3)
    states = []
    for _ in range(2):
        model, tokenizer, encoded = setup(tiny_models("bert"))
        run(model, tokenizer, encoded, settings, 6)
        states.append(model.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    place = Model(name_or_path=str(tiny_models("bert")))
    heads = [
        pretrained.sequence_classifier(place, tokenizer, SingleLabel(LABELS), seed).module.classifier.weight
        for seed in (1, 2, 1)
    ]
    assert torch.equal(heads[0], heads[2])
    assert not torch.equal(heads[0], heads[1])


@pytest.mark.parametrize("what", ["none", "embeddings", "body"])
def test_freeze_keeps_what_it_names(tiny_models: Models, what: str) -> None:
    model, tokenizer, encoded = setup(tiny_models("bert"))
    before = copy.deepcopy(model.state_dict())
    optim.freeze(model, what)
    run(model, tokenizer, encoded, Train(learning_rate=1e-2, warmup_ratio=0.0), 3)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    frozen = {
        "none": (),
        "embeddings": ("bert.embeddings.word", "bert.embeddings.position"),
        "body": ("bert.encoder", "bert.embeddings"),
    }[what]
    assert not any(name.startswith(frozen) for name in changed if frozen)
    assert {"classifier.weight", "bert.pooler.dense.weight"} <= changed
    assert (adapters.count(model)[1] == adapters.count(model)[0]) is (what == "none")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_are_never_touched_by_a_bad_loss(tiny_models: Models, bad: float) -> None:
    model, tokenizer, encoded = setup(tiny_models("bert"))
    with torch.no_grad():
        model.classifier.bias[0] = bad
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(TrainingError, match=r"step 1: loss (nan|inf)[\s\S]*row:"):
        run(model, tokenizer, encoded, Train(), 3)
    assert all(
        torch.equal(
            before[name],
            value,
        )
        or name == "classifier.bias"
        for name, value in model.state_dict().items()
    )


def test_early_stopping_and_best(tiny_models: Models) -> None:
    """Evaluations 0.5, 0.7, 0.6, 0.6 with patience 2 stop after the fourth; the second is the best."""
    model, tokenizer, encoded = setup(tiny_models("bert"))
    values = iter([0.5, 0.7, 0.6, 0.6, 0.9])
    plan = loop.TrainingPlan(num_steps=50, eval_every=2, metric="macro_f1", higher_is_better=True, patience=2)
    feed = MicroBatches(encoded, Sampler(len(encoded), 8, 0), Padded(tokenizer), 4096)
    loss = losses.Classification(torch.ones(3))
    accelerator = Accelerator(cpu=True)
    state = loop.begin(model, Train(), plan, accelerator)
    evaluate = lambda: {"macro_f1": next(values)}  # noqa: E731
    steps = list(loop.steps(state, feed, loss, Train(), accelerator, plan, evaluate))
    assert [step.number for step in steps if step.scores] == [2, 4, 6, 8]
    assert [step.number for step in steps if step.is_best] == [2, 4]
    assert len(steps) == 8


def test_a_step_without_labels_is_skipped_and_counted(tiny_models: Models) -> None:
    model, tokenizer, encoded = setup(tiny_models("bert"))
    bare = [dataclasses.replace(row, label=IGNORE) if i % 2 else row for i, row in enumerate(encoded)]
    feed = MicroBatches(bare, Sampler(len(bare), 1, 0), Padded(tokenizer), 4096)
    plan = loop.TrainingPlan(len(bare), None, "macro_f1", higher_is_better=True, patience=None)
    accelerator = Accelerator(cpu=True)
    state = loop.begin(model, Train(), plan, accelerator)
    steps = list(loop.steps(state, feed, losses.Classification(torch.ones(3)), Train(), accelerator, plan, dict))
    assert state.skipped == sum(step.skipped for step in steps) == len(bare) // 2
    assert state.scheduler.last_epoch == len(bare) - state.skipped


def test_out_of_memory_halves_the_budget_once(
    tiny_models: Models, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A forward pass over more than 100 tokens fails: the run goes on with 80, and has the losses of a free run."""
    settings = Train(per_device_train_batch_size=8, learning_rate=1e-3)
    model, tokenizer, encoded = setup(tiny_models("bert"))
    free = [
        step.loss for step in run(copy.deepcopy(no_dropout(model)), tokenizer, encoded, settings, 4, max_tokens=160)
    ]
    total = losses.Classification.total

    def limited(self: losses.Classification, model: nn.Module, batch: Batch) -> torch.Tensor:
        if batch.inputs["input_ids"].numel() > 100:
            raise torch.OutOfMemoryError("no more")
        return total(self, model, batch)

    monkeypatch.setattr(losses.Classification, "total", limited)
    found = [step.loss for step in run(model, tokenizer, encoded, settings, 4, max_tokens=160)]
    np.testing.assert_allclose(found, free, rtol=1e-5)
    assert capsys.readouterr().err.count("out of memory") == 1
    with pytest.raises(torch.OutOfMemoryError):
        run(model, tokenizer, encoded, settings, 4, max_tokens=100_000)


# ---- causal models


ROWS = [
    ([5, 6, 7, 8, 9], [IGNORE, IGNORE, 7, 8, 9]),
    ([5, 6, 7, 4], [IGNORE, IGNORE, 7, 4]),
    ([9, 4, 4], [IGNORE, 4, 4]),
]
TEXTS = [EncodedText(f"row:{i}", ids, labels) for i, (ids, labels) in enumerate(ROWS)]
MULTIQUERY = tiny.DECODER_LIKE | {"num_key_value_heads": 1}
LAST_WORD = {
    "gemma2": MULTIQUERY | {"head_dim": 16, "final_logit_softcapping": 0.05},
    "cohere": MULTIQUERY | {"logit_scale": 0.0625},
    "granite": MULTIQUERY | {"logits_scaling": 8.0},
}
"""Models that do something to the logits after the head."""


def own_loss(model: nn.Module) -> torch.Tensor:
    """Every row alone, through the model's own forward."""
    parts = [
        nn.functional.cross_entropy(
            model(torch.tensor([ids])).logits[0, :-1], torch.tensor(labels[1:]), ignore_index=IGNORE, reduction="sum"
        )
        for ids, labels in ROWS
    ]
    return torch.stack(parts).sum()


@pytest.mark.parametrize("family", LAST_WORD)
def test_logits_changed_after_the_head_are_found_and_learned(family: str) -> None:
    """The padded loss through the model's own forward equals the textbook's; the head's alone would be wrong."""
    model = tiny.causal(family, "eager", **LAST_WORD[family])
    assert not causal.head_decides(model, TEXTS[0].ids)
    expected, batch = own_loss(model), causal.pad(TEXTS, 0)
    wrong = causal.PaddedCausal().total(model, batch)
    total = causal.PaddedCausal(through_model=True).total(model, batch)
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)
    assert abs(wrong.item() - expected.item()) > 1e-4
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    for name, found, wanted in zip(names, *(autograd(model, loss) for loss in (total, expected)), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6, msg=name)


def autograd(model: nn.Module, loss: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad])


def test_a_cap_is_found_while_logits_are_small() -> None:
    """Gemma 2's cap of 30 does nothing to the logits of a fresh model, and much to those of a trained one."""
    model = tiny.causal("gemma2", "eager", **LAST_WORD["gemma2"] | {"final_logit_softcapping": 30.0})
    assert not causal.head_decides(model, TEXTS[0].ids)


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "gpt_neox", "qwen3"])
def test_heads_that_decide(family: str) -> None:
    model = tiny.causal(family)
    model.train()
    assert causal.head_decides(model, TEXTS[0].ids)
    assert not model.lm_head._forward_pre_hooks if hasattr(model, "lm_head") else True


class Biased(nn.Linear):
    """The same as a plain head, but not of its class: its gradients are left to autograd."""


@pytest.mark.parametrize("form", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_gradients_made_with_the_logits_are_autograds(bias: bool, frozen: bool, form: torch.dtype) -> None:
    """A head, frozen or not, with shared places, in chunks: loss and gradients; in bfloat16 within its resolution."""
    torch.manual_seed(0)
    plain, other = nn.Linear(8, 50, bias=bias, dtype=form), Biased(8, 50, bias=bias, dtype=form)
    other.load_state_dict(plain.state_dict())
    index = torch.tensor([0, 0, 0, 1, 3, 3, 6])
    ids = torch.tensor([4, 4, 7, 1, 2, 3, 49])
    seen = []
    for head in (plain.requires_grad_(not frozen), other.requires_grad_(not frozen)):
        torch.manual_seed(1)
        hidden = torch.randn(7, 8, dtype=form, requires_grad=True)
        total = causal.sum_cross_entropy(head, hidden, index, ids, chunk=3)
        (total * 0.37).backward()
        seen.append([total, hidden.grad, head.weight.grad, head.bias.grad if bias else None])
    assert (seen[0][2] is None) is frozen
    rtol, atol = (1e-12, 1e-13) if form == torch.float64 else (2e-2, 2e-2)
    for found, wanted in zip(*seen, strict=True):
        assert (found is None) is (wanted is None)
        if found is not None:
            torch.testing.assert_close(found, wanted, rtol=rtol, atol=atol)
    assert seen[0][0].dtype == (torch.float64 if form == torch.float64 else torch.float32)


def test_a_tied_embedding_has_one_dense_gradient() -> None:
    """The input embedding's part is added to the head's in place; the model is left as it was."""
    model = tiny.causal("llama", tie_word_embeddings=True)
    untied = tiny.causal("llama", tie_word_embeddings=False)
    untied.load_state_dict(model.state_dict())
    batch = causal.pack(TEXTS)
    for one in (model, untied):
        for _ in range(2):  # a second micro-batch adds to the first's
            causal.PackedCausal().total(one, batch).backward()
    embedding = model.get_input_embeddings()
    assert not embedding._forward_hooks
    wanted = untied.lm_head.weight.grad + untied.get_input_embeddings().weight.grad
    torch.testing.assert_close(embedding.weight.grad, wanted, rtol=1e-5, atol=1e-6)


def test_autocast_around_the_loss_leaves_classification_alone(tiny_models: Models) -> None:
    """Its model ran under autocast already; logits and cross-entropy are float32: the same loss to the last bit."""
    model, tokenizer, encoded = setup(tiny_models("bert"))
    feed = MicroBatches(encoded, Sampler(len(encoded), 16, 3), Padded(tokenizer), 64)
    loss = losses.Classification(torch.ones(3))
    AcceleratorState._reset_state(True)
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    wrapped = accelerator.prepare_model(no_dropout(model))
    outside = loss.total(wrapped, feed(0)[0])
    with accelerator.autocast():
        inside = loss.total(wrapped, feed(0)[0])
    AcceleratorState._reset_state(True)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, outside)


# ---- compiled layers


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.dropout = nn.Linear(8, 8), nn.Dropout(0.1)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden + self.dropout(torch.tanh(self.linear(hidden)))


class Stack(nn.Module):
    """Blocks of one class, and a list of other things."""

    def __init__(self, blocks: int = 4) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Block() for _ in range(blocks)])
        self.others = nn.ModuleList([nn.Linear(8, 8), nn.Tanh()])

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        for layer in [*self.layers, *self.others]:
            hidden = layer(hidden)
        return hidden


@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # torch._dynamo trips over its own
def test_compiled_layers_are_made_once_and_change_nothing() -> None:
    """One piece of code for all layers and lengths, one more for eval; losses and gradients of the plain model."""
    torch._dynamo.reset()
    counters.clear()
    torch.manual_seed(0)
    plain = no_dropout(Stack())
    model = copy.deepcopy(plain)
    assert compilation.compile_layers(model) == 4
    assert list(model.state_dict()) == list(plain.state_dict())
    for number, length in enumerate([5, 9, 3, 12, 7, 6]):
        rows = torch.randn(length, 8, requires_grad=True)  # as embeddings are
        found, expected = model(rows).square().sum(), plain(rows).square().sum()
        assert found.item() == pytest.approx(expected.item(), rel=1e-5)
        for one, other in zip(autograd(model, found), autograd(plain, expected), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
        model.train(number % 2 == 0)
        plain.train(number % 2 == 0)
    assert counters["stats"]["unique_graphs"] == 2
    assert not counters["graph_break"]


@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # torch._dynamo trips over its own
def test_dropout_of_compiled_layers_is_seeded() -> None:
    torch.manual_seed(0)
    model = Stack()
    compilation.compile_layers(model)
    rows, seen = torch.ones(6, 8), []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        seen.append(model(rows))
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[1])


def test_what_is_compiled_when(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, many = torch.device("cpu"), 500
    monkeypatch.setattr(compilation.shutil, "which", lambda name: "/usr/bin/g++")
    assert [compilation.decide(setting, 1, cpu, causal=True)[0] for setting in (True, False, "auto")] == [
        True,
        False,
        False,
    ]
    assert compilation.decide("auto", many, cpu, causal=True)[0]
    assert not compilation.decide("auto", 10 * many, cpu)[0]  # an encoder
    assert not compilation.decide("auto", many, torch.device("cuda"))[0]
    assert compilation.decide("auto", 4 * many, torch.device("cuda"))[0]
    monkeypatch.setattr(compilation.shutil, "which", lambda name: None)
    assert compilation.decide("auto", many, cpu, causal=True) == (False, "not compiled: no C++ compiler")
    assert not compilation.decide(False, many, cpu)[0]
    with pytest.raises(TrainingError, match=r"install g\+\+"):
        compilation.decide(True, many, cpu)
