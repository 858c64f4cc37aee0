"""`tunesmith serve` of runs of tasks `multilabel` and `regression`: what is served is what `predict` says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tests import tiny
from tests.serving_fakes import client, error, loaded, run as wait_for
from tests.small_runs import learn
from tunesmith import runs
from tunesmith.errors import RecipeError
from tunesmith.pipeline.multilabel_runs import Thresholds
from tunesmith.recipe import Serve
from tunesmith.serving import app

TEXTS = [text for text, _ in tiny.texts(8, seed=5)] + ["goal " * 200]
METHODS = ("linear", "probe", "encoder")


def test_every_method_of_every_task_is_served_as_it_predicts(tmp_path: Path) -> None:
    model = tiny.model("bert", tmp_path / "bert")
    tags = {method: learn("multilabel", method, tmp_path / f"tags-{method}", model) for method in METHODS}
    numbers = {method: learn("regression", method, tmp_path / f"numbers-{method}", model) for method in METHODS}
    handlers = loaded([*tags.values(), *numbers.values()], Serve(max_batch_tokens=64))

    async def main() -> None:
        async with client(app.create(handlers)) as http:

            async def ask(name: str, **more: Any) -> list[dict[str, Any]]:
                answer = await http.post("/predict", json={"inputs": TEXTS, "model": name} | more)
                predictions: list[dict[str, Any]] = answer.json()["predictions"]
                assert [row["cut"] for row in predictions] == [False] * 8 + ["linear" not in name]
                return predictions

            cards = {card["id"]: card for card in (await http.get("/v1/models")).json()["data"]}
            for run in tags.values():
                name, expected = run.path.name, tunesmith.predict(run, TEXTS, top_k=3)
                for row, told in zip(await ask(name), expected, strict=True):
                    assert row["labels"] == told["labels"]
                    assert row["scores"] == pytest.approx(told["scores"], abs=1e-5)
                assert [len(row["scores"]) for row in await ask(name, top_k=1)] == [1] * 9
                assert cards[name]["task"] == "multilabel"
                assert cards[name]["thresholds"] == run.load("thresholds.json", Thresholds).by_label
            for run in numbers.values():
                name, expected = run.path.name, tunesmith.predict(run, TEXTS)
                values = [row["value"] for row in await ask(name)]
                assert values == pytest.approx([row["value"] for row in expected], rel=1e-5)
                assert 800 < min(values) < max(values) < 1400
                assert cards[name]["task"] == "regression"
            refused = await http.post("/predict", json={"inputs": "a", "model": "numbers-linear", "top_k": 1})
            assert error(refused)["param"] == "top_k"

    wait_for(main())


def test_pairs_of_texts_have_a_number(tmp_path: Path) -> None:
    rows = [{"a": text, "b": f"{text} {n % 4}", "label": n % 4} for n, (text, _) in enumerate(tiny.texts(120))]
    (tmp_path / "pairs.json").write_text(json.dumps(rows))
    data = {"path": str(tmp_path / "pairs.json"), "text": "a", "text_pair": "b"}
    source = {"task": "regression", "method": "linear", "data": data}
    run = tunesmith.train(source, ["bootstrap_samples=100"], run_dir=tmp_path / "run", quiet=True)
    handlers = loaded([run], Serve.model_validate({"guard": {"mask": ["email"]}}))
    (expected,) = tunesmith.predict(run, "the goal", text_pairs="the goal 3")

    async def main() -> None:
        async with client(app.create(handlers)) as http:
            body = {"inputs": {"text": "the goal", "text_pair": "the goal 3"}}
            (row,) = (await http.post("/predict", json=body)).json()["predictions"]
            assert row["value"] == pytest.approx(expected["value"])
            refused = await http.post("/predict", json={"inputs": "the goal"})
            assert error(refused)["message"] == "input 0: this model expects text and text_pair"

    wait_for(main())


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_the_guard_classifies(task: str, tmp_path: Path) -> None:
    """Its thresholds are for one label a text."""
    run = learn(task, "linear", tmp_path / "run", tmp_path / "none")
    guard = {"classifier": str(run.path), "thresholds": {"sport": 0.6}}
    with pytest.raises(RecipeError, match=rf"a run of task classification\n.*found: +task {task}"):
        loaded([run], Serve.model_validate({"guard": guard}))


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_an_export_is_served_as_the_run(task: str, tmp_path: Path) -> None:
    run = learn(task, "encoder", tmp_path / "run", tiny.model("bert", tmp_path / "bert"))
    tunesmith.export(run, "onnx")
    handlers = loaded([runs.find(run.path)], Serve(engine="onnx"))
    assert type(handlers.live["run"].served.classifier).__name__ == "StandaloneClassifier"
    expected = tunesmith.predict(run, TEXTS, engine="torch")

    async def main() -> None:
        async with client(app.create(handlers)) as http:
            predictions = (await http.post("/predict", json={"inputs": TEXTS})).json()["predictions"]
            if task == "multilabel":
                assert [row["labels"] for row in predictions] == [row["labels"] for row in expected]
            else:
                values = [row["value"] for row in predictions]
                assert values == pytest.approx([row["value"] for row in expected], rel=1e-5)

    wait_for(main())
