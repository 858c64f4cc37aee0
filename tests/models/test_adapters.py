"""Adapters: what learns, what is saved, that merging changes nothing; with weights in full and in 4 bits."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests import tiny
from tunesmith import assets
from tunesmith.data.encode import IGNORE
from tunesmith.errors import ModelError
from tunesmith.models import adapters, packing, pretrained, quantize
from tunesmith.recipe import Adapter, Model
from tunesmith.tasks.classification import SingleLabel

Models = Callable[[str], Path]
CAUSAL = ("llama", "gpt2", "opt", "gpt_neox", "qwen3")
CLASSIFIERS = ("bert", "distilbert", "roberta", "xlnet", "deberta", "modernbert", "gpt2", "llama", "opt")
LABELS = ("bad", "good", "odd")
SEQUENCES = ([5, 6, 7, 8, 9, 10], [5, 6, 11], [12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23])
LORA = Adapter(kind="lora", r=4, lora_alpha=8, lora_dropout=0.0)
NEW_TOKENS = 16
QLORA = LORA.model_copy(update={"kind": "qlora"})
BITS = pytest.mark.skipif(quantize.usable() is not None, reason=f"no 4 bits here: {quantize.usable()}")


@pytest.fixture(scope="session")
def causal_models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Family name -> folder with a tiny causal model and a tokenizer; widths that 4-bit blocks fit."""
    root = tmp_path_factory.mktemp("causal")

    def build(family: str) -> Path:
        folder = root / family
        if not folder.exists():
            words = tiny.tokenizer(family)
            wide = {"n_embd": 64} if family == "gpt2" else {"hidden_size": 64}
            wide |= {"word_embed_proj_dim": 64} if family == "opt" else {}
            tiny.causal(family, vocab_size=len(words), **wide).save_pretrained(folder)
            words.save_pretrained(folder)
        return folder

    return build


def causal(folder: Path, settings: Adapter = LORA, seed: int = 0, **model: Any) -> tuple[Any, Any]:
    """A tiny causal model with an adapter, and its tokenizer."""
    about = Model(name_or_path=str(folder), **model)
    words = pretrained.tokenizer(about)
    bits = quantize.config(settings) if settings.kind == "qlora" else None
    plain = pretrained.causal_lm(about, words, 0, bits)
    return adapters.attach(plain, settings, "CAUSAL_LM", str(folder), seed), words


def prove(merged: nn.Module, adapted: nn.Module, sequences: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Two models held against each other on token sequences, each run alone and without dropout."""
    device = next(merged.parameters()).device
    worst, largest, same = 0.0, 0.0, True
    with packing.evaluating(merged), packing.evaluating(adapted), torch.no_grad():
        for sequence in sequences:
            ids_1L = torch.tensor([list(sequence)], device=device)
            one, other = (model(input_ids=ids_1L).logits.float() for model in (merged, adapted))
            worst = max(worst, float((one - other).abs().nan_to_num(nan=float("inf")).max()))
            largest = max(largest, float(other.abs().max()))
            same = same and _answer(merged, ids_1L, one) == _answer(adapted, ids_1L, other)
    return {"max_logit_difference": worst, "largest_logit": largest, "same_answers": same}


def _answer(model: Any, ids_1L: torch.Tensor, logits: torch.Tensor) -> list[int]:
    """A classifier's label, or the tokens of a greedy continuation, as many as the model has positions for."""
    if logits.ndim == 2:
        return [int(logits.argmax())]
    limit = getattr(model.config, "max_position_embeddings", None) or ids_1L.shape[1] + NEW_TOKENS
    steps = max(1, min(NEW_TOKENS, limit - ids_1L.shape[1] + 1))
    written: list[int] = []
    for _ in range(steps):
        written.append(int(logits[0, -1].argmax()))
        if len(written) < steps:
            ids_1L = torch.cat([ids_1L, ids_1L.new_tensor([written[-1:]])], dim=1)
            logits = model(input_ids=ids_1L).logits
    return written


def classifier(folder: Path, settings: Adapter = LORA) -> tuple[Any, Any]:
    about = Model(name_or_path=str(folder))
    words = pretrained.tokenizer(about)
    bits = quantize.config(settings) if settings.kind == "qlora" else None
    plain = pretrained.sequence_classifier(about, words, SingleLabel(LABELS), 7, bits)
    return adapters.attach(plain, settings, "SEQ_CLS", str(folder), 3), words


def stir(model: nn.Module) -> None:
    """As after training: the matrices that begin as zeros are so no longer."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(torch.randn_like(parameter) * 0.05)


def logits(model: Any) -> list[torch.Tensor]:
    model.eval()
    with torch.no_grad():
        return [model(input_ids=torch.tensor([ids])).logits for ids in SEQUENCES]


def same_bits(one: Any, other: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(logits(one), logits(other), strict=True))


@pytest.mark.parametrize("family", CAUSAL)
def test_only_the_matrices_of_a_causal_model_learn(family: str, causal_models: Models) -> None:
    model, _ = causal(causal_models(family))
    learning = [name for name, p in model.named_parameters() if p.requires_grad]
    assert learning
    assert all(".lora_A." in name or ".lora_B." in name for name in learning)
    assert not [name for name in learning if "lm_head" in name or "embed_out" in name]
    total, trainable = adapters.count(model)
    assert trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert adapters.describe(model) == f"{trainable:,} of {total:,} parameters learn ({trainable / total:.4%})"


@pytest.mark.parametrize("family", CLASSIFIERS)
def test_the_whole_head_of_a_classifier_learns_and_travels(family: str, tiny_models: Models, tmp_path: Path) -> None:
    model, words = classifier(tiny_models(family))
    base = model.get_base_model()
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    for name in adapters.heads(base):
        part = [key for key in learning if f".{name}.modules_to_save." in key or f".{name}." in key]
        assert part, name
    body = [key for key in learning if "lora_" not in key and "modules_to_save" not in key]
    assert body == []
    stir(model)
    pretrained.save(tmp_path / "saved", model, words)
    reloaded, again = pretrained.saved_classifier(tmp_path / "saved")
    assert same_bits(model, reloaded)
    assert [reloaded.config.id2label[i] for i in range(3)] == list(LABELS)
    assert len(again) == len(words)
    proof = prove(adapters.merge(model), model, SEQUENCES)
    assert proof["max_logit_difference"] < 1e-4
    assert proof["same_answers"]


def test_a_pooler_that_the_files_lack_travels_with_the_adapter(tiny_models: Models, tmp_path: Path) -> None:
    """It is drawn at random where the model is loaded: reloading must not draw another."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "bert"
    folder.mkdir()
    for path in tiny_models("bert").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    tensors = {k: v for k, v in load_file(folder / "model.safetensors").items() if "pooler" not in k}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    model, words = classifier(folder)
    pretrained.save(tmp_path / "saved", model, words)
    assert same_bits(model, pretrained.saved_classifier(tmp_path / "saved")[0])


def test_the_seed_alone_decides_the_first_values(causal_models: Models) -> None:
    def first(seed: int, before: int) -> list[torch.Tensor]:
        torch.manual_seed(before)
        model, _ = causal(causal_models("llama"), seed=seed)
        return [p.detach() for p in model.parameters() if p.requires_grad]

    assert all(torch.equal(a, b) for a, b in zip(first(1, 10), first(1, 20), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first(1, 10), first(2, 10), strict=True))


@pytest.mark.parametrize("family", CAUSAL)
def test_saved_and_loaded_gives_the_same_bits(family: str, causal_models: Models, tmp_path: Path) -> None:
    import peft

    model, words = causal(causal_models(family))
    stir(model)
    pretrained.save(tmp_path / "saved", model, words)
    reloaded, _ = pretrained.saved_causal_lm(tmp_path / "saved")
    assert same_bits(model, reloaded)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        assert same_bits(model, peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "saved"))
    assert {path.suffix for path in (tmp_path / "saved").iterdir()} <= {".json", ".safetensors"}


@pytest.mark.parametrize("change", [{}, {"use_dora": True}, {"use_rslora": True}], ids=["lora", "dora", "rslora"])
@pytest.mark.parametrize("kind", ["lora", pytest.param("qlora", marks=BITS)])
@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_merged_computes_what_the_adapted_model_does(
    family: str, kind: str, change: dict[str, Any], causal_models: Models, tmp_path: Path
) -> None:
    model, words = causal(causal_models(family), LORA.model_copy(update={"kind": kind, **change}))
    stir(model)
    before = logits(model)
    merged = adapters.merge(model)
    assert all(torch.equal(a, b) for a, b in zip(before, logits(model), strict=True)), "the adapted model was changed"
    proof = prove(merged, model, SEQUENCES)
    assert proof["max_logit_difference"] < 1e-4
    assert proof["same_answers"]
    pretrained.save(tmp_path / "merged", merged, words)
    assert not (tmp_path / "merged" / "adapter_config.json").exists()
    assert "quantization_config" not in (tmp_path / "merged" / "config.json").read_text()
    assert same_bits(merged, pretrained.saved_causal_lm(tmp_path / "merged")[0])
    assert all(p.dtype == torch.float32 for p in merged.parameters())


def test_the_proof_sees_a_difference(causal_models: Models) -> None:
    model, _ = causal(causal_models("llama"))
    untouched = adapters.merge(model)
    stir(model)
    proof = prove(untouched, model, SEQUENCES)
    assert proof["max_logit_difference"] > 1e-3


@BITS
@pytest.mark.parametrize("family", CAUSAL)
def test_every_linear_layer_but_the_head_is_in_4_bits(family: str, causal_models: Models) -> None:
    import bitsandbytes

    model, _ = causal(causal_models(family), QLORA)
    base = model.get_base_model()
    plain, _ = causal(causal_models(family))
    expected = [n for n, m in plain.get_base_model().named_modules() if hasattr(m, "lora_A")]
    found = [
        n for n, m in base.named_modules() if isinstance(getattr(m, "base_layer", None), bitsandbytes.nn.Linear4bit)
    ]
    assert found == expected
    assert not isinstance(base.get_output_embeddings(), bitsandbytes.nn.Linear4bit)
    assert adapters.count(model) == adapters.count(plain)


@BITS
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_qlora_learns_between_evaluations_and_leaves_the_4_bits_alone(
    family: str, causal_models: Models, tmp_path: Path
) -> None:
    model, words = causal(causal_models(family), QLORA)
    frozen = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    ids_1L = torch.tensor([SEQUENCES[2]])
    losses = []
    for _ in range(4):
        logits(model)  # an evaluation in between: some kernels would repack the weights
        loss = model.train()(input_ids=ids_1L, labels=ids_1L).loss
        loss.backward()
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    after = dict(model.named_parameters())
    assert all(torch.equal(value, after[name]) for name, value in frozen.items())
    pretrained.save(tmp_path / "saved", model, words)
    reloaded, _ = pretrained.saved_causal_lm(tmp_path / "saved")
    assert quantize.is_quantized(reloaded)
    assert same_bits(model, reloaded)


@BITS
@pytest.mark.parametrize("family", ["bert", "roberta", "xlnet", "gpt2"])
def test_a_classifier_in_4_bits_keeps_its_head_in_full(family: str, tiny_models: Models, tmp_path: Path) -> None:
    model, words = classifier(tiny_models(family), QLORA)
    head = [p for name, p in model.named_parameters() if "modules_to_save" in name]
    assert head
    assert all(p.dtype == torch.float32 for p in head)
    assert quantize.is_quantized(model)
    stir(model)
    pretrained.save(tmp_path / "saved", model, words)
    assert same_bits(model, pretrained.saved_classifier(tmp_path / "saved")[0])
    assert prove(adapters.merge(model), model, SEQUENCES)["max_logit_difference"] < 1e-4


@BITS
def test_without_4_bits_a_qlora_adapter_is_loaded_in_full_and_says_so(
    causal_models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, words = causal(causal_models("llama"), QLORA)
    pretrained.save(tmp_path / "saved", model, words)
    monkeypatch.setattr(quantize, "usable", lambda: "not today")
    reloaded, _ = pretrained.saved_causal_lm(tmp_path / "saved")
    assert not quantize.is_quantized(reloaded)
    assert "not today" in capsys.readouterr().err


def test_bitsandbytes_that_is_missing_is_a_reason_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize.importlib.util, "find_spec", lambda name: None)
    assert "tunesmith[qlora]" in str(quantize.usable())


@pytest.mark.parametrize(
    ("error", "summary"),
    [
        ("ImportError('no CUDA')", "ImportError: no CUDA"),
        ("ModuleNotFoundError('no triton', name='triton')", "ModuleNotFoundError: no triton"),
    ],
)
def test_a_broken_bitsandbytes_is_a_reason_and_lora_trains_without_it(
    error: str, summary: str, causal_models: Models, tmp_path: Path
) -> None:
    """In a process of its own: installed, but its import fails; peft would import it for plain LoRA too."""
    (tmp_path / "bitsandbytes").mkdir()
    (tmp_path / "bitsandbytes" / "__init__.py").write_text(f"raise {error}")
    code = f"""
from tests.models.test_adapters import causal
from tunesmith.models import adapters, quantize
print(quantize.usable(), quantize.usable() == quantize.usable(), sep="|")
print(adapters.describe(causal({str(causal_models("llama"))!r})[0]))
"""
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", ""), str(Path(__file__).parents[2])])
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    reason, described = done.stdout.splitlines()
    assert reason == f"bitsandbytes cannot be imported ({summary})|True"
    assert "parameters learn" in described


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "gpt_neox"])
@pytest.mark.parametrize("kind", ["lora", pytest.param("qlora", marks=BITS)])
def test_packing_works_through_the_adapter(family: str, kind: str, causal_models: Models) -> None:
    model, _ = causal(causal_models(family), LORA.model_copy(update={"kind": kind}))
    stir(model)
    labels = [[IGNORE, *ids[1:]] for ids in SEQUENCES]
    assert packing.set_up(model, SEQUENCES, labels) is None
    packed = packing.pack(SEQUENCES, labels)
    with torch.no_grad():
        hidden_TD = packing.hidden_states(model.eval(), packed)
        rows = [packing.head(model)(hidden_LD) for hidden_LD in packing.unpack(hidden_TD, packed)]
    for row, alone in zip(rows, logits(model), strict=True):
        torch.testing.assert_close(row, alone[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_rows_of_new_tokens_learn_and_travel(family: str, causal_models: Models, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    words = tiny.tokenizer(family)
    tiny.causal(family, vocab_size=len(words) - 4).save_pretrained(folder)
    words.save_pretrained(folder)
    model, words = causal(folder)
    assert any("trainable_tokens" in name for name, p in model.named_parameters() if p.requires_grad)
    stir(model)
    pretrained.save(tmp_path / "saved", model, words)
    assert same_bits(model, pretrained.saved_causal_lm(tmp_path / "saved")[0])
    merged = adapters.merge(model)
    assert prove(merged, model, SEQUENCES)["max_logit_difference"] < 1e-4
    pretrained.save(tmp_path / "merged", merged, words)
    assert same_bits(merged, pretrained.saved_causal_lm(tmp_path / "merged")[0])


def test_the_name_of_the_model_under_an_adapter_travels(
    causal_models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain peft finds the folder of this machine's cache; where that is gone, the `pypi:` name is fetched again."""
    folder = Path(shutil.copytree(causal_models("llama"), tmp_path / "cache"))
    monkeypatch.setattr(assets, "fetch", lambda name: assets.Asset(folder, None))
    about = Model(name_or_path="pypi:toy")
    words = pretrained.tokenizer(about)
    model = adapters.attach(pretrained.causal_lm(about, words, 0), LORA, "CAUSAL_LM", "pypi:toy", 0)
    stir(model)
    pretrained.save(tmp_path / "saved", model, words)
    config = json.loads((tmp_path / "saved" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(folder)
    assert same_bits(model, pretrained.saved_causal_lm(tmp_path / "saved")[0])
    folder = folder.rename(tmp_path / "elsewhere")
    assert same_bits(model, pretrained.saved_causal_lm(tmp_path / "saved")[0])


def test_unknown_modules_are_named_with_those_that_exist(causal_models: Models) -> None:
    settings = LORA.model_copy(update={"target_modules": ("q_proj", "v_porj")})
    with pytest.raises(ModelError, match=r"'v_porj'[\s\S]*down_proj, gate_proj[\s\S]*did you mean 'v_proj'"):
        causal(causal_models("llama"), settings)
    model, _ = causal(causal_models("llama"), LORA.model_copy(update={"target_modules": ("q_proj", "v_proj")}))
    assert {name.split(".lora_")[0][-6:] for name, p in model.named_parameters() if p.requires_grad} == {
        "q_proj",
        "v_proj",
    }


def test_an_adapter_needs_weights_with_a_name(causal_models: Models) -> None:
    own = {"model_type": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 16}
    with pytest.raises(ModelError, match=r"from_config"):
        causal(causal_models("gpt2"), from_config=own)


def test_an_adapter_is_no_model_to_train_on(causal_models: Models, tmp_path: Path) -> None:
    model, words = causal(causal_models("llama"))
    pretrained.save(tmp_path / "saved", model, words)
    with pytest.raises(ModelError, match="is an adapter"):
        pretrained.causal_lm(Model(name_or_path=str(tmp_path / "saved")), words, 0)
    with pytest.raises(ModelError, match="is an adapter"):
        pretrained.body(Model(name_or_path=str(tmp_path / "saved")), words)


def test_a_pickled_adapter_needs_consent(
    causal_models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file

    model, words = causal(causal_models("llama"))
    stir(model)
    pretrained.save(tmp_path / "saved", model, words)
    file = tmp_path / "saved" / "adapter_model.safetensors"
    torch.save(load_file(file), file.with_suffix(".bin"))
    file.unlink()
    with pytest.raises(ModelError, match="TUNESMITH_ALLOW_PICKLE=1"):
        pretrained.saved_causal_lm(tmp_path / "saved")
    monkeypatch.setenv("TUNESMITH_ALLOW_PICKLE", "1")
    assert same_bits(model, pretrained.saved_causal_lm(tmp_path / "saved")[0])


def test_gradient_checkpointing_works_through_the_adapter(causal_models: Models) -> None:
    model, _ = causal(causal_models("llama"))
    pretrained.checkpoint_activations(model)
    ids_1L = torch.tensor([SEQUENCES[0]])
    model.train()(input_ids=ids_1L, labels=ids_1L).loss.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
