"""`tunesmith serve` with trained runs: what is served is what `predict` says; what cannot be served is told."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

import tunesmith
from tests import tiny
from tests.serving_fakes import client, loaded, message, post, run as wait_for
from tunesmith import cli, integrity, runs
from tunesmith.errors import MissingExtra, RecipeError, RunError
from tunesmith.pipeline.commands.serve import engine, load, named, version
from tunesmith.recipe import Serve
from tunesmith.serving import app, model_cards, server
from tunesmith.types import Example

QUICK = ["evaluate.bootstrap_samples=100", "engine.save_strategy=no"]


@pytest.fixture
def linear(reviews: Path, tmp_path: Path) -> Path:
    recipe = {"method": "linear", "data": {"path": str(reviews)}}
    return Path(tunesmith.train(recipe, overrides=QUICK, run_dir=tmp_path / "linear").path)


def train(tmp_path: Path, name: str, recipe: dict[str, Any]) -> Path:
    return Path(tunesmith.train(recipe, overrides=QUICK, run_dir=tmp_path / name).path)


def encoder(tmp_path: Path, reviews: Path, model: Path) -> Path:
    recipe = {"data": {"path": str(reviews)}, "model": {"name_or_path": str(model), "max_length": 24}}
    return train(tmp_path, "encoder", recipe | {"train": {"max_steps": 2}})


def probe(tmp_path: Path, reviews: Path, model: Path) -> Path:
    recipe = {"method": "probe", "data": {"path": str(reviews)}}
    return train(tmp_path, "probe", recipe | {"model": {"name_or_path": str(model), "max_length": 24}})


def assistant(tmp_path: Path) -> Path:
    pairs = [{"instruction": f"Say {n}", "output": f"it is {n}"} for n in range(24)]
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    recipe = {
        "task": "instruction",
        "data": {"path": str(tmp_path / "pairs.json")},
        "train": {"max_steps": 1},
        "model": {"name_or_path": str(tiny.generator("llama", tmp_path / "llama")), "max_length": 256},
        "generate": {"max_new_tokens": 8},
        "evaluate": {"max_responses": 0, "num_samples": 0},
    }
    return train(tmp_path, "assistant", recipe)


def labeller(tmp_path: Path, reviews: Path) -> Path:
    recipe = {
        "method": "generator",
        "data": {"path": str(reviews)},
        "train": {"max_steps": 1},
        "split": {"max_samples": 30},
        "model": {"name_or_path": str(tiny.generator("llama", tmp_path / "llama2")), "max_length": 256},
    }
    return train(tmp_path, "labeller", recipe)


def test_every_method_is_served_as_it_predicts(
    tmp_path: Path, reviews: Path, linear: Path, tiny_models: Callable[[str], Path]
) -> None:
    model = tiny_models("bert")
    labelling = [
        linear,
        encoder(tmp_path, reviews, model),
        probe(tmp_path, reviews, model),
        labeller(tmp_path, reviews),
    ]
    made = [*labelling, talking := assistant(tmp_path)]
    handlers = loaded([runs.find(path) for path in made], Serve(max_batch_tokens=64))
    texts = [text for text, _ in tiny.texts(8, seed=5)] + ["goal " * 40]

    async def main() -> None:
        async with client(app.create(handlers)) as one:
            for path in labelling:
                alone = tunesmith.predict(path, texts, top_k=3)
                answer = (await one.post("/predict", json={"inputs": texts, "model": path.name})).json()
                single = [(await one.post("/predict", json={"inputs": t, "model": path.name})).json() for t in texts]
                singles = [row["predictions"][0] for row in single]
                for expected, *found in zip(alone, answer["predictions"], singles, strict=True):
                    for row in found:
                        assert row["label"] == expected["label"]
                        assert row["scores"] == pytest.approx(expected["scores"], abs=1e-5)
                assert [row["cut"] for row in singles] == [False] * 8 + [path.name in ("encoder", "probe")]
                body = {"text": texts[0], "model": path.name, "label": "tech"}
                (explained,) = (await one.post("/explain", json=body)).json()["explanations"]
                (expected,) = tunesmith.explain(path, texts[0], label="tech")
                assert (explained["label"], explained["method"]) == ("tech", expected.method)
                contributions = [word.contribution for word in expected.words]
                assert [word["contribution"] for word in explained["words"]] == pytest.approx(contributions, abs=1e-4)
            prompts = ["Say 3", "Say it all", "?"]
            answers = tunesmith.predict(talking, prompts)
            for prompt, expected in zip(prompts, answers, strict=True):
                body = {"messages": message(prompt), "model": "assistant"}
                whole = (await one.post("/v1/chat/completions", json=body)).json()
                assert whole["choices"][0]["message"]["content"] == expected["response"]
                assert whole["usage"]["completion_tokens"] == expected["tokens"]
                assert whole["choices"][0]["finish_reason"] == ("stop" if expected["ended"] else "length")
                streamed = await one.post("/v1/chat/completions", json=body | {"stream": True})
                chunks = [json.loads(line[6:]) for line in streamed.text.splitlines() if line.startswith("data: {")]
                text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
                assert text == expected["response"]
            shown = (await one.post("/prompt", json={"messages": message("Say 3"), "model": "assistant"})).json()
            assert "### Instruction:\nSay 3\n\n### Response:\n" in shown["prompt"]
            shown = (await one.post("/prompt", json={"input": {"text": "goal"}, "model": "labeller"})).json()
            assert "goal" in shown["prompt"]

    wait_for(main())


def test_a_run_as_guard_of_another(linear: Path) -> None:
    guard = {"classifier": str(linear), "thresholds": {"sport": 0.6}}
    handlers = loaded([runs.find(linear)], Serve.model_validate({"guard": guard}))

    async def main() -> None:
        async with client(app.create(handlers)) as one:
            assert (await one.post("/predict", json={"inputs": "a robot with data and code"})).status_code == 200
            answer = await one.post("/predict", json={"inputs": "the goal of the team and the coach"})
            assert answer.json()["error"]["message"] == "the input was blocked by the guard: sport"

    wait_for(main())
    wrong = Serve.model_validate({"guard": {"classifier": str(linear), "thresholds": {"rude": 0.6}}})
    with pytest.raises(RecipeError, match="rude"):
        loaded([runs.find(linear)], wrong)


def test_the_fastest_export_that_holds_computes(
    reviews: Path,
    linear: Path,
    tmp_path: Path,
    tiny_models: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`auto`: of exports in the run, if they were faster and said what the run says; else torch. All label alike."""
    folder = encoder(tmp_path, reviews, tiny_models("bert"))
    found = runs.find(folder)
    plain = engine(found, Serve()).predict(rows := [Example("1", "the goal of the team"), Example("2", "w " * 99)])
    tunesmith.export(folder, "onnx")
    exported = engine(found, Serve(engine="onnx"))
    assert type(exported).__name__ == "StandaloneClassifier"
    for one, other in zip(plain, exported.predict(rows), strict=True):
        assert one.label == other.label
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
    file = folder / "export" / "onnx" / "parity.json"
    proof = json.loads(file.read_text())

    def prove(change: dict[str, float]) -> None:
        file.write_text(json.dumps(proof | {"speed": 2.0} | change))
        (file.parent / "hashes.json").write_text(json.dumps(integrity.hashes(file.parent)))

    for change, kind in (
        ({"speed": 2.0}, True),
        ({"speed": 0.5}, False),
        ({"agreement": 0.9}, False),
        ({"rows": 1}, False),
    ):
        prove(change)
        assert (type(engine(found, Serve())) is type(exported)) is kind
    prove({"agreement": 0.995, "exact": False})
    assert type(engine(found, Serve())) is type(exported)
    capsys.readouterr()
    assert tunesmith.predict(found, rows[0].text)[0]["label"] == plain[0].label
    assert "computed by" not in capsys.readouterr().err, "predict only takes an export that gave every label of the run"
    prove({})
    assert tunesmith.predict(found, rows[0].text)[0]["label"] == plain[0].label
    assert f"computed by ONNX Runtime, from {file.parent}" in capsys.readouterr().err
    tunesmith.predict(found, rows[0].text, engine="torch")
    assert "computed by" not in capsys.readouterr().err
    with pytest.raises(RecipeError, match=r"--engine=cuda: no such engine\n.*auto, torch, onnx"):
        tunesmith.predict(found, rows[0].text, engine="cuda")
    with monkeypatch.context() as without:
        without.setattr("importlib.util.find_spec", lambda name: None)
        assert type(engine(found, Serve())) is not type(exported)
    with pytest.raises(RunError, match="no onnx-int8 export"):
        engine(found, Serve(engine="onnx-int8"))
    guard = {"classifier": str(linear), "thresholds": {"sport": 0.6}}  # the guard takes its own engine, and any length
    judge = loaded(
        [found], Serve.model_validate({"engine": "onnx", "max_input_tokens": 9, "guard": guard})
    ).guard_classifier
    assert (type(judge.classifier).__name__, judge.max_input_tokens) == ("LinearPredictor", None)

    async def main() -> None:
        async with client(app.create(loaded([found], Serve()))) as one:
            answer = await one.post("/predict", json={"inputs": [row.text for row in rows]})
            assert [each["label"] for each in answer.json()["predictions"]] == [each.label for each in plain]

    wait_for(main())


def test_what_cannot_be_served_is_told(
    linear: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = runs.find(linear)
    assert engine(found, Serve()).labels == engine(found, Serve(engine="torch")).labels
    with pytest.raises(
        RunError,
        match=r"method probe, encoder, encoder:contrastive, generator\n.*a linear run\n.*serve\.engine=auto",
    ):
        engine(found, Serve(engine="onnx-int8"))
    with pytest.raises(RunError, match="two runs are called linear"):
        loaded([found, found], Serve())
    with pytest.raises(RecipeError, match="no key"):
        server.keys(Serve(host="0.0.0.0"))
    assert server.keys(Serve(host="localhost")) == server.keys(Serve(host="::1")) == []
    monkeypatch.setenv("TUNESMITH_KEYS", "one, two")
    (tmp_path / "keys").write_text("three\n\n")
    assert server.keys(Serve(host="0.0.0.0", key_file=str(tmp_path / "keys"))) == ["one", "two", "three"]
    with pytest.raises(RecipeError, match="audit_log"):
        loaded([found], Serve.model_validate({"guard": {"mask": ["email"], "audit_log": str(tmp_path)}}))
    for words in (["serve", "port=1"], ["serve", "nowhere"], ["serve", str(linear), "serve.prt=1"]):
        assert cli.main(words) == 2
    with server.listen(Serve(port=0)) as taken:
        taken.listen()
        assert cli.main(["serve", str(linear), f"port={taken.getsockname()[1]}"]) == 2
        assert "choose another serve.port" in capsys.readouterr().err
    monkeypatch.delattr("tunesmith.serving.app")
    monkeypatch.setitem(sys.modules, "tunesmith.serving.app", None)
    with pytest.raises(MissingExtra, match=r"tunesmith\[serve\]"):
        tunesmith.serve([linear])


def test_names_and_versions(linear: Path, reviews: Path, tmp_path: Path) -> None:
    """Two runs from folders of the same name, side by side; each response tells which version it is from."""
    other = {"method": "linear", "data": {"path": str(reviews)}, "linear": {"lowercase": False}}
    second = Path(tunesmith.train(other, overrides=QUICK, run_dir=tmp_path / "again" / "linear").path)
    (tmp_path / "current").symlink_to(linear)
    sources = [f"a={linear}", f"b-2.0={second}", tmp_path / "current", second]
    paths = named(sources)
    assert list(paths) == ["a", "b-2.0", "current", "linear"]
    shutil.copytree(linear, tmp_path / "copy")
    first = version(runs.find(linear))
    assert re.fullmatch("[0-9a-f]{12}", first)
    other_version = version(runs.find(second))
    assert first == version(runs.find(tmp_path / "copy")) != other_version
    handlers = load(paths, Serve())
    made = app.create(handlers)
    cards = {card.id: (card.version, card.run) for card in model_cards.listing(handlers.live.served).data}
    versions = {"a": first, "b-2.0": other_version, "current": first, "linear": other_version}
    assert cards == {name: (each, "linear") for name, each in versions.items()}
    for name, each in versions.items():
        for path, body in (("/predict", {"inputs": "goal"}), ("/explain", {"text": "goal"})):
            answer = post(made, path, body | {"model": name})
            assert (answer.json()["model"], answer.json()["version"]) == (name, each)
            assert answer.headers["x-model-version"] == each
    assert "x-model-version" not in post(made, "/predict", {"inputs": "a", "model": "c"}).headers
    handlers.close()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["a={run}", "a={run}"], "two runs are called a"),
        (["{run}", "linear={run}"], "two runs are called linear"),
        (["a b={run}"], "a b cannot be the name of a model"),
        (["={run}"], "nothing cannot be the name of a model"),
        (["../a={run}"], "../a cannot be the name of a model"),
        (["a=nowhere"], "nowhere is not a run directory, and a is no setting of serve"),
        (["{run}", "prt=1"], "1 is not a run directory, and prt is no setting of serve"),
        (["{run}", "serve.prt=1"], "prt"),
        (["{run}", "guard.msk=1"], "guard.msk"),
        (["port=0"], "nothing to serve"),
    ],
)
def test_wrong_names_are_told(words: list[str], problem: str, linear: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", *(word.format(run=linear) for word in words)]) == 2
    assert problem in capsys.readouterr().err


def test_runs_are_served_as_python_has_them(linear: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path or a run stands for a list of one, and a run for its path."""
    served: list[list[str]] = []
    monkeypatch.setattr(server, "run", lambda made, *_: served.append([*made.app.openapi()["paths"]]))
    run = tunesmith.load_run(linear)
    for given in (str(linear), linear, run, [run]):
        tunesmith.serve(given, ["port=0"])
    assert len(served) == 4
    assert all("/predict" in paths for paths in served)
    with pytest.raises(RunError, match="nowhere is not a run directory"):
        tunesmith.serve("nowhere")


def test_what_was_served_is_let_go(linear: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, models = set(threading.enumerate()), set()
    monkeypatch.setattr(server, "run", lambda *_: models.update(set(threading.enumerate()) - before))
    tunesmith.serve([linear], ["port=0"])
    (model,) = models
    assert model.name == "model linear"
    model.join(5)
    assert not model.is_alive()


def test_the_command(linear: Path, tmp_path: Path) -> None:
    (tmp_path / "serve.yaml").write_text("serve: {port: 0, max_inputs: 2}\n")
    words = [sys.executable, "-m", "tunesmith", "serve", str(linear), "--recipe", "serve.yaml", "batch_wait_ms=0"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    try:
        assert process.stderr
        lines = [process.stderr.readline() for _ in range(2)]
        address = lines[1].split(" at ")[1].split(" ")[0]
        for _ in range(100):
            try:
                answer = httpx.post(f"{address}/predict", json={"inputs": "the goal of the team"})
                break
            except httpx.ConnectError:
                time.sleep(0.1)
        assert answer.json()["predictions"][0]["label"] == "sport"
        assert httpx.post(f"{address}/predict", json={"inputs": ["a"] * 3}).status_code == 400
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.communicate()
