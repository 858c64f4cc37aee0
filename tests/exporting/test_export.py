"""`tunesmith export`: every target of every method says what the run says, and is used as its model card says."""

from __future__ import annotations

import ast
import contextlib
import functools
import itertools
import json
import re
import resource
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import gguf as format_
import numpy as np
import pytest
import torch

import tunesmith
from tests import forked, tiny
from tests.conftest import write_csv
from tests.exported_folders import as_the_card_says, in_folder
from tests.small_runs import QUICK, classify, held_out, instruct, merge_tokens
from tunesmith import records, runs
from tunesmith.cli import inference, main
from tunesmith.data import prompts
from tunesmith.data.prompts import ChatEncoder
from tunesmith.errors import ModelError, RecipeError, RunError
from tunesmith.exporting import gguf, network, ollama, onnx, parity, targets, usage, weights
from tunesmith.exporting.parity import ParityReport
from tunesmith.exporting.source import Exported
from tunesmith.models import gguf_import
from tunesmith.models.graphs import GraphModel
from tunesmith.pipeline.commands import export as exports, serve
from tunesmith.pipeline.engines import load_generator
from tunesmith.pipeline.fitting.methods import METHODS, load_predictor, load_text_predictor
from tunesmith.prediction.generate import Generator
from tunesmith.protocols import ChatSpec, PromptWithAnswer, TextPredictor
from tunesmith.recipe import Generate, Prompt, Serve
from tunesmith.runs import Run
from tunesmith.types import Example, Message

Models = Callable[[str], Path]
PROGRAMS = ["onnx", "onnx-int8", "openvino", "torch-export", "torchscript"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def encoder(shared: Path) -> Run:
    reviews = write_csv(shared / "reviews.csv", tiny.texts(240))
    return classify(tiny.model("bert", shared / "bert"), reviews, shared / "encoder")


@pytest.fixture(scope="module")
def exported(encoder: Run, shared: Path) -> Callable[[str], Any]:
    """Target -> the proof of the encoder's export, of 20 rows; its files lie in the proof's folder."""
    return functools.cache(lambda target: tunesmith.export(encoder, target, shared / target, rows=20))


@pytest.fixture(scope="module")
def llama(shared: Path) -> Path:
    return tiny.generator("llama", shared / "llama")


@pytest.fixture(scope="module")
def generator(shared: Path, llama: Path) -> Run:
    return instruct(llama, shared / "generator", "prompt.template=alpaca")


@pytest.fixture(scope="module")
def adapted(shared: Path, llama: Path) -> Run:
    return instruct(llama, shared / "adapted", "adapter.kind=lora")


# --- classifiers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["safetensors", "pth", *PROGRAMS])
def test_an_encoder_says_the_same_everywhere(target: str, encoder: Run, exported: Callable[[str], Any]) -> None:
    if target == "openvino":
        pytest.importorskip("openvino")
    proof = exported(target)
    folder = Path(proof.folder)
    assert proof.agreement == 1
    assert proof.max_logit_difference <= (0.1 if target == "onnx-int8" else 1e-5) * proof.largest_logit
    assert proof.rows == proof.compared == 20
    assert proof.speed > 0
    stored = json.loads((folder / "parity.json").read_text())
    assert stored | {"folder": proof.folder} == records.dump(proof)
    card, rounded = (folder / "README.md").read_text(), target == "onnx-int8"
    assert ("model-index:" in card, "Measured before rounding: 100.00% of 20 labels" in card) == (not rounded, rounded)
    row = held_out(encoder)[0]
    label = load_text_predictor(encoder).predict([row])[0].label
    if target in PROGRAMS:
        without = (
            ["transformers", "torch", "tunesmith"]
            if target.startswith(("onnx", "openvino"))
            else ["transformers", "tunesmith"]
        )
        said = in_folder(folder, "-W", "ignore", "run.py", row.text, "goal", without=without)
        assert said.splitlines()[0] == f"{label}\t{row.text}"
        assert len((folder / "run.py").read_text().splitlines()) < 20
    else:
        found = ast.literal_eval(as_the_card_says(folder))
        assert {one["label"] for one in found} == set(tiny.WORDS)


@pytest.mark.parametrize("family", ["distilbert", "roberta", "xlnet", "deberta", "modernbert", "gpt2"])
def test_other_families_as_onnx(family: str, reviews: Path, tiny_models: Models, tmp_path: Path) -> None:
    """Single texts and pairs, from a word to what is cut, alone and in batches."""
    run = classify(tiny_models(family), reviews, tmp_path / "run")
    proof = tunesmith.export(run, "onnx", tmp_path / "out")
    assert proof.max_logit_difference <= 1e-5 * proof.largest_logit
    loaded, expected = onnx.load(tmp_path / "out"), load_predictor(run)
    short, long = "goal", "the new treaty of team " * 40
    texts = [Example("1", short), Example("2", long), Example("3", "a chip"), Example("4", f"{long} score")]
    pairs = [Example("1", short, long), Example("2", long, short), Example("3", short, short), Example("4", long, long)]
    for rows in (texts, texts[:1], texts[1:2], pairs, pairs[:1]):
        for ours, theirs in zip(loaded.logits(rows), expected.logits(rows), strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(("pooling", "labels"), [("mean", 3), ("cls", 2)])
def test_a_probe_is_one_graph(pooling: str, labels: int, shared: Path, encoder: Run, tmp_path: Path) -> None:
    rows = [row for row in tiny.texts(120) if row[1] in list(tiny.WORDS)[:labels]]
    reviews = write_csv(tmp_path / "rows.csv", rows)
    more = [f"pooling={pooling}", f"normalize={'true' if pooling == 'mean' else 'false'}"]
    run = classify(shared / "bert", reviews, tmp_path / "run", *more, method="probe")
    for target in ("safetensors", "onnx"):
        proof = tunesmith.export(run, target)
        assert proof.folder == str(run.path / "export" / target)
        assert proof.max_logit_difference < 1e-3 * proof.largest_logit
    found = onnx.load(run.path / "export" / "onnx").predict(held_out(run))
    expected = load_text_predictor(run).predict(held_out(run))
    assert [one.label for one in found] == [one.label for one in expected]
    assert np.allclose([o.probabilities for o in found], [o.probabilities for o in expected], atol=1e-4)
    with pytest.raises(RunError, match="not a single network"):
        tunesmith.export(run, "pth")


def test_pairs_are_pairs(shared: Path, encoder: Run, tmp_path: Path) -> None:
    rows = [{"a": text, "b": f"{label} the {label}", "label": label} for text, label in tiny.texts(90)]
    (tmp_path / "pairs.json").write_text(json.dumps(rows))
    run = classify(shared / "bert", tmp_path / "pairs.json", tmp_path / "run", "data.text=a", "data.text_pair=b")
    tunesmith.export(run, "onnx", tmp_path / "onnx")
    loaded, expected = onnx.load(tmp_path / "onnx"), load_text_predictor(run)
    found = loaded.predict(held_out(run))
    for one, other in zip(found, expected.predict(held_out(run)), strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
    long = Example("long", "goal " * 150, "team " * 170)
    assert loaded.count_tokens(long) == 323
    assert loaded.predict([long])[0].probabilities == pytest.approx(expected.predict([long])[0].probabilities, abs=1e-5)
    loaded.predict([Example("longer", "goal " * 100_000, "team " * 100_000)])  # in memory there is
    row = held_out(run)[0]
    assert in_folder(tmp_path / "onnx", "run.py", f"{row.text}\t{row.text_pair}").split("\t")[0] == found[0].label
    tunesmith.export(run, "safetensors", tmp_path / "whole")
    assert "text_pair" in (tmp_path / "whole" / "README.md").read_text()
    assert as_the_card_says(tmp_path / "whole")


def test_the_onnx_predictor(
    encoder: Run, exported: Callable[[str], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded, rows = onnx.load(Path(exported("onnx").folder), threads=1), held_out(encoder)
    expected = load_text_predictor(encoder)
    assert loaded.labels == expected.labels
    together, alone = loaded.predict(rows), [loaded.predict([row])[0] for row in rows]
    for one, other, third in zip(together, alone, expected.predict(rows), strict=True):
        assert one.id == third.id
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
        assert one.probabilities == pytest.approx(third.probabilities, abs=1e-5)
    assert loaded.predict([]) == []
    long = Example("long", "goal " * 500)
    capsys.readouterr()
    assert loaded.predict([long])[0].probabilities == pytest.approx(expected.predict([long])[0].probabilities, abs=1e-5)
    assert "1 of 1 texts cut at 128 tokens" in capsys.readouterr().err
    loaded.save(tmp_path / "copy")
    assert onnx.load(tmp_path / "copy").predict(rows) == together
    with pytest.raises(ModelError, match=r"no model\.onnx"):
        onnx.load(tmp_path)


def test_in_8_bits_a_text_does_not_depend_on_its_neighbours(encoder: Run, exported: Callable[[str], Any]) -> None:
    loaded, rows = onnx.load(Path(exported("onnx-int8").folder), threads=1), held_out(encoder)
    assert loaded.predict(rows) == [loaded.predict([row])[0] for row in rows]


def test_the_onnx_predictor_needs_no_torch(exported: Callable[[str], Any]) -> None:
    code = (
        "from pathlib import Path; from tunesmith.exporting import onnx; from tunesmith.types import Example\n"
        'print(onnx.load(Path(".")).predict([Example("1", "goal")])[0].label)'
    )
    said = in_folder(Path(exported("onnx").folder), "-c", code, without=["torch", "transformers", "sklearn"])
    assert said.strip() in tiny.WORDS


def test_a_traced_graph_has_a_plain_attention(encoder: Run) -> None:
    """Whatever layout the run predicts with."""
    trained = exports.export_source(encoder, "auto")
    trained.parts.model.set_attn_implementation("eager")
    module, inputs = network.trace(trained, "sdpa")
    assert module.body.config._attn_implementation == "sdpa"
    assert trained.parts.model.config._attn_implementation == "eager"
    assert list(inputs) == ["input_ids", "attention_mask", "token_type_ids"]
    assert len({tensor.shape for tensor in inputs.values()}) == 1
    assert not inputs["attention_mask"].all()


def test_encoders_with_adapters(reviews: Path, tiny_models: Models, tmp_path: Path) -> None:
    run = classify(tiny_models("distilbert"), reviews, tmp_path / "run", "adapter.kind=lora")
    for target in ("adapter", "safetensors", "onnx", "pth"):
        assert tunesmith.export(run, target).agreement == 1
    for target in ("adapter", "safetensors", "pth"):
        found = ast.literal_eval(as_the_card_says(run.path / "export" / target))
        assert {entry["label"] for entry in found} == set(tiny.WORDS)
    front = {
        name: (run.path / "export" / name / "README.md").read_text().split("---")[1] for name in ("adapter", "onnx")
    }
    assert "library_name: peft" in front["adapter"]
    assert "library_name: onnx" in front["onnx"]


def test_a_bag_of_words(reviews: Path, tmp_path: Path) -> None:
    run = classify(tmp_path, reviews, tmp_path / "run", method="linear")
    proof = tunesmith.export(run, "safetensors", tmp_path / "out")
    assert proof.max_logit_difference == 0
    assert "label=" in as_the_card_says(tmp_path / "out")
    for target in PROGRAMS:
        with pytest.raises(RunError, match="a bag of words cannot be written"):
            tunesmith.export(run, target)
    for target in ("pth", "adapter", "gguf"):
        with pytest.raises(RunError, match="do: "):
            tunesmith.export(run, target)
    assert not list((run.path / "export").iterdir())


# --- generators ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["safetensors", "pth", "gguf", "ollama"])
def test_a_generator_writes_the_same_everywhere(target: str, generator: Run, tmp_path: Path) -> None:
    proof = tunesmith.export(generator, target, tmp_path / "out", precision="float32", rows=5)
    assert proof.agreement == proof.same_answers == 1
    assert proof.compared > proof.rows == 5
    assert proof.max_logit_difference < 1e-4 * proof.largest_logit
    if target in ("safetensors", "pth"):
        assert as_the_card_says(tmp_path / "out")
    else:
        assert proof.speed is proof.seconds_per_row is None


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_the_graph_of_a_generator_is_served(
    target: Literal["onnx", "openvino"], generator: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    if target == "openvino":
        pytest.importorskip("openvino")
    tunesmith.export(generator, target, rows=4)
    assert capsys.readouterr().out == ""  # which is for the result on the command line
    served, rows = serve.engine(generator, Serve(engine=target)), held_out(generator)
    assert isinstance(served, Generator)
    assert isinstance(served.model, GraphModel)
    asked = [row.id for row in rows], [row.messages[:-1] for row in rows], generator.recipe.generate, 3
    assert served.respond(*asked) == load_generator(generator).respond(*asked)


def test_adapters_of_generators(adapted: Run, tmp_path: Path) -> None:
    for target in ("adapter", "safetensors", "pth", "gguf"):
        proof = tunesmith.export(adapted, target, tmp_path / target, rows=4)
        assert proof.agreement == 1
    answers = [as_the_card_says(tmp_path / target) for target in ("adapter", "safetensors")]
    assert answers[0] == answers[1] != ""


def test_an_adapter_is_merged_in_the_precision_of_its_base(shared: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    folder = tiny.generator("llama", tmp_path / "half")
    AutoModelForCausalLM.from_pretrained(folder).bfloat16().save_pretrained(folder)
    run = instruct(folder, tmp_path / "run", "adapter.kind=lora")
    proof = tunesmith.export(run, "safetensors", tmp_path / "out", allow_loss=True)
    assert {tensor.dtype for tensor in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.bfloat16}
    assert 0 < proof.max_logit_difference < 0.05 * proof.largest_logit
    tunesmith.export(run, "safetensors", tmp_path / "full", precision="float32")
    cards = [(tmp_path / name / "README.md").read_text() for name in ("out", "full")]
    assert ["model-index:" in card for card in cards] == [False, True]
    assert ["Measured before rounding" in card for card in cards] == [True, False]
    assert {tensor.dtype for tensor in load_file(tmp_path / "full" / "model.safetensors").values()} == {torch.float32}


def test_merging_into_4_bits_is_refused(llama: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    run = instruct(llama, tmp_path / "run", "adapter.kind=qlora")
    with pytest.raises(RunError, match=r"cannot be merged into 4-bit weights.*\n.*--precision float32"):
        tunesmith.export(run, "safetensors", tmp_path / "out")
    assert tunesmith.merge(run, tmp_path / "merged").agreement == 1
    assert tunesmith.export(run, "gguf", tmp_path / "gguf", precision="float32").agreement == 1


def test_an_untuned_generator_that_labels(llama: Path, reviews: Path, tmp_path: Path) -> None:
    source = {"method": "generator", "data": {"path": str(reviews)}, "model": {"name_or_path": str(llama)}}
    run = tunesmith.train(source, [*QUICK, "max_steps=null", "num_train_epochs=0"], run_dir=tmp_path / "run")
    tunesmith.export(run, "safetensors", tmp_path / "out", rows=4)
    assert (tmp_path / "out" / "model.safetensors").exists()
    assert as_the_card_says(tmp_path / "out")
    tunesmith.export(run, "ollama", tmp_path / "ollama", rows=4)
    text = (tmp_path / "ollama" / "Modelfile").read_text()
    question = load_predictor(run).question
    asked = load_predictor(run).generator.chat_encoder.rendered_prompt(question.ask(Example("1", "{{ .Prompt }}")))
    assert f'TEMPLATE """{asked}"""' in text
    (turn,) = question.ask(Example("1", "Some text", "Another"))  # a pair is one text for Ollama
    piped = usage.usage(exports.export_source(run, "auto"), "ollama", True, tmp_path)
    assert "printf 'Text 1: Some text\\nText 2: Another' | ollama run" in piped
    assert turn.input == "Text 1: Some text\nText 2: Another"
    tunesmith.export(run, "onnx", tmp_path / "onnx", rows=4)
    loaded, rows = METHODS["generator"].load(tmp_path / "onnx", run.recipe), held_out(run)
    assert isinstance(loaded, TextPredictor)
    for one, other in zip(loaded.predict(rows), load_text_predictor(run).predict(rows), strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
    assert f"run.py '{turn.content}' --input 'Some text'" in (tmp_path / "onnx" / "README.md").read_text()


def test_exports_show_the_shots(reviews: Path, tmp_path: Path, tiny_models: Callable[[str], Path]) -> None:
    """Where other software cannot, the card says how tunesmith reads the folder, or the export is refused."""
    folder = tiny.generator("llama", tmp_path / "llama", max_position_embeddings=2048)
    runs = {}
    for selection in ("random", "nearest"):
        source = {"method": "generator", "data": {"path": str(reviews)}, "model": {"name_or_path": str(folder)}}
        shown = ["prompt.shots=3", f"prompt.shot_selection={selection}", f"prompt.shot_encoder={tiny_models('bert')}"]
        untuned = ["max_steps=null", "num_train_epochs=0", *shown]
        runs[selection] = tunesmith.train(source, [*QUICK, *untuned], run_dir=tmp_path / selection, quiet=True)
        tunesmith.export(runs[selection], "onnx", tmp_path / f"{selection}-onnx", rows=2)
        loaded = METHODS["generator"].load(tmp_path / f"{selection}-onnx", runs[selection].recipe)
        assert isinstance(loaded, TextPredictor)
        for row in held_out(runs[selection])[:3]:
            assert loaded.rendered_prompt(row) == load_text_predictor(runs[selection]).rendered_prompt(row)
        assert "LabelClassifier.load" in (tmp_path / f"{selection}-onnx" / "README.md").read_text()
    tunesmith.export(runs["random"], "safetensors", tmp_path / "weights", rows=2)
    assert as_the_card_says(tmp_path / "weights")
    card, predictor = (tmp_path / "weights" / "README.md").read_text(), load_predictor(runs["random"])
    assert all(json.dumps(row.text) in card for row in predictor.shots.rows)
    tunesmith.export(runs["random"], "ollama", tmp_path / "ollama", rows=2)
    asked = predictor.rendered_prompt(Example("1", "{{ .Prompt }}"))
    assert f'TEMPLATE """{asked}"""' in (tmp_path / "ollama" / "Modelfile").read_text()
    with pytest.raises(ModelError, match=r"(?s)Ollama template.*the shots depend on the text"):
        tunesmith.export(runs["nearest"], "ollama", tmp_path / "refused", rows=2)


def test_shots_of_instructions_are_messages_for_ollama(tmp_path: Path) -> None:
    words = tiny.byte_tokenizer()
    shots = ((Message("user", "One?", "x"), Message("assistant", "Yes.")),)
    encoder = ChatEncoder.of(Prompt(template="alpaca"), words)
    text = ollama.modelfile(ChatSpec(replace(encoder, shots=shots), []), Generate(), 100, False)
    assert 'MESSAGE user """One?\n\nx"""\nMESSAGE assistant """Yes."""\n' in text


GGUF_FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen3": {"head_dim": 128},
    "mistral": tiny.SIZES["llama"] | {"max_position_embeddings": 512, "sliding_window": None},
    "qwen2": {},
    "gpt2": {"n_positions": 1024},  # transformers does not read from a file how many there are
    "gpt_neox": {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5}},
}


@pytest.mark.parametrize("family", sorted(GGUF_FAMILIES))
def test_families_as_gguf(family: str, tmp_path: Path) -> None:
    run = instruct(tiny.generator(family, tmp_path / "model", **GGUF_FAMILIES[family]), tmp_path / "run")
    proof = tunesmith.export(run, "gguf", tmp_path / "out", precision="float32", rows=4)
    assert proof.exact
    assert proof.max_logit_difference == 0  # the same weights in the same architecture
    if family != "gpt_neox":  # which transformers cannot read
        read = gguf_import.read(tmp_path / "out" / gguf.FILE).eval()
        ours, theirs = (model(torch.arange(60)[None]).logits for model in (load_predictor(run).parts().model, read))
        assert torch.allclose(ours, theirs, atol=1e-5)
    assert tunesmith.export(run, "ollama", tmp_path / "ollama", rows=4).agreement == 1


@pytest.mark.parametrize(
    ("family", "changes", "reason"),
    [
        ("opt", {}, "opt, which llama.cpp has no architecture for"),
        ("gpt2", {"activation_function": "relu"}, "relu as its activation"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scaled in another way"),
        ("gpt_neox", {"attention_bias": False}, "without biases"),
        ("mistral", tiny.SIZES["llama"] | {"sliding_window": 8}, "a sliding window"),
        ("gpt_neox", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, "'linear'"),
    ],
)
def test_what_gguf_is_not_for(family: str, changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    words = tiny.byte_tokenizer()
    model = tiny.causal(family, **{"vocab_size": len(words)} | changes)
    with pytest.raises(ModelError, match=f"a {family} model cannot be written as GGUF here") as error:
        gguf.write(tmp_path / "model.gguf", model, ChatEncoder(words), "float16", "tiny")
    assert reason in str(error.value)
    assert ("onnx" in str(error.value)) == (family == "opt")


def test_a_gguf_file_says_the_system_prompt(tmp_path: Path) -> None:
    """llama.cpp and Ollama know of no recipe: its system message is in the template they read."""
    words = tiny.byte_tokenizer()
    words.chat_template = prompts.TEMPLATES["alpaca"]
    encoder = ChatEncoder(words, system="Be brief.")
    model = tiny.causal("llama", vocab_size=len(words))
    gguf.write(tmp_path / "model.gguf", model, encoder, "float32", "tiny")
    stored = format_.GGUFReader(tmp_path / "model.gguf").fields["tokenizer.chat_template"].contents()
    turns = [{"role": "user", "content": "Hello"}]
    said = words.apply_chat_template(turns, chat_template=stored, add_generation_prompt=True, tokenize=False)
    assert said == encoder.rendered_prompt([Message("user", "Hello")])
    assert said.startswith("Be brief.")


def test_a_head_that_is_the_embedding(tmp_path: Path) -> None:
    words = tiny.byte_tokenizer()
    words.chat_template = "plain"
    for family, tied in itertools.product(["llama", "gpt2", "gpt_neox"], [True, False]):
        model = tiny.causal(family, vocab_size=len(words), tie_word_embeddings=tied)
        gguf.write(tmp_path / "model.gguf", model, ChatEncoder(words), "float32", "tiny")
        names = {tensor.name for tensor in format_.GGUFReader(tmp_path / "model.gguf").tensors}
        assert (gguf.OUTPUT in names) == (not tied or family == "gpt_neox")  # llama.cpp's has always one of its own
        read = gguf.read(tmp_path / "model.gguf", model)
        assert all(torch.equal(read.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.real
@pytest.mark.parametrize("family", sorted(GGUF_FAMILIES))
def test_llama_cpp_writes_the_same(family: str, tmp_path: Path) -> None:
    """llama.cpp itself reads the file, makes the same tokens of the prompts, and writes the same answers."""
    llama_cpp = pytest.importorskip("llama_cpp")
    folder = tiny.generator(family, tmp_path / "model", vocab_size=300, **GGUF_FAMILIES[family])
    merge_tokens(folder, ["th", "the", "in", "st"])
    run = instruct(folder, tmp_path / "run")
    tunesmith.export(run, "gguf", tmp_path / "out", precision="float32", rows=4)
    generator, rows = load_generator(run), held_out(run)
    llama = llama_cpp.Llama(str(tmp_path / "out" / gguf.FILE), n_ctx=512, verbose=False)
    for row in rows:
        expected = generator.answer_greedily(row.messages[:-1], run.recipe.generate)
        prompt, answer = expected.ids[: expected.start], expected.ids[expected.start :]
        text = generator.rendered_prompt(row.messages[:-1]).encode()
        assert llama.tokenize(text, add_bos=False, special=True) == prompt
        written = itertools.islice(llama.generate(prompt, temp=0.0, repeat_penalty=1.0), len(answer))
        assert list(written) == answer
    llama.close()


def test_a_gguf_file_has_the_tokenizer(generator: Run, tmp_path: Path) -> None:
    tunesmith.export(generator, "gguf", tmp_path / "out", precision="q8_0", rows=4, allow_loss=True)
    fields = format_.GGUFReader(tmp_path / "out" / "model.gguf").fields
    tokenizer = load_predictor(generator).chat_encoder.tokenizer
    tokens = fields["tokenizer.ggml.tokens"].contents()
    assert tokens == sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    assert fields["general.name"].contents() == generator.path.name
    assert fields["tokenizer.chat_template"].contents() == tokenizer.chat_template
    assert fields["tokenizer.ggml.pre"].contents() == "gpt-2"
    assert fields["tokenizer.ggml.eos_token_id"].contents() == tokenizer.eos_token_id
    kinds = fields["tokenizer.ggml.token_type"].contents()
    assert {tokens[i] for i, kind in enumerate(kinds) if kind == format_.TokenType.CONTROL} == {"<eos>", "<pad>"}


def test_how_a_tokenizer_splits_must_have_a_name() -> None:
    byte_level = {"type": "ByteLevel", "add_prefix_space": False}
    digits = {"type": "Digits", "individual_digits": True}
    both = {"type": "Sequence", "pretokenizers": [digits, byte_level]}
    assert gguf.pre_tokenizer_name({"model": {"type": "BPE"}, "pre_tokenizer": both}) == "smollm"
    for odd in (
        {"model": {"type": "BPE"}, "pre_tokenizer": {"type": "Metaspace"}},
        {"model": {"type": "BPE"}, "pre_tokenizer": byte_level | {"add_prefix_space": True}},
        {"model": {"type": "WordPiece"}, "pre_tokenizer": byte_level},
        {"model": {"type": "BPE", "byte_fallback": True}, "pre_tokenizer": byte_level},
        {"model": {"type": "BPE"}, "pre_tokenizer": byte_level | {"use_regex": False}},
        {"model": {"type": "BPE"}, "pre_tokenizer": byte_level, "normalizer": {"type": "Lowercase"}},
    ):
        with pytest.raises(ModelError, match="no known name"):
            gguf.pre_tokenizer_name(odd)


# --- Ollama --------------------------------------------------------------------------------------------------------


def prompter(template: str, **special: Any) -> Any:
    return ChatEncoder.of(Prompt(template=template), tiny.byte_tokenizer(**special))


def rendered(template: str, messages: Sequence[Message]) -> str:
    """The few forms of Go's text/template that `ollama.template` writes, carried out."""
    system = next((one.content for one in messages if one.role == "system"), "")
    opened, _, turns = template.partition("{{ range $i, $_ := .Messages }}")
    head = re.fullmatch(r"\{\{ if \.System \}\}(.*)\{\{ else \}\}(.*)\{\{ end \}\}", opened, re.DOTALL)
    assert head
    text = head[1].replace("{{ .System }}", system) if system else head[2]
    parts = re.fullmatch(
        r'\{\{ if eq \.Role "user" \}\}(.*)\{\{ else if eq \.Role "assistant" \}\}(.*)\{\{ end \}\}\{\{ end \}\}',
        turns,
        re.DOTALL,
    )
    assert parts
    switch = r"\{\{ if eq \(len \(slice \$\.Messages \$i\)\) 1 \}\}(.*)\{\{ else \}\}(.*)\{\{ end \}\}"
    for number, one in enumerate(messages, 1):
        choice = r"\1" if number == len(messages) else r"\2"
        of = {"user": re.sub(switch, choice, parts[1], flags=re.DOTALL), "assistant": parts[2], "system": ""}
        text += of[one.role].replace("{{ .Content }}", one.content)
    return text


@pytest.mark.parametrize("template", ["alpaca", "alpaca-short", "human-assistant", "plain"])
def test_ollama_makes_the_prompts_of_training(template: str) -> None:
    made = prompter(template)
    turns = [Message("user", "How?"), Message("assistant", "So.\nYes"), Message("user", "And {{ braces }}?")]
    text = ollama.template(ollama.split_template(made))
    for messages in (turns[:1], turns, [Message("system", "Be brief."), *turns]):
        assert rendered(text, messages) == made.rendered_prompt(messages)


def test_the_modelfile(generator: Run, tmp_path: Path) -> None:
    tunesmith.export(generator, "ollama", tmp_path / "out", rows=4)
    text = (tmp_path / "out" / "Modelfile").read_text()
    assert text.startswith("FROM ./model.gguf\n")
    for line in ('stop "<eos>"', 'stop "### Instruction:"', "temperature 0", "num_predict 6", "repeat_penalty 1"):
        assert f"PARAMETER {line}\n" in text


def test_a_first_token_is_not_written_twice() -> None:
    made = prompter("alpaca", bos="<s>")
    pieces = ollama.split_template(made)
    assert pieces.head.startswith("<s>")
    assert "<s>" not in ollama.template(pieces, "<s>")


@pytest.mark.parametrize(
    ("template", "found"),
    [
        (
            "{% for m in messages %}{{ loop.index if m.role == 'user' else '' }}{{ m.content }}"
            "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}",
            "in another way",
        ),
        (
            "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
            "{{ m.content }}"
            "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}",
            "refuses system messages",
        ),
    ],
)
def test_templates_that_ollama_cannot_have(template: str, found: str, tmp_path: Path) -> None:
    (tmp_path / "odd.jinja").write_text(template)
    with pytest.raises(ModelError, match=found):
        ollama.split_template(prompter(str(tmp_path / "odd.jinja")))


# --- proof and errors ----------------------------------------------------------------------------------------------


def test_an_export_that_is_off_is_not_left_behind(
    encoder: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = weights.pth

    def wrong(trained: Any, folder: Path) -> Exported:
        found = whole(trained, folder)
        return Exported(lambda rows: [np.add(logits, [0.01, 0, 0]) for logits in found.run(rows)], found.engine)

    monkeypatch.setattr(weights, "pth", wrong)
    for allow in (False, True):  # what rounds nothing has no excuse
        with pytest.raises(RunError, match="does not match the run"):
            tunesmith.export(encoder, "pth", tmp_path / "out", allow_loss=allow)
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_what_counts_as_the_same() -> None:
    logits = [np.array([2.0, 1.0]), np.array([0.0, 4.0])]

    def proof(*other: Any, exact: bool = True) -> ParityReport:
        run = Exported(lambda rows: [np.array(other[i]) for i in rows], "x", exact, timed=False)
        facts: dict[str, Any] = {"target": "x", "precision": "auto", "size_mb": 1.0, "run_size_mb": 1.0}
        return parity.compare(lambda rows: [logits[i] for i in rows], run, [0, 1], **facts)

    close = proof([2.0003, 1.0], [0.0, 4.0])
    assert close.max_logit_difference == pytest.approx(0.0003)
    assert close.largest_logit == 4
    assert parity.problem(close) is None
    assert parity.problem(proof([2.0005, 1.0], [0.0, 4.0]))
    assert parity.problem(proof([2.5, 1.0], [0.0, 4.0]))
    assert parity.problem(proof([2.5, 1.0], [0.0, 4.0], exact=False)) is None
    flipped = proof([1.0, 2.0], [0.0, 4.0], exact=False)
    assert flipped.agreement == 0.5
    assert "50.00% of 2 labels agree" in str(parity.problem(flipped))
    parity.check(flipped, allow_loss=True)
    with pytest.raises(RunError, match="--allow-loss"):
        parity.check(flipped, allow_loss=False)
    for share, differences, kept in ((0.98, None, True), (0.4, None, False), (0.98, {"decode": 0.0}, False)):
        rounded_by_engine = replace(close, same_responses=share, differences=differences)
        assert "of whole responses agree" in str(parity.problem(rounded_by_engine))  # `auto` does not take it
        with contextlib.nullcontext() if kept else pytest.raises(RunError, match="does not match the run"):
            parity.check(rounded_by_engine, allow_loss=False)
    assert parity.problem(proof([float("nan"), 1.0], [0.0, 4.0]))


def test_the_compared_answer_is_the_one_that_predict_gives(generator: Run) -> None:
    trained = exports.export_source(generator, "auto")
    row = held_out(generator)[0]
    settings = generator.recipe.generate
    (written,) = trained.predictor.parity_rows([row], settings)
    assert isinstance(written, PromptWithAnswer)
    (logits,) = trained.predictor.logits([written])
    assert logits.argmax(-1).tolist() == written.ids[written.start :]
    (said,) = trained.predictor.respond(["1"], [row.messages[:-1]], settings, 0)
    assert trained.predictor._text(written.ids[written.start :]) == said.text


def test_on_the_command_line(encoder: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = write_csv(tmp_path / "new.csv", tiny.texts(9, seed=5))
    assert main(["export", str(encoder.path), "--to", "pth", "--data", str(new), "--output", str(tmp_path / "o")]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["rows"] == 9
    assert "100.00% of 9 labels agree" in shown.err
    assert main(["export", str(encoder.path), "--to", "pth", "--output", str(tmp_path / "o")]) == 2
    assert "is not an empty folder" in capsys.readouterr().err
    assert main(["export", str(encoder.path), "--to", "pth", "--output", str(new)]) == 2
    assert "new.csv is not an empty folder" in capsys.readouterr().err
    assert main(["export", str(encoder.path), "--to", "tensorrt"]) == 2
    assert "no export target 'tensorrt'" in capsys.readouterr().err
    assert tuple(targets.TARGETS) == inference.TARGETS
    with pytest.raises(RecipeError, match="precision is int4"):
        tunesmith.export(encoder, "onnx", precision="int4")  # type: ignore[arg-type]
    with pytest.raises(RunError, match="onnx cannot be written in float16"):
        tunesmith.export(encoder, "onnx", precision="float16")


def test_a_state_dict_is_named_after_model_size_and_task(generator: Run, encoder: Run, tmp_path: Path) -> None:
    written = {
        run: [path.name for path in Path(str(tunesmith.export(run, "pth", tmp_path / name).folder)).glob("*.pth")]
        for run, name in ((generator, "generator"), (encoder, "encoder"))
    }
    assert written == {generator: ["llama35K-sft.pth"], encoder: ["bert27K-classifier.pth"]}
    tunesmith.export(generator, "pth", tmp_path / "named", rows=2, name="gpt2-medium355M-sft.pth")
    assert (tmp_path / "named" / "gpt2-medium355M-sft.pth").is_file()
    assert as_the_card_says(tmp_path / "named")
    for target, name in (("pth", "../x.pth"), ("pth", "x"), ("safetensors", "x.pth")):
        with pytest.raises(RecipeError, match=r"a name that ends in \.pth"):
            tunesmith.export(generator, target, tmp_path / "other", name=name)


@pytest.mark.parametrize(("count", "expected"), [(124_439_808, "124M"), (1_557_611_200, "1.6B"), (7 * 10**9, "7B")])
def test_sizes_are_those_of_model_names(count: int, expected: str) -> None:
    assert weights.size_name(count) == expected


class FakeHub:
    """What `Repository.upload` asks of the hub; it fails with a message that quotes the key."""

    def __init__(self, token: str, refuses: bool = False) -> None:
        self.token, self.refuses, self.created, self.files = token, refuses, {}, set()

    def create_repo(self, name: str, **options: object) -> None:
        self.created[name] = options

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> Any:
        if self.refuses:
            raise OSError(f"401 Client Error: Authorization: Bearer {self.token}")
        self.files = {path.name for path in folder_path.iterdir()}
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")


def test_an_export_is_pushed(
    adapted: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a key from the environment alone, which stands in no file and no message."""
    hub = FakeHub("hf_secret")
    monkeypatch.setattr("huggingface_hub.HfApi", lambda token: hub if token == "hf_secret" else None)
    command = ["export", str(adapted.path), "--to", "safetensors", "--rows", "2", "--push", "me/model", "--output"]
    assert main([*command, str(tmp_path / "none")]) == 2
    assert "set HF_TOKEN in the environment" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert main([*command, str(tmp_path / "out")]) == 0
    assert hub.created == {"me/model": {"private": True, "exist_ok": True}}
    assert {"README.md", "model.safetensors", "config.json", "parity.json"} <= hub.files
    said = capsys.readouterr()
    assert "pushed to https://hub/me/model/commit/1" in said.err
    hub.refuses = True
    assert main([*command, str(tmp_path / "refused")]) == 2
    refused = capsys.readouterr()
    assert "cannot push" in refused.err
    assert "Bearer ***" in refused.err
    assert "hf_secret" not in said.out + said.err + refused.out + refused.err
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if b"hf_secret" in path.read_bytes()]
    command[3] = "adapter"
    assert main([*command, str(tmp_path / "adapter")]) == 2
    assert "its base model is only on this machine" in capsys.readouterr().err
    command[-2] = "model"
    assert main([*command, str(tmp_path / "badly")]) == 2
    assert "expected: ORG/NAME" in capsys.readouterr().err


def test_exports_of_a_run_are_replaced(encoder: Run) -> None:
    for _ in range(2):
        tunesmith.export(encoder, "pth", rows=2)
    assert {path.name for path in (encoder.path / "export").iterdir()} == {"pth"}


# --- a real model --------------------------------------------------------------------------------------------------


@pytest.mark.real
def test_minilm_as_onnx_and_in_8_bits(tmp_path: Path) -> None:
    reviews = write_csv(tmp_path / "reviews.csv", tiny.texts(240))
    source = {"data": {"path": str(reviews)}, "model": {"name_or_path": "pypi:all-minilm-l6-v2"}}
    run = tunesmith.train(source, [*QUICK, "max_steps=12", "learning_rate=1e-3"], run_dir=tmp_path / "run")
    whole = tunesmith.export(run, "onnx")
    assert whole.max_logit_difference < 1e-4 * whole.largest_logit
    small = tunesmith.export(run, "onnx-int8")
    assert small.agreement >= 0.99
    assert small.size_mb < 0.7 * whole.size_mb
    row = held_out(run)[0]
    said = in_folder(run.path / "export" / "onnx-int8", "run.py", row.text, without=["torch", "transformers"])
    assert said.split("\t")[0] == onnx.load(run.path / "export" / "onnx-int8").predict([row])[0].label


# --- a disk that fails ---------------------------------------------------------------------------------------------


def export_with_small_files(run: str, target: str, output: str) -> None:
    """`tunesmith export` where no file may be larger than 40 KB."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (40 << 10, 40 << 10))
    forked.command("export", run, "--to", target, "--output", output, "--rows", "2")


@pytest.mark.parametrize("target", ["onnx", "torch-export", "torchscript", "gguf", "safetensors"])
def test_a_full_disk_leaves_nothing_of_a_generator_and_says_so(target: str, generator: Run, tmp_path: Path) -> None:
    before = runs.size(generator.path)
    process = forked.start(
        tmp_path / "process", export_with_small_files, *map(str, (generator.path, target, tmp_path / "out"))
    )
    process.join()
    said = (tmp_path / "process.err").read_text()
    assert process.exitcode == 2, said
    assert ("check the disk" if target in ("onnx", "gguf") else "raise the limit on the size of a file") in said
    assert [path.name for path in tmp_path.iterdir() if path.name.strip(".").startswith("out")] == []
    assert runs.size(generator.path) == before
