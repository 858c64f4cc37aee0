"""What computes a finished run: the setting, the exports that lie in it, and why `auto` takes which."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import tunesmith
from tests import tiny
from tests.conftest import write_csv
from tests.small_runs import classify, held_out, instruct, merge_tokens
from tunesmith import integrity
from tunesmith.errors import MissingExtra, ModelError, RunError
from tunesmith.models.graphs import GraphModel
from tunesmith.pipeline import engines, judge_models
from tunesmith.pipeline.commands import chat, serve
from tunesmith.prediction.generate import Generator
from tunesmith.recipe import Recipe, Serve
from tunesmith.runs import Run
from tunesmith.types import Message


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with both exports, as they are written where llama-cpp-python is not installed."""
    folder = tmp_path_factory.mktemp("engines")
    model = tiny.generator("llama", folder / "model", vocab_size=300)
    merge_tokens(model, ["th", "the", "in", "st"])
    made = instruct(model, folder / "run")
    with pytest.MonkeyPatch.context() as without:
        hide(without, "llama_cpp")
        for target in ("onnx", "gguf"):
            tunesmith.export(made, target, rows=50)
    return made


def hide(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in packages else find(name))


def change_report(run: Run, target: str, **changes: Any) -> None:
    folder = run.path / "export" / target
    report = json.loads((folder / "parity.json").read_text())
    (folder / "parity.json").write_text(json.dumps(report | changes))
    (folder / "hashes.json").write_text(json.dumps(integrity.hashes(folder)))


def test_auto_takes_the_fastest_that_is_proved_and_says_why(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def chosen() -> tuple[type, str]:
        caplog.clear()
        generator = engines.load_generator(run, "auto")
        assert isinstance(generator, Generator)
        return type(generator.model), caplog.text

    hide(monkeypatch, "llama_cpp")
    change_report(run, "onnx", speed=2.0)
    kind, said = chosen()
    assert kind is GraphModel
    assert "the fastest engine is onnx (onnx: 2.00 times the speed, the same answers; llama-cpp: pip install" in said
    assert "computed by ONNX Runtime" in said
    change_report(run, "onnx", speed=0.5)
    assert chosen()[0] is not GraphModel
    change_report(run, "onnx", speed=2.0, same_responses=0.9)
    kind, said = chosen()
    assert kind is not GraphModel
    assert "90.00% of whole responses agree" in said
    change_report(run, "onnx", same_responses=1.0, rows=1)
    assert "compared on 1 rows only" in chosen()[1]
    monkeypatch.undo()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert "llama-cpp: its speed was not measured" in chosen()[1]


def test_every_command_asks_the_engine_of_the_recipe(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    change_report(run, "onnx", speed=0.5)
    texts = ["Name the topic: goal"]
    by_torch, by_onnx = (
        tunesmith.predict(run, texts, overrides=[f"generate.engine={name}"]) for name in ("torch", "onnx")
    )
    assert by_torch == by_onnx
    assert caplog.text.count("computed by ONNX Runtime") == 1
    session = chat.chat(run, ["generate.engine=onnx"])
    assert isinstance(session.generator.model, GraphModel)
    assert "".join(session.ask(texts[0])) == by_torch[0]["response"]
    assert isinstance(serve.engine(run, Serve(engine="onnx")).model, GraphModel)
    assert not isinstance(serve.engine(run, Serve()).model, GraphModel)
    judge = judge_models.LocalJudge(str(run.path), Recipe(), "run")
    change_report(run, "onnx", speed=2.0, rows=50, same_responses=1.0)
    assert isinstance(judge._generator.model, GraphModel)


def test_an_engine_that_is_missing_says_how_to_make_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(monkeypatch, "llama_cpp")
    with pytest.raises(MissingExtra, match=r"generate\.engine=llama-cpp needs llama\.cpp\n.*tunesmith\[llama-cpp\]"):
        engines.load_generator(run, "llama-cpp")
    bare = instruct(tiny.generator("llama", tmp_path / "model"), tmp_path / "bare")
    with pytest.raises(RunError, match=r"has no gguf export\n.*--to gguf, or generate\.engine=torch"):
        engines.load_generator(bare, "llama-cpp")
    reviews = write_csv(tmp_path / "reviews.csv", tiny.texts(240))
    labels = classify(tmp_path / "model", reviews, tmp_path / "labels", method="generator")
    with pytest.raises(RunError, match=r"with responses\n.*that classifies"):
        engines.load(labels, "llama-cpp", "serve.engine")
    with pytest.raises(RunError, match="is not a text generator"):
        engines.load_generator(labels, "torch")


@pytest.fixture
def by_llama_cpp(run: Run) -> tuple[Any, Any]:
    """The run's generator by torch, and by llama.cpp in float32."""
    pytest.importorskip("llama_cpp")
    if json.loads((run.path / "export/gguf/parity.json").read_text())["precision"] != "float32":
        proof = tunesmith.export(run, "gguf", precision="float32")
        assert proof.same_responses == 1
        assert proof.engine.startswith("llama.cpp")
        assert proof.speed is not None
    return engines.load_generator(run), engines.load_generator(run, "llama-cpp")


@pytest.mark.real
def test_llama_cpp_answers_like_the_run(run: Run, by_llama_cpp: tuple[Any, Any]) -> None:
    ours, theirs = by_llama_cpp
    rows = held_out(run)
    names, asked = [row.id for row in rows], [row.messages[:-1] for row in rows]
    asked[1] = [Message("user", "Say it again. " * 20)]  # the cache has to grow
    settings = run.recipe.generate.model_copy(update={"max_new_tokens": 60})
    expected = ours.respond(names, asked, settings, 3)
    assert theirs.respond(names, asked, settings, 3) == expected
    one_by_one = settings.model_copy(update={"batch_size": 1})
    assert theirs.respond(names, asked, one_by_one, 3) == expected
    assert "".join(theirs.stream(asked[0], settings, 3)) == expected[0].text
    stream = theirs.stream(asked[0], settings, 3)
    next(stream)
    stream.close()
    sampled = settings.model_copy(update={"do_sample": True, "temperature": 0.8, "max_new_tokens": 12})
    assert theirs.samples(asked[:2], 5, sampled, 1) == ours.samples(asked[:2], 5, sampled, 1)
    assert theirs.samples(asked[:1], 2, sampled, 1) != theirs.samples(asked[:1], 2, sampled, 2)
    whole = [row.messages for row in rows]
    for one, other in zip(ours.losses(names, whole), theirs.losses(names, whole), strict=True):
        assert one == pytest.approx(other, rel=1e-2)
    ids_2T, mask_2T = torch.arange(24).reshape(2, 12), torch.ones(2, 12)
    mask_2T[1, 9:] = 0
    for row, length in ((0, 12), (1, 9)):
        logits = [
            model(input_ids=ids_2T, attention_mask=mask_2T).logits[row, :length] for model in (ours.model, theirs.model)
        ]
        assert torch.allclose(*logits, atol=1e-2)


@pytest.mark.real
def test_a_damaged_file_is_no_model(by_llama_cpp: tuple[Any, Any], run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    by_llama_cpp[1].model.save_pretrained(folder)
    content = (folder / "model.gguf").read_bytes()
    (folder / "model.gguf").write_bytes(content[: len(content) // 2])
    (folder / "hashes.json").unlink()  # which would tell it too
    with pytest.raises(ModelError, match=r"llama\.cpp cannot read"):
        Generator.load(folder)
