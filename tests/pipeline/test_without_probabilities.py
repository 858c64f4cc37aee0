"""Runs whose predictions have labels and no probabilities: what is blank, what is refused, and all else as ever."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

import tunesmith
from tests import small_runs, tiny
from tests.conftest import write_csv
from tests.sample_reports import Balance
from tests.serving_fakes import application, error, loaded, post
from tunesmith import cli
from tunesmith.errors import ModelError, RecipeError, RunError
from tunesmith.evaluation import probability_scores
from tunesmith.evaluation.metrics import ClassificationScores
from tunesmith.models.linear import LinearPredictor
from tunesmith.pipeline.commands import serve
from tunesmith.pipeline.fitting import methods
from tunesmith.prediction import attribution
from tunesmith.recipe import Serve, names
from tunesmith.reporting.schema import SamplePredictions, WorstMistakes
from tunesmith.runs import Run
from tunesmith.types import NO_LABEL, Example, PredictionRow

COUNTED = ["accuracy", "balanced_accuracy", "macro_f1", "mcc"]
SETTINGS = ["bootstrap_samples=100", "eval_strategy=steps", "eval_steps=50", "eval_batches=1", "seed=1"]
LEARN = ["max_steps=50", "learning_rate=5e-3", "template=plain"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("data") / "topics.csv", tiny.texts(120))


@pytest.fixture(scope="module")
def written(words: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A generator that writes labels: some right, some wrong, some none."""
    source = {"method": "generator", "predict": {"mode": "free"}, "data": {"path": str(data)}}
    folder = tmp_path_factory.mktemp("runs") / "written"
    return tunesmith.train(source | {"model": {"name_or_path": str(words)}}, [*SETTINGS, *LEARN], run_dir=folder)


@pytest.fixture(scope="module")
def linear(data: Path, written: Run) -> Run:
    folder = written.path.parent / "linear"
    return tunesmith.train({"method": "linear", "data": {"path": str(data)}}, [*SETTINGS], run_dir=folder)


def test_scores_that_need_probabilities_are_blank_and_all_others_are_computed(written: Run) -> None:
    rows = written.predictions("test", PredictionRow)
    lines = (written.path / "predictions" / "test.jsonl").read_text().splitlines()
    assert [json.loads(line)["probabilities"] for line in lines] == [[]] * len(rows)
    scores = written.load("scores.json", ClassificationScores)
    assert list(scores.headline) == COUNTED
    assert scores.headline["accuracy"].value == sum(row.label == row.gold for row in rows) / len(rows) > 0.3
    assert scores.invalid == sum(row.label == NO_LABEL for row in rows) > 0
    assert (scores.calibration, scores.without_probabilities) == ((), len(rows))
    assert scores == tunesmith.evaluate(written.path)
    manifest = written.finished
    assert manifest.train is not None
    assert manifest.validation is not None
    assert list(manifest.train) == list(manifest.validation) == COUNTED
    (evaluation,) = [line for line in written.metrics() if line.validation]
    assert (evaluation.train_loss, list(evaluation.validation)) == (None, COUNTED)


def test_mistakes_are_drawn_and_samples_have_no_probability(written: Run) -> None:
    rows = {row.id: row for row in written.predictions("test", PredictionRow)}
    mistakes = written.load("worst.json", WorstMistakes).worst
    assert 0 < len(mistakes) <= 10
    for mistake in mistakes:
        row = rows[mistake.id]
        assert (mistake.gold, mistake.predicted, mistake.probability) == (row.gold, row.label, None)
        assert row.gold != row.label
    samples = written.load("sample_predictions.json", SamplePredictions).rows
    held_out = {row.id: row for row in written.predictions("validation", PredictionRow)}
    assert [row.labels for row in samples] == [((held_out[row.id].label, None),) for row in samples]


def test_the_report_says_what_is_missing(written: Run) -> None:
    scores = written.load("scores.json", ClassificationScores)
    invalid = f"generator:full gives {scores.invalid} of {scores.rows} test rows"
    for name in ("report.html", "report.md", "README.md"):
        page = (written.path / name).read_text()
        assert invalid in page
        assert "generator:full gives no probabilities; scores that need them are not computed." in page
        assert not any(word in page for word in ("Log loss", "Brier score", "always answers one of them"))
    page = (written.path / "report.html").read_text()
    assert "Wrong predictions, drawn at random" in page
    assert "<figcaption>Calibration" not in page
    assert 'taken for <span class="taken">' in page
    assert 'taken"></span>' not in page
    parser = Balance()
    parser.feed(page)
    assert parser.open == []


@pytest.mark.parametrize("names", [("linear", "written"), ("written", "linear")])
def test_compared_with_a_run_that_has_probabilities(names: tuple[str, str], written: Run, linear: Run) -> None:
    """In whatever order, the cells of one are filled and those of the other blank."""
    runs = {"linear": linear, "written": written}
    compared = tunesmith.compare([str(runs[name].path) for name in names])
    text = (compared.path / "report.md").read_text()
    table = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert table[0][-3:] == ["Log loss ↓", "Brier score ↓", "Calibration error ↓"]
    cells = {row[0]: row for row in table[2:4]}
    assert cells["generator:full"][-3:] == ["–", "–", "–"]
    assert "–" not in cells["linear"]
    page = (compared.path / "report.html").read_text()
    blank = '<td><b>–</b></td><td><span class="range">–</span></td>'
    assert page.count(blank) == 3
    assert page.count("<figcaption>Calibration") == 1
    assert len(json.loads((compared.path / "comparison.json").read_text())["pairs"]) == 1


def test_a_comparison_by_log_loss_names_the_run_without(written: Run, linear: Run, data: Path, tmp_path: Path) -> None:
    by_loss = tunesmith.train(
        {"method": "linear", "data": {"path": str(data)}},
        [*SETTINGS, "metric_for_comparison=log_loss"],
        run_dir=tmp_path / "by_loss",
    )
    with pytest.raises(RunError, match=r"generator:full: no log loss to compare by\n.*probabilities, in every run"):
        tunesmith.compare([str(by_loss.path), str(written.path)])


@pytest.mark.parametrize("name", ["evaluate.metric_for_comparison", "evaluate.metric_for_best_model"])
def test_a_recipe_that_needs_probabilities_is_refused(name: str, words: Path, data: Path) -> None:
    with pytest.raises(RecipeError, match=rf"{name} is log_loss, .*generator gives none"):
        tunesmith.compare(
            str(data),
            [f"{name}=log_loss", "predict.mode=free", f"model.generator={words}"],
            methods=["linear", "generator:untuned"],
        )
    with pytest.raises(RecipeError, match=r"decide needs predict\.mode=score, not free"):
        tunesmith.train(str(data), ["method=generator", "predict.mode=free", "decide.calibration=auto"])


def test_a_recipe_knows_the_scores_of_probabilities() -> None:
    named = {*get_args(names.BestMetric), *get_args(names.ComparedMetric)}
    of_probabilities = {*probability_scores.HIGHER_IS_BETTER, "label_ranking_ap", "mean_average_precision"}
    assert set(names.OF_PROBABILITIES) == named & of_probabilities


def test_files_of_predictions_have_blank_probabilities(written: Run, data: Path, tmp_path: Path) -> None:
    (row,) = tunesmith.predict(written.path, ["the goal of the match"])
    assert row["score"] is None
    for suffix in ("csv", "jsonl"):
        cli.main(["predict", str(written.path), "--data", str(data), "--output", f"out.{suffix}"])
    with (tmp_path / "out.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    objects = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert {line["probability"] for line in table} == {""}
    assert {line["probability"] for line in objects} == {None}
    assert [line["predicted_label"] for line in table] == [line["predicted_label"] for line in objects]
    with pytest.raises(RecipeError, match="cannot rank 2 labels: generator:full gives no probabilities"):
        tunesmith.predict(written.path, ["the goal"], top_k=2)
    scores = tunesmith.evaluate(written.path, data=data)
    assert isinstance(scores, ClassificationScores)
    assert list(scores.headline) == COUNTED


def test_what_needs_a_probability_is_refused(written: Run, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RecipeError, match=r"cannot explain .*: generator:full gives no probabilities"):
        tunesmith.explain(written.path, "the goal of the match")
    with pytest.raises(RunError, match=r"(?s)cannot pseudo-label .* no probabilities.*give several runs to vote"):
        tunesmith.pseudo_label(written.path, source=data)
    with pytest.raises(RecipeError, match="cannot judge labels by predictions: generator:full gives no probabilities"):
        tunesmith.audit(written.recipe, method="generator:full")
    with pytest.raises(RecipeError, match="cannot judge labels by predictions: generator:full gives no probabilities"):
        tunesmith.audit(written.recipe, method="generator:full", unlabelled=data, next_rows=3)
    overrides = ["predict.mode=free", f"model.name_or_path={written.recipe.model.name_or_path}"]
    with pytest.raises(RecipeError, match="cannot fit: generator:untuned gives no probabilities"):
        tunesmith.TextClassifier("generator:untuned", overrides=overrides).fit(["a b", "c d"], ["x", "y"])
    assert cli.main(["evaluate", str(written.path)]) == 0
    assert "of them given no label, 24 without probabilities, with 95% intervals" in capsys.readouterr().out


def test_several_runs_vote_without_probabilities(written: Run, linear: Run, data: Path, tmp_path: Path) -> None:
    found = tunesmith.pseudo_label(written.path, linear.path, source=data, output=tmp_path / "votes.jsonl")
    rows = [json.loads(line) for line in found.kept.read_text().splitlines()]
    assert rows
    assert {row["agreement"] for row in rows} == {1.0}


def test_served_without_scores(written: Run) -> None:
    served: Any = serve._served("written", written.path, Serve())
    made = application(served)
    text = "the goal of the match"
    (found,) = post(made, "/predict", {"inputs": text}).json()["predictions"]
    (row,) = tunesmith.predict(written.path, [text])
    assert found == {"label": row["label"], "cut": False}
    refusal = error(post(made, "/predict", {"inputs": text, "top_k": 2}))
    assert refusal["message"] == "top_k is 2, but this model gives no probabilities"
    assert error(post(made, "/explain", {"text": text}))["code"] == "no_explanation"
    guard = {"classifier": str(written.path), "thresholds": {"sport": 0.5}}
    with pytest.raises(RecipeError, match=r"guard.classifier: .* gives no probabilities"):
        loaded([written], Serve(guard=guard))


def test_where_some_rows_have_none_nothing_is_decided_and_scores_are_blank(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As of a server that gives probabilities with some of its answers."""
    predict = LinearPredictor.predict

    def without_some(self: LinearPredictor, examples: Sequence[Example]) -> list[Any]:
        return [replace(row, probabilities=()) if row.id.endswith("5") else row for row in predict(self, examples)]

    monkeypatch.setattr(LinearPredictor, "predict", without_some)
    settings = [*SETTINGS, "decide.abstain={accuracy: 0.9}"]
    run = tunesmith.train({"method": "linear", "data": {"path": str(data)}}, settings, run_dir=tmp_path / "run")
    without = {
        split: sum(not row.probabilities for row in run.predictions(split, PredictionRow))
        for split in ("validation", "test")
    }
    assert all(0 < count < 10 for count in without.values())
    warning = f"nothing is decided: {without['validation']} of 12 predictions of validation rows have no probabilities"
    assert warning in capsys.readouterr().err
    assert not run.has("decision.json")
    scores = run.load("scores.json", ClassificationScores)
    assert list(scores.headline) == COUNTED
    assert scores.without_probabilities == without["test"]
    assert f"linear gives {without['test']} of 24 test rows" in (run.path / "report.md").read_text()
    with pytest.raises(ModelError, match="cannot explain predictions: predictions have no probabilities"):
        attribution.explain(methods.load_text_predictor(run), [Example("5", "the goal")])


def test_an_export_and_its_card(written: Run, tmp_path: Path) -> None:
    assert tunesmith.export(written.path, "safetensors", output=tmp_path / "weights").same_answers == 1
    card = (tmp_path / "weights" / "README.md").read_text()
    assert "gives no probabilities" in card
    assert "Log loss" not in card


@pytest.mark.usefixtures("trained_here")
def test_several_labels(words: Path, tmp_path: Path) -> None:
    path = small_runs.tagged(tmp_path / "tagged.jsonl")
    source = {"task": "multilabel", "data": {"path": str(path), "label": "labels"}, "model": {"generator": str(words)}}
    settings = ["bootstrap_samples=100", "predict.mode=free", "split.max_train_samples=60", f"output_dir={tmp_path}"]
    compared = tunesmith.compare(source, settings, methods=["linear", "generator:untuned"])
    head, _, first, second = (compared.path / "report.md").read_text().split("\n\n")[3].splitlines()
    assert head.count("|") == first.count("|") == second.count("|")
    assert first.count("–") == 0
    assert second.endswith("| – | – | – |")
    assert "generator:untuned gives no probabilities" in (compared.path / "report.html").read_text()
    run = compared.path / "generator-untuned"
    assert "Each label has a threshold" not in (run / "README.md").read_text()
    assert "Each label has a threshold" in (compared.path / "linear" / "README.md").read_text()
    (row,) = tunesmith.predict(run, ["the goal"])
    assert row["scores"] is None
