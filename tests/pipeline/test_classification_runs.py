"""After training: accuracy on every split, and a few predictions to look at, in the log, the run and the report."""

from __future__ import annotations

import csv
import random
import re

import pytest

import tunesmith
from tunesmith.pipeline import classification_runs, run_report
from tunesmith.pipeline.confidence import confidence_of
from tunesmith.pipeline.fitting.methods import load_text_predictor
from tunesmith.pipeline.task_table import read_splits, scores_of
from tunesmith.reporting import classification_report, terminal
from tunesmith.reporting.schema import SamplePredictions
from tunesmith.runs import Run
from tunesmith.types import Example, PredictionRow

WORDS = {"sport": "ball goal team", "tech": "chip code disk", "world": "vote law war"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A linear run on 1,500 noisy rows, of which 1,050 train it."""
    folder = tmp_path_factory.mktemp("noisy")
    draw = random.Random(0)
    with (folder / "rows.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for number in range(1500):
            label, said = draw.choice(list(WORDS)), draw.choice(list(WORDS))
            words = WORDS[label if draw.random() < 0.6 else said].split()
            writer.writerow([f"{draw.choice(words)} {draw.choice(words)} row{number}", label])
    recipe = {"method": "linear", "data": {"path": str(folder / "rows.csv")}, "evaluate": {"bootstrap_samples": 100}}
    return tunesmith.train(recipe, run_dir=folder / "run")


def test_accuracy_is_known_on_every_split(run: Run) -> None:
    recipe = run.recipe
    train = read_splits(recipe).train
    assert len(train) == 1050
    hits = [p.label == e.label for p, e in zip(load_text_predictor(run).predict(train), train, strict=True)]
    of_train, of_validation = run.finished.train["accuracy"], run.finished.validation["accuracy"]
    assert of_train == pytest.approx(sum(hits) / len(hits), abs=0.01)  # 1,000 of the rows
    assert of_train * 1000 == pytest.approx(round(of_train * 1000), abs=1e-9)
    of_test = scores_of(run).headline["accuracy"].value
    report = run_report.build([run], confidence_of(recipe))
    figures = [f"{value:.3f}" for value in (of_train, of_validation, of_test)]
    assert f"| linear | {' | '.join(figures)} |" in classification_report.markdown(report)
    page = re.sub(r"</?b>", "", classification_report.html(report))
    assert "".join(f"<td>{figure}</td>" for figure in figures) in page


def test_sample_predictions_are_stored_and_shown(run: Run) -> None:
    samples = run.load("sample_predictions.json", SamplePredictions)
    stored = {row.id: row for row in run.predictions("validation", PredictionRow)}
    assert (samples.split, len(samples.rows)) == ("validation", 3)
    report = run_report.build([run], confidence_of(run.recipe))
    page, text = classification_report.html(report), classification_report.markdown(report)
    for row in samples.rows:
        prediction = stored[row.id]
        assert row.gold == prediction.gold
        assert row.labels[0][0] == prediction.label
        assert [p for _, p in row.labels] == sorted(prediction.probabilities, reverse=True)
        assert row.text in page
        assert row.text in text


def test_sample_predictions_are_drawn_with_the_seed_and_cut_to_the_likeliest_labels() -> None:
    labels = [f"label {n}" for n in range(9)]
    rows = [Example(str(n), f"text {n} " * 40, label="label 8") for n in range(50)]
    shares = tuple((n + 1) / 45 for n in range(9))
    predictions = [PredictionRow(row.id, "label 8", shares, "label 8") for row in rows]
    first, again, other = (
        classification_runs.sample_predictions("test", rows, predictions, labels, seed) for seed in (1, 1, 2)
    )
    assert first == again != other
    assert [label for label, _ in first.rows[0].labels] == ["label 8", "label 7", "label 6", "label 5"]
    head, text, line, *_ = terminal.sample_predictions(first).splitlines()
    assert head == "sample predictions (test):"
    assert text.endswith("…")
    assert len(text) == 103
    assert line == "    label 8, predicted: label 8 20%, label 7 18%, label 6 16%, label 5 13%"
    assert classification_runs.sample_predictions("test", [], [], labels, 1).rows == ()
