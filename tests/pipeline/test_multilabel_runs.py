"""Task `multilabel`: whole runs of every method, the ways to write labels, what runs write, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import tunesmith
from tests import power_cut, small_runs
from tests.conftest import write_csv
from tests.small_runs import TOPICS
from tunesmith.errors import DataError, RecipeError, RunError
from tunesmith.evaluation.multilabel_scores import MultilabelScores
from tunesmith.pipeline.fitting.methods import variants
from tunesmith.pipeline.multilabel_runs import Thresholds
from tunesmith.runs import Run
from tunesmith.types import MultilabelPredictionRow

Models = Callable[[str], Path]
FAST = ["task=multilabel", "bootstrap_samples=100", "per_device_train_batch_size=16", "learning_rate=5e-3"]


@pytest.fixture(scope="session")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_runs.tagged(tmp_path_factory.mktemp("tagged") / "tagged.jsonl")


def train(method: str, tagged: Path, models: Models, *overrides: str, **more: Any) -> Run:
    source = {
        "method": method,
        "data": {"path": str(tagged), "label": "labels"},
        "model": {"name_or_path": str(models("bert"))},
    }
    return tunesmith.train(source, [*FAST, *overrides], **more)


@pytest.mark.parametrize("method", ["linear", "probe", "encoder", "encoder:lora", "encoder:contrastive"])
def test_every_method_learns_predicts_and_reports(
    method: str, tagged: Path, tiny_models: Models, tmp_path: Path
) -> None:
    chosen = [f"{key}={value}" for key, value in variants(method).items()]
    steps = f"max_steps={20 if ':' in method else 100}"
    run = train("encoder", tagged, tiny_models, *chosen, steps, run_dir=tmp_path / "run")
    scores = run.load("scores.json", MultilabelScores)
    assert set(scores.labels) == set(TOPICS)
    # the embeddings of random weights tell little, and an adapter on them too
    assert scores.headline["macro_f1"].value > (0.55 if method in ("linear", "encoder") else 0.3)
    rows = run.predictions("test", MultilabelPredictionRow)
    assert any(not row.gold for row in rows)
    assert any(len(row.gold) == 2 for row in rows)
    assert scores == tunesmith.evaluate(run.path)  # computed again from the stored predictions

    thresholds = run.load("thresholds.json", Thresholds).by_label
    for row in rows:
        probable = {label for label, p in zip(scores.labels, row.probabilities, strict=True) if p >= thresholds[label]}
        assert set(row.labels) == probable
    found = tunesmith.predict(run.path, source=tagged)
    assert list(found[0]) == ["id", "text", "labels", "predicted_labels", "probabilities"]
    again = {row["id"]: row["predicted_labels"] for row in found}
    assert [set(again[row.id]) for row in rows] == [set(row.labels) for row in rows]  # with the same thresholds
    (one,) = tunesmith.predict(run.path, found[1]["text"], top_k=2)
    assert len(one["scores"]) == 2
    new = tunesmith.evaluate(run.path, data=tagged)
    assert isinstance(new, MultilabelScores)
    assert new.rows == 300
    for page in ("report.html", "report.md", "README.md"):
        content = (run.path / page).read_text()
        assert "acro F1" in content
        assert TOPICS[0] in content


def test_a_plain_transformers_user_gets_the_labels(tagged: Path, tiny_models: Models, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    run = train("encoder", tagged, tiny_models, "max_steps=10", run_dir=tmp_path / "run")
    model = AutoModelForSequenceClassification.from_pretrained(run.model)
    assert model.config.problem_type == "multi_label_classification"
    assert set(model.config.id2label.values()) == set(TOPICS)
    chosen = run.load("thresholds.json", Thresholds).by_label
    assert model.config.thresholds == pytest.approx([chosen[label] for label in model.config.id2label.values()])


def test_killed_and_resumed_is_bit_identical(tagged: Path, tiny_models: Models, tmp_path: Path) -> None:
    steps = ["max_steps=12", "save_strategy=steps", "save_steps=3", "train.class_weights=balanced"]
    whole = train("encoder", tagged, tiny_models, *steps, run_dir=tmp_path / "whole")
    with power_cut.at_step(11):
        train("encoder", tagged, tiny_models, *steps, run_dir=tmp_path / "half")
    half = tunesmith.train(resume=tmp_path / "half")
    for name in ("scores.json", "metrics.jsonl", "thresholds.json", "model/model.safetensors", "model/config.json"):
        assert (half.path / name).read_bytes() == (whole.path / name).read_bytes()


def test_lists_separators_and_columns_of_0_and_1_are_the_same(tagged: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in tagged.read_text().splitlines()]
    tags = pd.DataFrame({"text": [r["text"] for r in rows], "tags": [" | ".join(r["labels"]) for r in rows]})
    tags.to_csv(tmp_path / "tags.csv", index=False, sep=";")
    columns = pd.DataFrame(
        {"text": [r["text"] for r in rows]} | {t: [int(t in r["labels"]) for r in rows] for t in TOPICS}
    )
    columns.to_csv(tmp_path / "columns.csv", index=False)
    settings = {
        str(tagged): ["data.label=labels"],
        str(tmp_path / "tags.csv"): ["data.label=tags", "data.label_separator=|"],
        str(tmp_path / "columns.csv"): [f"data.label=[{','.join(sorted(TOPICS))}]"],
    }
    scores = []
    for n, (path, overrides) in enumerate(settings.items()):
        source = {"method": "linear", "data": {"path": path}}
        run = tunesmith.train(source, [*FAST, *overrides], run_dir=tmp_path / str(n))
        scores.append(((run.path / "scores.json").read_bytes(), run.manifest.data.fingerprint))
    assert scores[0] == scores[1] == scores[2]


def test_methods_are_compared(tagged: Path, tiny_models: Models, tmp_path: Path) -> None:
    source = {"data": {"path": str(tagged), "label": "labels"}, "model": {"name_or_path": str(tiny_models("bert"))}}
    compared = tunesmith.compare(source, [*FAST, f"output_dir={tmp_path}"], methods=["linear", "probe"])
    assert "macro F1" in compared.verdict
    report = json.loads((compared.page.parent / "comparison.json").read_text())
    assert report["task"] == "multilabel"
    assert set(report["pairs"][0]["differences"]) == {"macro_f1", "micro_f1"}
    assert compared.page.read_text().count("Scores per label") >= 2


def test_labels_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    path = tmp_path / "tags.csv"
    path.write_text("text,label\n" + "".join(f"text {n},a|b\n" for n in range(20)))
    with pytest.raises(DataError, match=r"set data\.label_separator"):
        tunesmith.train({"method": "linear", "data": {"path": str(path)}}, FAST)
    path.write_text("text,a,b\n" + "".join(f"text {n},{n % 2},{'maybe' if n == 7 else 1}\n" for n in range(20)))
    with pytest.raises(DataError, match="neither 0 nor 1 in column b") as caught:
        tunesmith.train({"method": "linear", "data": {"path": str(path)}}, [*FAST, "data.label=[a,b]"])
    assert "tags.csv:9" in str(caught.value)
    with pytest.raises(DataError, match=r"data\.label\[1\]"):
        tunesmith.train({"method": "linear", "data": {"path": str(path)}}, [*FAST, "data.label=[a,c]"])
    path.write_text("text,label\n" + "".join(f"text {n},\n" for n in range(20)))
    with pytest.raises(DataError, match="no row of train has a label"):
        tunesmith.train({"method": "linear", "data": {"path": str(path)}}, FAST)


def test_what_is_for_one_label_is_refused(tagged: Path, tiny_models: Models, tmp_path: Path) -> None:
    run = train("linear", tagged, tiny_models, run_dir=tmp_path / "run")
    with pytest.raises(RunError, match="bag of words cannot be written as onnx"):
        tunesmith.export(run.path, "onnx")
    with pytest.raises(RunError, match=r"one label a text\n.*\n.*2 runs of task multilabel"):
        tunesmith.pseudo_label(run.path, run.path, source=tagged, output=tmp_path / "labels.jsonl")
    with pytest.raises(RecipeError, match="task multilabel has macro_f1"):
        train("linear", tagged, tiny_models, "metric_for_best_model=accuracy")


def test_empty_cells_of_new_data_are_rows_without_labels(tmp_path: Path) -> None:
    rows = [(f"goal {n}", "sport") for n in range(30)] + [(f"robot {n}", "tech|sport") for n in range(30)]
    path = write_csv(tmp_path / "tags.csv", [*rows, *((f"nothing {n}", "") for n in range(20))])
    run = tunesmith.train(
        {"method": "linear", "data": {"path": str(path)}}, [*FAST, "data.label_separator=|"], run_dir=tmp_path / "run"
    )
    scores = tunesmith.evaluate(run.path, data=path)
    assert isinstance(scores, MultilabelScores)
    assert (scores.rows, scores.labels_per_row[0]) == (80, 90 / 80)


@pytest.mark.parametrize("override", ["data.label_separator=|", "data.label=[a,b]"])
def test_lists_of_labels_are_for_this_task(override: str, tagged: Path) -> None:
    with pytest.raises(RecipeError, match="are for task multilabel"):
        tunesmith.train({"method": "linear", "data": {"path": str(tagged)}}, [override])
