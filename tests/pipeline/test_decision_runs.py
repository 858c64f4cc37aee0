"""Decisions and ordered labels in whole runs: chosen on validation, kept with the model, applied in predictions."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tests import power_cut, tiny
from tests.conftest import write_csv
from tests.exported_folders import in_folder
from tunesmith.errors import DataError, RecipeError, RunError
from tunesmith.evaluation.metrics import ClassificationScores
from tunesmith.runs import Run
from tunesmith.tasks.decisions import DecisionFit
from tunesmith.types import PredictionRow

Models = Callable[[str], Path]
FAST = ["bootstrap_samples=100", "per_device_train_batch_size=16", "learning_rate=5e-3", "max_steps=30"]
ALL = [
    "decide.calibration=auto",
    "decide.costs={tech: {sport: 10}, sport: {tech: 1}}",
    "decide.abstain={coverage: 0.8}",
    "decide.conformal=0.8",
]


@pytest.fixture(scope="session")
def two_labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 texts, one in six of them under the other label."""
    rows = [
        (text, "tech" if (label == "sport") == (n % 12 < 2) else "sport")
        for n, (text, label) in enumerate(tiny.texts(300, labels=("sport", "tech")))
    ]
    return write_csv(tmp_path_factory.mktemp("two") / "two.csv", rows)


@pytest.fixture(scope="session")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 texts with 1 to 5 stars, as many as words of sport among five."""
    import random

    draw, rows = random.Random(0), []
    for n in range(400):
        stars = n % 5 + 1
        words = draw.choices(tiny.WORDS["sport"], k=stars) + draw.choices(tiny.WORDS["world"], k=5 - stars)
        draw.shuffle(words)
        rows.append((f"{' '.join(words)} {n}", str(stars)))
    return write_csv(tmp_path_factory.mktemp("graded") / "graded.csv", rows, ("text", "stars"))


def train(method: str, data: Path, models: Models, *overrides: str, **more: Any) -> Run:
    source = {"method": method, "data": {"path": str(data)}, "model": {"name_or_path": str(models("bert"))}}
    return tunesmith.train(source, [*FAST, *overrides], **more)


@pytest.mark.parametrize("method", ["linear", "probe", "encoder"])
def test_every_method_decides_predicts_and_reports(
    method: str, two_labels: Path, tiny_models: Models, tmp_path: Path
) -> None:
    run = train(method, two_labels, tiny_models, *ALL, run_dir=tmp_path / "run")
    fit = run.load("decision.json", DecisionFit)
    assert fit.rows == run.manifest.data.splits["validation"].rows
    threshold, limit = fit.decision.threshold, fit.decision.abstain_below
    assert threshold is not None
    assert limit is not None
    assert fit.calibration is not None
    scores = run.load("scores.json", ClassificationScores)
    assert scores.decisions is not None
    assert list(scores.headline)[-1] == "cost"
    assert scores == tunesmith.evaluate(run.path)  # computed again from the stored predictions

    rows = run.predictions("test", PredictionRow)
    for row in rows:
        assert row.label == ("tech" if row.probabilities[1] >= threshold.probability else "sport")
        assert row.abstained == (max(row.probabilities) < limit)
        assert row.label_set
    cost = sum({("sport", "tech"): 1, ("tech", "sport"): 10}.get((row.gold, row.label), 0) for row in rows)
    assert scores.headline["cost"].value == pytest.approx(1000 * cost / len(rows))
    found = {row["id"]: row for row in tunesmith.predict(run.path, source=two_labels)}
    for row in rows:
        again = found[row.id]
        assert (again["predicted_label"], again["abstained"]) == (row.label, row.abstained)
        assert again["label_set"] == list(row.label_set or ())
        assert again["probability"] == pytest.approx(row.probabilities[row.label == "tech"], abs=1e-5)
    new = tunesmith.evaluate(run.path, data=two_labels)
    assert isinstance(new, ClassificationScores)
    assert new.decisions is not None
    page, notes = (run.path / "report.html").read_text(), (run.path / "report.md").read_text()
    for words in ("Threshold of tech", "Cost per 1,000 rows", "Risk over coverage", "ROC curve of tech"):
        assert words in page
    for words in ("cost per 1,000 rows:", "abstaining below", "sets of labels for 80%"):
        assert words in notes


@pytest.mark.parametrize("method", ["encoder", "probe"])
def test_an_export_decides_as_the_run_does(method: str, two_labels: Path, tiny_models: Models, tmp_path: Path) -> None:
    run = train(method, two_labels, tiny_models, *ALL, run_dir=tmp_path / "run")
    proof = tunesmith.export(run.path, "onnx")
    ours = tunesmith.predict(run.path, source=two_labels, engine="torch")
    theirs = tunesmith.predict(run.path, source=two_labels, engine="onnx")
    for name in ("predicted_label", "abstained", "label_set"):
        assert [row[name] for row in theirs] == [row[name] for row in ours]
    assert [row["probability"] for row in theirs] == pytest.approx([row["probability"] for row in ours], abs=1e-4)
    texts = [text for text, _ in tiny.texts(40, labels=("sport", "tech"))]
    printed = in_folder(Path(str(proof.folder)), "-W", "ignore", "run.py", *texts).splitlines()
    expected = [row["label"] for row in tunesmith.predict(run.path, texts, engine="torch")]
    assert [line.split("\t")[0] for line in printed] == expected


def test_killed_and_resumed_is_bit_identical(two_labels: Path, tiny_models: Models, tmp_path: Path) -> None:
    steps = ["max_steps=12", "save_strategy=steps", "save_steps=3", *ALL]
    whole = train("encoder", two_labels, tiny_models, *steps, run_dir=tmp_path / "whole")
    with power_cut.at_step(11):
        train("encoder", two_labels, tiny_models, *steps, run_dir=tmp_path / "half")
    half = tunesmith.train(resume=tmp_path / "half")
    for name in ("scores.json", "decision.json", "predictions/test.jsonl", "model/config.json"):
        assert (half.path / name).read_bytes() == (whole.path / name).read_bytes()


def test_a_run_that_goes_on_forgets_the_decision_of_its_parent(
    two_labels: Path, tiny_models: Models, tmp_path: Path
) -> None:
    parent = train("encoder", two_labels, tiny_models, *ALL, run_dir=tmp_path / "parent")
    assert "decision" in json.loads((parent.model / "config.json").read_text())
    none = ["decide.calibration=none", "decide.costs=null", "decide.abstain=null", "decide.conformal=null"]
    child = tunesmith.train(continue_from=parent.path, overrides=[*none, "max_steps=2"], run_dir=tmp_path / "child")
    assert "decision" not in json.loads((child.model / "config.json").read_text())
    assert child.predictions("test", PredictionRow)[0].abstained is None


def test_methods_are_ranked_by_what_was_asked_for(two_labels: Path, tiny_models: Models, tmp_path: Path) -> None:
    source = {"data": {"path": str(two_labels)}, "model": {"name_or_path": str(tiny_models("bert"))}}
    compared = tunesmith.compare(source, [*FAST, ALL[1], f"output_dir={tmp_path}"], methods=["linear", "probe"])
    assert "lowest cost per 1,000 rows" in compared.verdict
    report = json.loads((compared.path / "comparison.json").read_text())
    assert report["ranked_by"] == "cost"
    assert set(report["ranked_pairs"][0]["differences"]) == {"cost"}
    assert "Paired tests of the cost per 1,000 rows" in compared.page.read_text()
    other = tunesmith.compare(
        source, [*FAST, "metric_for_comparison=mcc", f"output_dir={tmp_path}"], methods=["linear", "probe"]
    )
    assert "highest Matthews correlation" in other.verdict
    runs = [compared.path / "linear", other.path / "probe"]
    with pytest.raises(RunError, match="no cost per 1,000 rows to compare by"):
        tunesmith.compare(runs)


def test_no_validation_split_decides_nothing_and_says_so(
    two_labels: Path, tiny_models: Models, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train("linear", two_labels, tiny_models, *ALL, "validation_size=0", run_dir=tmp_path / "run")
    assert "nothing is decided: there is no validation split" in capsys.readouterr().err
    assert not run.has("decision.json")
    assert run.load("scores.json", ClassificationScores).decisions is None


def test_stars_are_ordered_and_an_ordinal_loss_learns_their_order(
    graded: Path, tiny_models: Models, tmp_path: Path
) -> None:
    scores = {}
    for loss in ("null", "ordinal"):
        overrides = [f"train.loss={loss}", "data.label=stars", "max_steps=150", "metric_for_best_model=mae"]
        run = train("encoder", graded, tiny_models, *overrides, run_dir=tmp_path / loss)
        scores[loss] = run.load("scores.json", ClassificationScores).headline
        assert list(scores[loss])[-3:] == ["mae", "qwk", "within_one"]
    assert run.manifest.data.label_values == (1, 2, 3, 4, 5)
    assert any("taken as ordered from 1 to 5" in note.what for note in run.manifest.data.changes)
    assert scores["ordinal"]["mae"].value < 0.8
    assert scores["ordinal"]["qwk"].value > 0.6
    assert "Quadratic weighted kappa" in (run.path / "report.html").read_text()


def test_an_order_is_given_or_taken_away(graded: Path, tiny_models: Models, tmp_path: Path) -> None:
    with graded.open() as file:
        names = ["awful", "bad", "fair", "good", "great"]
        rows = [(row["text"], names[int(row["stars"]) - 1]) for row in csv.DictReader(file)]
    named = write_csv(tmp_path / "named.csv", rows)
    order = f"data.label_order=[{', '.join(names)}]"
    run = train("linear", named, tiny_models, order, "decide.costs=absolute", run_dir=tmp_path / "named")
    assert run.manifest.data.labels == tuple(names)
    headline = run.load("scores.json", ClassificationScores).headline
    assert headline["cost"].value == pytest.approx(1000 * headline["mae"].value)
    plain = train(
        "linear", graded, tiny_models, "data.label=stars", "data.label_order=none", run_dir=tmp_path / "plain"
    )
    assert "mae" not in plain.load("scores.json", ClassificationScores).headline
    with pytest.raises(DataError, match=r"data\.label_order lacks .great"):
        train("linear", named, tiny_models, "data.label_order=[awful, bad, fair, good]")
    with pytest.raises(RecipeError, match="labels have no order"):
        train("encoder", named, tiny_models, "train.loss=ordinal")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["decide.costs={a: {b: 1}}", "decide.target={label: a, recall: 0.5}"], "costs and target exclude each other"),
        (["decide.target={label: a}"], "give precision or recall"),
        (["decide.abstain={}"], "give accuracy or coverage"),
        (["task=regression", "decide.conformal=0.9"], "are for task classification"),
        (["metric_for_comparison=cost"], "set decide.costs"),
        (["train.loss=ordinal", "data.label_order=none"], "which is for ordered labels"),
    ],
)
def test_settings_that_contradict_each_other_are_errors(overrides: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        tunesmith.train({"data": {"path": "none.csv"}}, overrides)
