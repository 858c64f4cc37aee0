"""Task `regression`: whole runs of every method, what they write, and what is refused."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tunesmith
from tests import power_cut, small_runs, tiny
from tests.conftest import write_csv
from tunesmith import cli
from tunesmith.errors import DataError, RecipeError, RunError
from tunesmith.evaluation.value_scores import RegressionScores
from tunesmith.pipeline.fitting.methods import load_text_predictor
from tunesmith.runs import Run
from tunesmith.types import Example, ValuePredictionRow

Models = Callable[[str], Path]
FAST = ["task=regression", "bootstrap_samples=100", "per_device_train_batch_size=16", "learning_rate=3e-3"]


@pytest.fixture(scope="session")
def prices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_runs.prices(tmp_path_factory.mktemp("prices") / "prices.csv")


def train(method: str, prices: Path, models: Models, *overrides: str, **more: Any) -> Run:
    source = {"method": method, "data": {"path": str(prices)}, "model": {"name_or_path": str(models("bert"))}}
    return tunesmith.train(source, [*FAST, *overrides], **more)


@pytest.mark.parametrize("method", ["linear", "probe", "encoder", "encoder:lora"])
def test_every_method_learns_predicts_and_reports(
    method: str, prices: Path, tiny_models: Models, tmp_path: Path
) -> None:
    name, _, kind = method.partition(":")
    overrides = [f"max_steps={20 if kind else 120}", f"adapter.kind={kind or 'none'}", "learning_rate=5e-3"]
    run = train(name, prices, tiny_models, *overrides, "linear.C=10", run_dir=tmp_path / "run")
    scores = run.load("scores.json", RegressionScores)
    # an adapter on random weights has little to adapt
    assert scores.headline["rmse"].value < (1.1 if kind else 0.8) * scores.baseline_rmse
    rows = run.predictions("test", ValuePredictionRow)
    assert 900 < min(row.gold for row in rows) < max(row.gold for row in rows)
    assert scores == tunesmith.evaluate(run.path)  # computed again from the stored predictions

    found = tunesmith.predict(run.path, source=prices)
    assert list(found[0]) == ["id", "text", "label", "predicted_value"]
    again = {row["id"]: row["predicted_value"] for row in found}
    assert [again[row.id] for row in rows] == pytest.approx([row.value for row in rows], rel=1e-6)
    (one,) = tunesmith.predict(run.path, found[0]["text"])
    assert one["value"] == pytest.approx(found[0]["predicted_value"], rel=1e-6)

    new = tunesmith.evaluate(run.path, data=prices)
    assert isinstance(new, RegressionScores)
    assert new.rows == 300
    for page in ("report.html", "report.md", "README.md"):
        content = (run.path / page).read_text()
        assert "RMSE" in content
        assert "nan" not in content.lower().split()
    if name == "encoder":  # a plain Hugging Face model
        config = json.loads((run.model / ("base_config.json" if kind else "config.json")).read_text())
        assert config["problem_type"] == "regression"
        assert 1000 < config["target_mean"] < 1300


def test_a_plain_transformers_user_gets_the_number(prices: Path, tiny_models: Models, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    run = train("encoder", prices, tiny_models, "max_steps=10", run_dir=tmp_path / "run")
    model = AutoModelForSequenceClassification.from_pretrained(run.model)
    tokenizer = AutoTokenizer.from_pretrained(run.model)
    output = model(**tokenizer("some text", return_tensors="pt")).logits.item()
    (row,) = load_text_predictor(run).predict([Example("1", "some text")])
    assert output * model.config.target_scale + model.config.target_mean == pytest.approx(row.value, rel=1e-5)


def test_killed_and_resumed_is_bit_identical(prices: Path, tiny_models: Models, tmp_path: Path) -> None:
    steps = ["max_steps=12", "save_strategy=steps", "save_steps=3", "train.loss=huber"]
    whole = train("encoder", prices, tiny_models, *steps, run_dir=tmp_path / "whole")
    with power_cut.at_step(11):
        train("encoder", prices, tiny_models, *steps, run_dir=tmp_path / "half")
    half = tunesmith.train(resume=tmp_path / "half")
    for name in ("scores.json", "metrics.jsonl", "model/model.safetensors"):
        assert (half.path / name).read_bytes() == (whole.path / name).read_bytes()


def test_the_unit_changes_nothing_but_the_unit(prices: Path, tiny_models: Models, tmp_path: Path) -> None:
    """Numbers a million times larger and shifted train the same model."""
    rows = list(csv.DictReader(prices.read_text().splitlines()))
    large = write_csv(tmp_path / "large.csv", [(row["text"], repr(1e6 * float(row["label"]) - 3e8)) for row in rows])
    small, big = (
        train("encoder", path, tiny_models, "max_steps=10", run_dir=tmp_path / path.stem) for path in (prices, large)
    )
    values = [[row.value for row in run.predictions("test", ValuePredictionRow)] for run in (small, big)]
    assert values[1] == pytest.approx([1e6 * value - 3e8 for value in values[0]], rel=1e-4)


def test_methods_are_compared(prices: Path, tiny_models: Models, tmp_path: Path) -> None:
    source = {"data": {"path": str(prices)}, "model": {"name_or_path": str(tiny_models("bert"))}}
    compared = tunesmith.compare(source, [*FAST, f"output_dir={tmp_path}"], methods=["linear", "probe"])
    assert "RMSE" in compared.verdict
    report = json.loads((compared.page.parent / "comparison.json").read_text())
    assert report["task"] == "regression"
    (pair,) = report["pairs"]
    assert set(pair["differences"]) == {"rmse", "mae", "r2", "pearson", "spearman"}
    page = compared.page.read_text()
    assert page.count('class="cloud"') == 4
    assert "Which differences are real?" in page


def test_a_table_in_memory(tmp_path: Path) -> None:
    table = pd.DataFrame({"review": [text for text, _ in tiny.texts(120)], "price": np.arange(120) % 7 + 0.5})
    columns = ["data.text=review", "data.label=price", "method=linear", "output_dir=" + str(tmp_path)]
    run = tunesmith.train(table, [*FAST, *columns])
    assert run.load("scores.json", RegressionScores).rows == 24


BAD = [
    (["3,5"], "decimal point is expected"),
    (["", "n/a"], "missing number"),
    (["inf"], "not finite"),
    (["many"], "not a number"),
]


@pytest.mark.parametrize(("values", "message"), BAD)
def test_what_is_no_number_is_named(values: list[str], message: str, tmp_path: Path) -> None:
    rows = [(f"text {i}", str(i)) for i in range(30)] + [(f"more {value}", value) for value in values]
    path = write_csv(tmp_path / "bad.csv", rows)
    source = {"method": "linear", "data": {"path": str(path)}}
    with pytest.raises(DataError, match=message) as caught:
        tunesmith.train(source, FAST)
    assert "bad.csv:32" in str(caught.value)
    run = tunesmith.train(source, [*FAST, "on_bad_rows=drop", f"output_dir={tmp_path}"])
    assert run.manifest.data.splits["train"].numbers is not None


def test_a_single_number_cannot_be_learned(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "one.csv", [(f"text {i}", "4.5") for i in range(30)])
    with pytest.raises(DataError, match="single number"):
        tunesmith.train({"method": "linear", "data": {"path": str(path)}}, FAST)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.class_weights=balanced"], "class_weights is for labels"),
        (["metric_for_best_model=accuracy"], "task regression has rmse"),
        (["data.label_names=[a,b]"], "label_names is for labels"),
        (["task=classification", "train.loss=huber"], "for task regression"),
    ],
)
def test_settings_that_do_not_fit(overrides: list[str], message: str, prices: Path) -> None:
    with pytest.raises(RecipeError, match=message):
        tunesmith.train({"method": "linear", "data": {"path": str(prices)}}, [*FAST, *overrides])


def test_commands_that_need_labels(prices: Path, tiny_models: Models, tmp_path: Path) -> None:
    run = train("linear", prices, tiny_models, run_dir=tmp_path / "run")
    with pytest.raises(RunError, match="bag of words cannot be written as onnx"):
        tunesmith.export(run.path, "onnx")
    with pytest.raises(RunError, match="nothing says how sure a number is"):
        tunesmith.pseudo_label(run.path, source=prices, output=tmp_path / "labels.jsonl")
    with pytest.raises(RecipeError, match="predicts numbers"):
        tunesmith.predict(run.path, "some text", top_k=2)
    exported = tunesmith.export(run.path, "safetensors")
    assert exported.max_logit_difference == 0


def test_the_command_line_shows_scores(
    prices: Path, tiny_models: Models, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train("linear", prices, tiny_models, run_dir=tmp_path / "run")
    assert cli.main(["evaluate", str(run.path)]) == 0
    assert "spearman" in capsys.readouterr().out
    assert cli.main(["check", str(prices), "task=regression"]) == 0
    out = capsys.readouterr().out
    assert "numbers: mean" in out
