"""Causal language models as graphs with a key-value cache: the run's logits, however computed, and run.py."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import tiny_generators
from tunesmith.errors import ModelError, RunError
from tunesmith.exporting import onnx, parity, targets
from tunesmith.exporting.parity import ParityReport
from tunesmith.exporting.source import Exported
from tunesmith.models.graphs import GraphModel
from tunesmith.prediction.generate import Generator
from tunesmith.recipe import Generate
from tunesmith.types import Message

QUESTIONS = ["Why?", "Name three primary colours, please.", "Translate the text.", "Be brief, and say who you are."]
SETTINGS = Generate(max_new_tokens=12)
SAMPLED = Generate(max_new_tokens=12, do_sample=True, temperature=1.2, top_k=60, top_p=0.95, repetition_penalty=1.3)


def compared(generator: Generator, exported: Exported) -> ParityReport:
    rows = [generator.answer_greedily([Message("user", question)], SETTINGS) for question in QUESTIONS]
    assert len({row.start for row in rows}) == len(rows)
    facts: dict[str, Any] = {"target": "x", "precision": "auto", "size_mb": 1.0, "run_size_mb": 1.0}
    report = parity.compare(generator.logits, exported, rows, **facts)
    assert exported.generator is not None
    return parity.with_responses(report, generator, exported.generator, rows, SETTINGS)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """(target, family) -> generator, its export as it was read back, and the folder."""

    @functools.cache
    def write(target: str, family: str = "llama") -> tuple[Generator, Exported, Path]:
        folder = tmp_path_factory.mktemp(f"{family}-{target}")
        layers = (
            {} if family in ("llama", "gpt2") else {"num_hidden_layers": 1}
        )  # tracing takes as long as they are many
        generator = tiny_generators.generator(family, **layers)
        return generator, targets.find(target)(tiny_generators.export_source(generator, SETTINGS), folder), folder

    return write


@pytest.mark.parametrize("family", ["gpt2", "opt", "gpt_neox", "llama", "qwen2", "qwen3"])
def test_an_onnx_graph_has_the_logits_of_its_run(family: str, written: Callable[..., Any]) -> None:
    generator, exported, _ = written("onnx", family)
    report = compared(generator, exported)
    assert report.differences is not None
    assert set(report.differences) == {"whole", "decode", "batch"}
    assert max(report.differences.values()) <= 1e-5 * report.largest_logit
    assert report.agreement == report.same_answers == report.same_responses == 1
    assert report.compared > 4


@pytest.mark.parametrize("target", ["torch-export", "torchscript"])
def test_torch_programs_have_the_logits_of_their_run(target: str, written: Callable[..., Any]) -> None:
    for family in ("gpt2", "opt", "gpt_neox", "llama", "qwen2", "qwen3"):
        if target == "torchscript" or family in ("gpt2", "llama"):
            generator, exported, _ = written(target, family)
            report = compared(generator, exported)
            assert report.max_logit_difference <= 1e-5 * report.largest_logit
            assert report.agreement == report.same_responses == 1


@pytest.mark.parametrize("family", ["gpt2", "opt", "gpt_neox", "llama", "qwen2", "qwen3"])
def test_an_openvino_graph_has_the_logits_of_its_run(family: str, written: Callable[..., Any]) -> None:
    pytest.importorskip("openvino")
    generator, exported, folder = written("openvino", family)
    report = compared(generator, exported)
    assert report.max_logit_difference <= 1e-5 * report.largest_logit  # bfloat16 would be 1e-2
    assert report.agreement == report.same_answers == report.same_responses == 1
    if family == "gpt2":
        said = run_py(folder, "--chat", without=("torch", "transformers", "tunesmith"), told="Why?\nWho?\n")
        first, second = said.splitlines()
        assert first == generator.respond(["1"], [[Message("user", "Why?")]], SETTINGS, 42)[0].text
        turns = [Message("user", "Why?"), Message("assistant", first), Message("user", "Who?")]
        assert second == generator.respond(["1"], [turns], SETTINGS, 42)[0].text


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_eight_bits_keep_the_answers(family: str, written: Callable[..., Any]) -> None:
    generator, exported, folder = written("onnx-int8", family)
    report = compared(generator, exported)
    assert not report.exact
    assert 1e-4 * report.largest_logit < report.max_logit_difference < 0.02 * report.largest_logit
    assert report.differences is not None
    assert max(report.differences.values()) < 1.01 * min(report.differences.values())  # activations are not rounded
    whole = written("onnx", family)[2]
    sizes = [(place / "model.onnx.data").stat().st_size for place in (folder, whole)]
    assert sizes[0] < 0.65 * sizes[1]
    loaded = Generator.load(folder)
    said = run_py(folder, QUESTIONS[1], without=("torch", "transformers", "tunesmith"))
    (expected,) = loaded.respond(["1"], [[Message("user", QUESTIONS[1])]], SETTINGS, 42)
    assert said == expected.text + "\n"


def test_openvino_reports_no_use(tmp_path: Path) -> None:
    """By itself, importing it writes a client id into the home folder and tells its makers."""
    pytest.importorskip("openvino")
    code = "from tunesmith.models import openvino_import; openvino_import.module()"
    environment = {name: value for name, value in os.environ.items() if name != "CI"} | {"HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert not list(tmp_path.iterdir())


def test_the_graph_is_known_to_other_software(written: Callable[..., Any]) -> None:
    """Names of inputs and outputs are Optimum's, and every length is dynamic."""
    import onnxruntime

    _, _, folder = written("onnx")
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    cache = [f"{layer}.{name}" for layer in range(2) for name in ("key", "value")]
    shapes = {entry.name: entry.shape for entry in session.get_inputs()}
    assert list(shapes) == ["input_ids", "attention_mask", "position_ids", "logits_to_keep"] + [
        f"past_key_values.{name}" for name in cache
    ]
    assert [entry.name for entry in session.get_outputs()] == ["logits", *(f"present.{name}" for name in cache)]
    assert all(isinstance(length, str) for name in ("input_ids", "attention_mask") for length in shapes[name])


def test_a_graph_is_a_text_generator_with_the_same_seeds(written: Callable[..., Any]) -> None:
    generator, _, folder = written("onnx")
    loaded = Generator.load(folder)
    assert isinstance(loaded.model, GraphModel)
    conversations = [[Message("user", question)] for question in QUESTIONS]
    for settings in (SETTINGS, SAMPLED):
        answers = generator.respond(QUESTIONS, conversations, settings, 7)
        assert loaded.respond(QUESTIONS, conversations, settings, 7) == answers
        assert "".join(loaded.stream(conversations[1], settings, 7)) == answers[1].text
        samples = [one.samples(conversations[:2], 3, settings, 7) for one in (loaded, generator)]
        assert samples[0] == samples[1]
    whole = [[*turns, Message("assistant", "Because.")] for turns in conversations]
    ours, theirs = (one.losses(QUESTIONS, whole) for one in (generator, loaded))
    assert np.allclose(ours, theirs, rtol=1e-5)
    assert loaded.context_length == generator.context_length
    loaded.save(folder.parent / "copy")
    assert Generator.load(folder.parent / "copy").respond(["1"], conversations[:1], SETTINGS, 0) == loaded.respond(
        ["1"], conversations[:1], SETTINGS, 0
    )


def run_py(folder: Path, *arguments: str, without: tuple[str, ...], told: str = "") -> str:
    """What run.py writes where some packages cannot be imported."""
    block = "".join(f"sys.modules[{name!r}] = None; " for name in without)
    code = f"import runpy, sys; {block}sys.argv = sys.argv[1:]; runpy.run_path('run.py', run_name='__main__')"
    command = [sys.executable, "-W", "ignore", "-c", code, "run.py", *arguments]
    done = subprocess.run(command, cwd=folder, input=told, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def options(settings: Generate, seed: int) -> list[str]:
    """The settings as run.py takes them."""
    given = settings.model_dump(exclude={"batch_size", "engine"})
    return [text for name, value in given.items() for text in (f"--{name}", json.dumps(value))] + ["--seed", str(seed)]


@pytest.mark.parametrize("settings", [SETTINGS, SAMPLED])
def test_run_py_answers_as_the_run_does(settings: Generate, written: Callable[..., Any]) -> None:
    generator, _, folder = written("onnx")
    assert len((folder / "run.py").read_text(encoding="utf-8").splitlines()) <= 120
    said = run_py(
        folder,
        QUESTIONS[2],
        "--input",
        "Bonjour.",
        *options(settings, 7),
        without=("torch", "transformers", "tunesmith"),
    )
    (expected,) = generator.respond(["1"], [[Message("user", QUESTIONS[2], "Bonjour.")]], settings, 7)
    assert said == expected.text + "\n"
    assert expected.text


def test_run_py_goes_on_with_its_cache(written: Callable[..., Any]) -> None:
    generator, _, folder = written("onnx", "gpt2")
    said = run_py(folder, "--chat", without=("torch", "transformers", "tunesmith"), told="Why?\nWho?\n")
    first = generator.respond(["1"], [[Message("user", "Why?")]], SETTINGS, 42)[0].text
    turns = [Message("user", "Why?"), Message("assistant", first), Message("user", "Who?")]
    second = generator.respond(["1"], [turns], SETTINGS, 42)[0].text
    assert said == f"{first}\n{second}\n"
    assert first


def test_run_py_shows_shots(tmp_path: Path) -> None:
    plain = tiny_generators.generator("gpt2")
    shots = ((Message("user", "One?"), Message("assistant", "Yes.", learned=False)),)
    generator = replace(plain, chat_encoder=replace(plain.chat_encoder, shots=shots))
    targets.find("onnx")(tiny_generators.export_source(generator, SETTINGS), tmp_path)
    said = run_py(tmp_path, "Why?", without=("torch", "transformers", "tunesmith"))
    (expected,) = generator.respond(["1"], [[Message("user", "Why?")]], SETTINGS, 42)
    assert said == expected.text + "\n"
    again = Generator.load(tmp_path)
    for prompt in ([Message("user", "Why?")], [*shots[0], Message("user", "Two?")]):
        assert again.tokenize(prompt) == generator.tokenize(prompt)


@pytest.mark.parametrize("target", ["torch-export", "torchscript"])
def test_run_py_of_torch_programs(target: str, written: Callable[..., Any]) -> None:
    generator, _, folder = written(target)
    said = run_py(folder, QUESTIONS[1], without=("onnxruntime", "transformers", "tunesmith"))
    assert said == generator.respond(["1"], [[Message("user", QUESTIONS[1])]], SETTINGS, 42)[0].text + "\n"


def test_a_graph_of_a_language_model_is_no_classifier(written: Callable[..., Any]) -> None:
    _, _, folder = written("onnx")
    with pytest.raises(ModelError, match="is a language model"):
        onnx.load(folder)


def test_what_cannot_be_a_graph(tmp_path: Path) -> None:
    generator = tiny_generators.generator("llama")
    with pytest.raises(RunError, match="onnx cannot be written in float16"):
        onnx.onnx(tiny_generators.export_source(generator, SETTINGS, precision="float16"), tmp_path)
    generator.model.forward = lambda **_: 1 / 0
    with pytest.raises(ModelError, match="cannot be written as torchscript"):
        targets.find("torchscript")(tiny_generators.export_source(generator, SETTINGS), tmp_path)
