"""Generators of tasks multilabel and regression: runs of every variant, resumed, compared; and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tests import power_cut, tiny
from tests.conftest import write_csv
from tunesmith.errors import DataError, RecipeError
from tunesmith.evaluation.multilabel_scores import MultilabelScores
from tunesmith.evaluation.value_scores import RegressionScores
from tunesmith.pipeline.commands.check import check, describe
from tunesmith.pipeline.commands.serve import _served
from tunesmith.pipeline.multilabel_runs import Thresholds
from tunesmith.recipe import Serve
from tunesmith.runs import Run
from tunesmith.types import Example, MultilabelPredictionRow, ValuePredictionRow

TOPICS = tuple(tiny.WORDS)
UNTUNED = ["max_steps=null", "num_train_epochs=0"]
QUICK = ["bootstrap_samples=100", "max_steps=4", "learning_rate=1e-2", "logging_steps=1"]


@pytest.fixture(scope="session")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 texts of two topics, of one, or of none."""
    one, other = tiny.texts(90), tiny.texts(90, seed=1, labels=TOPICS[::-1])
    rows: list[dict[str, Any]] = []
    for n in range(90):
        if n % 5 == 0:
            rows.append({"text": f"the old and the new {n}", "labels": []})
        elif n % 2:
            rows.append({"text": one[n][0], "labels": [one[n][1]]})
        else:
            labels = sorted({one[n][1], other[n][1]})
            rows.append({"text": f"{one[n][0]} {other[n][0]}", "labels": labels})
    path = tmp_path_factory.mktemp("tagged") / "tagged.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="session")
def stars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 texts whose topic decides their number: 1, 2.5 or 4."""
    rows = [(text, f"{1 + 1.5 * TOPICS.index(label):g}") for text, label in tiny.texts(90)]
    return write_csv(tmp_path_factory.mktemp("stars") / "stars.csv", rows)


def multilabel(model: Path, tagged: Path, *overrides: str, **where: Any) -> Run:
    source = {"task": "multilabel", "method": "generator", "data": {"path": str(tagged), "label": "labels"}}
    return tunesmith.train(source | {"model": {"name_or_path": str(model)}}, [*QUICK, *overrides], **where)


def regression(model: Path, stars: Path, *overrides: str, **where: Any) -> Run:
    source = {"task": "regression", "method": "generator", "data": {"path": str(stars)}}
    return tunesmith.train(source | {"model": {"name_or_path": str(model)}}, [*QUICK, *overrides], **where)


@pytest.mark.parametrize("mode", ["score", "free"])
@pytest.mark.parametrize("variant", ["untuned", "full", "lora"])
def test_every_variant_predicts_sets_of_labels(
    variant: str, mode: str, model: Path, tagged: Path, tmp_path: Path
) -> None:
    overrides = UNTUNED if variant == "untuned" else [f"adapter.kind={'lora' if variant == 'lora' else 'none'}"]
    run = multilabel(model, tagged, f"predict.mode={mode}", *overrides, run_dir=tmp_path / "run")
    assert run.manifest.name == f"generator:{variant}"
    scores = run.load("scores.json", MultilabelScores)
    assert scores == tunesmith.evaluate(run.path)  # computed again from the stored predictions
    rows = run.predictions("test", MultilabelPredictionRow)
    if mode == "free":
        assert not any(row.probabilities for row in rows)
        assert not run.has("thresholds.json")
    else:
        thresholds = run.load("thresholds.json", Thresholds).by_label
        for row in rows:
            pairs = zip(scores.labels, row.probabilities, strict=True)
            assert set(row.labels) == {label for label, p in pairs if p >= thresholds[label]}
    found = {row["id"]: row["predicted_labels"] for row in tunesmith.predict(run.path, source=tagged)}
    assert [set(found[row.id]) for row in rows] == [set(row.labels) for row in rows]  # with the same thresholds
    assert isinstance(tunesmith.evaluate(run.path, data=tagged), MultilabelScores)
    for page in ("report.html", "report.md", "README.md"):
        assert "acro F1" in (run.path / page).read_text()


@pytest.mark.parametrize("variant", ["untuned", "full", "lora"])
def test_every_variant_predicts_numbers(variant: str, model: Path, stars: Path, tmp_path: Path) -> None:
    overrides = UNTUNED if variant == "untuned" else [f"adapter.kind={'lora' if variant == 'lora' else 'none'}"]
    run = regression(model, stars, *overrides, run_dir=tmp_path / "run")
    scores = run.load("scores.json", RegressionScores)
    assert scores == tunesmith.evaluate(run.path)
    rows = run.predictions("test", ValuePredictionRow)
    assert all(1 <= row.value <= 4 for row in rows)
    found = {row["id"]: row["predicted_value"] for row in tunesmith.predict(run.path, source=stars)}
    assert [found[row.id] for row in rows] == pytest.approx([row.value for row in rows], rel=1e-6)
    for page in ("report.html", "report.md", "README.md"):
        assert "RMSE" in (run.path / page).read_text()


LEARN = ["max_steps=120", "learning_rate=5e-3", "eval_strategy=no", "template=plain"]


@pytest.mark.parametrize(("mode", "metric"), [("score", "mean_average_precision"), ("free", "macro_f1")])
def test_labels_are_learned(mode: str, metric: str, words: Path, tagged: Path, tmp_path: Path) -> None:
    """By heart: of so few rows, other texts say little."""
    learned = multilabel(words, tagged, *LEARN, f"predict.mode={mode}", run_dir=tmp_path / "run").finished.train
    assert learned is not None
    assert learned[metric] > 0.6  # of all labels always, 0.35 and 0.5


def test_numbers_are_learned(words: Path, stars: Path, tmp_path: Path) -> None:
    run = regression(words, stars, *LEARN, "label_texts={1: sport, 2.5: tech, 4: world}", run_dir=tmp_path / "run")
    assert run.finished.train is not None
    assert run.finished.train["rmse"] < 0.5  # of the mean always, 1.22


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_killed_and_resumed_is_bit_identical(task: str, model: Path, tagged: Path, stars: Path, tmp_path: Path) -> None:
    train, data = (multilabel, tagged) if task == "multilabel" else (regression, stars)
    steps = ["max_steps=8", "save_strategy=steps", "save_steps=3", "eval_strategy=steps", "eval_steps=4"]
    whole = train(model, data, *steps, run_dir=tmp_path / "whole")
    with power_cut.at_step(7):
        train(model, data, *steps, run_dir=tmp_path / "half")
    half = tunesmith.train(resume=tmp_path / "half")
    names = ["scores.json", "metrics.jsonl", "model/model.safetensors", "model/prompt.json"]
    for name in names + ["thresholds.json"] * (task == "multilabel"):
        assert (half.path / name).read_bytes() == (whole.path / name).read_bytes()


def test_packed_and_padded_learn_the_same(model: Path, tagged: Path, tmp_path: Path) -> None:
    losses = []
    for layout in ("packed", "padded"):
        run = multilabel(model, tagged, f"engine.layout={layout}", run_dir=tmp_path / layout)
        assert run.finished.notes.layout.startswith(layout)
        losses.append([line.loss for line in run.metrics() if line.loss is not None])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize(
    ("task", "metric", "method"),
    [("multilabel", "macro F1", "generator:untuned"), ("regression", "RMSE", "generator:lora")],
)
def test_compared_with_other_methods(
    task: str, metric: str, method: str, model: Path, tagged: Path, stars: Path, tmp_path: Path
) -> None:
    data = {"path": str(tagged), "label": "labels"} if task == "multilabel" else {"path": str(stars)}
    source = {"task": task, "data": data, "model": {"generator": str(model)}}
    methods = ["linear", method]
    compared = tunesmith.compare(source, [*QUICK, "method=linear", f"output_dir={tmp_path}"], methods=methods)
    assert metric in compared.verdict
    report = json.loads((compared.page.parent / "comparison.json").read_text())
    assert [method["name"] for method in report["methods"]] == methods
    assert len(report["pairs"]) == 1


def test_pairs_of_texts(model: Path, stars: Path, tmp_path: Path) -> None:
    lines = stars.read_text().splitlines()[1:]
    rows = [
        {"text": line.rpartition(",")[0], "other": f"and {n}", "label": float(line.rpartition(",")[2])}
        for n, line in enumerate(lines)
    ]
    settings = ["data.text_pair=other", "data.label=label"]
    run = regression(model, write_json(tmp_path / "numbers.json", rows), *settings, run_dir=tmp_path / "numbers")
    (row,) = tunesmith.predict(run.path, ["one"], text_pairs=["two"])
    assert 1 <= row["value"] <= 4
    for each in rows:
        each["label"] = ["low"] if each["label"] < 3 else ["high", "very high"]
    run = multilabel(model, write_json(tmp_path / "sets.json", rows), *settings, run_dir=tmp_path / "sets")
    (row,) = tunesmith.predict(run.path, ["one"], text_pairs=["two"], top_k=3)
    assert set(row["scores"]) == {"low", "high", "very high"}


def write_json(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps(rows))
    return path


def test_check_shows_every_answer(model: Path, tagged: Path, stars: Path) -> None:
    source = {"method": "generator", "model": {"name_or_path": str(model)}}
    sets = check(source | {"task": "multilabel", "data": {"path": str(tagged), "label": "labels"}})
    assert sets.rendered is not None
    assert sets.tokens is not None
    assert sets.tokens.rows == 90
    prompt, answers = describe(sets).split("--- example")[1].split("### Response:\n")
    assert "Say of each of these labels whether it applies" in prompt
    assert sorted(line.partition(": ")[0] for line in answers.splitlines()) == sorted(TOPICS)
    assert all(line.endswith(("[[yes]]", "[[no]]")) for line in answers.splitlines())
    assert sets.rendered[0].learned == answers.count("yes") * 3 + answers.count("no") * 2
    numbers = check(source | {"task": "regression", "data": {"path": str(stars)}})
    assert "Rate the following text with one of these numbers: 1, 2.5, 4." in describe(numbers)


def test_what_does_not_suit_is_refused(model: Path, tagged: Path, stars: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"(?s)predict\.mode=constrained.*score or free"):
        multilabel(model, tagged, "predict.mode=constrained", run_dir=tmp_path / "a")
    with pytest.raises(RecipeError, match="huber, which is for task regression, but not by a generator"):
        regression(model, stars, "train.loss=huber", run_dir=tmp_path / "b")
    many = write_csv(tmp_path / "many.csv", [(text, str(n)) for n, (text, _) in enumerate(tiny.texts(90))])
    for overrides in ([], UNTUNED):
        with pytest.raises(DataError, match="too many different numbers"):
            regression(model, many, *overrides, run_dir=tmp_path / f"c{len(overrides)}")


def test_a_graph_predicts_as_the_run_does_and_is_served(model: Path, tagged: Path, stars: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    texts = [text for text, _ in tiny.texts(6)]
    for run, name in (
        (multilabel(model, tagged, run_dir=tmp_path / "labels"), "scores"),
        (regression(model, stars, run_dir=tmp_path / "numbers"), "value"),
    ):
        assert tunesmith.export(run.path, "onnx").same_answers == 1
        torch_rows, onnx_rows = (tunesmith.predict(run.path, texts, engine=engine) for engine in ("torch", "onnx"))
        for ours, theirs in zip(torch_rows, onnx_rows, strict=True):
            assert theirs[name] == pytest.approx(ours[name], abs=1e-5)
            assert theirs.get("labels") == ours.get("labels")
        served = _served("model", run.path, Serve())
        assert (served.task, served.prompted) == (run.recipe.task, True)
        predictions = served.classifier.predict([Example(str(n), text) for n, text in enumerate(texts)])
        known = [list(row["labels"]) if name == "scores" else row["value"] for row in onnx_rows]
        assert [list(p.answer) if name == "scores" else p.answer for p in predictions] == known
        assert tunesmith.export(run.path, "safetensors").same_answers == 1
