"""`evaluate.slices` in whole runs: what is read, scored, said and reported, for a run's test split and for new data."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import tunesmith
from tests import tiny
from tests.sample_reports import Balance
from tunesmith import cli
from tunesmith.errors import DataError, RecipeError, RunError
from tunesmith.evaluation.slices import SliceScores
from tunesmith.pipeline.commands.train import open_test
from tunesmith.runs import Run
from tunesmith.types import PredictionRow

FAST = ["bootstrap_samples=100", "method=linear"]


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """600 texts from the web, where labels are right, and from forms, where they are chance; a third has no source."""
    draw = random.Random(0)
    with (tmp_path / "mixed.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", "source", "note"])
        for n, (text, label) in enumerate(tiny.texts(600)):
            source = ("web", "form | *", "")[n % 7 % 3]
            writer.writerow([text, draw.choice(list(tiny.WORDS)) if source.startswith("form") else label, source, "x"])
    return tmp_path / "mixed.csv"


def train(path: Path, *settings: str, **more: Any) -> Run:
    return tunesmith.train({"data": {"path": str(path)}}, [*FAST, *settings], **more)


def test_the_slices_of_a_run_are_scored_said_and_reported(
    mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(mixed, "evaluate.slices=[source, length]", run_dir=tmp_path / "run")
    said = capsys.readouterr().err
    assert "1 x unused columns: note\n" in said
    scores = run.load("slices.json", SliceScores)
    sources = {row["id"]: row["source"] or "(empty)" for row in with_ids(mixed)}
    rows = run.predictions("test", PredictionRow)
    for each in scores.slices:
        if each.column == "source":
            hits = [row.label == row.gold for row in rows if sources[row.id] == each.value]
            assert (each.rows, each.estimate.value) == (len(hits), sum(hits) / len(hits))
    assert sum(each.rows for each in scores.slices) == 2 * len(rows)
    assert len([each for each in scores.slices if each.column == "length"]) == 4
    worst = scores.slices[0]
    assert (worst.column, worst.value) == ("source", "form | *")
    assert worst.p_holm < 0.05
    assert f"slices: worst is source = form | *: accuracy {worst.estimate.value:.3f}" in said
    assert "after Holm's correction for 7 slices" in said

    text, page = run.read_text("report.md"), run.read_text("report.html")
    assert r"| source = form \| \* | " in text
    assert "Of many slices some differ by chance alone" in text
    assert "Slices of the test rows" in page
    assert "source = form | *" in page
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    before = (run.path / "slices.json").read_bytes()
    tunesmith.evaluate(run.path)
    assert (run.path / "slices.json").read_bytes() == before
    assert "slices: worst is source" in capsys.readouterr().err

    other = train(mixed, "slices=source", "C=1", run_dir=tmp_path / "other")
    comparison = tunesmith.compare([run.path, other.path])
    assert "## Slices of linear 1" not in (comparison.path / "report.md").read_text()
    assert "## Slices of linear (linear.C=1)" in (comparison.path / "report.md").read_text()
    assert (comparison.path / "report.html").read_text().count("Slices of the test rows") == 2


def with_ids(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [{"id": f"{path.name}:{n}", **row} for n, row in enumerate(csv.DictReader(file), 2)]


def test_new_data_has_slices_of_its_own(mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = train(mixed, run_dir=tmp_path / "run")
    assert not (run.path / "slices.json").exists()
    table = pd.read_csv(mixed).assign(length="given", source="fax")
    table.iloc[:200].to_csv(tmp_path / "new.csv", index=False)
    capsys.readouterr()
    words = ["evaluate", str(run.path), "--data", str(tmp_path / "new.csv")]
    assert cli.main([*words, "evaluate.slices=[source,length]"]) == 0
    scores = run.load("slices-new.json", SliceScores)
    assert [(each.column, each.value, each.rows) for each in scores.slices] == [
        ("length", "given", 200),  # a column of that name, not the length of the text
        ("source", "fax", 200),
    ]
    assert "slices: none of 2 has 20 rows and others to compare with" in capsys.readouterr().err
    assert cli.main([*words, "evaluate.slices=[sources]"]) == 2
    shown = capsys.readouterr().err
    assert "error: new.csv: no column 'sources', which evaluate.slices names" in shown
    assert "the columns text, label, source, note, length" in shown
    assert "did you mean source?" in shown
    with pytest.raises(RecipeError, match="this command does not use it"):
        tunesmith.predict(run.path, source=str(mixed), overrides=["evaluate.slices=[source]"])

    sliced = train(mixed, "slices=[length]", run_dir=tmp_path / "sliced")
    tunesmith.evaluate(sliced.path, data=str(mixed))
    assert len(sliced.load("slices-mixed.json", SliceScores).slices) == 4


def test_a_finished_run_gets_slices_later(mixed: Path, tmp_path: Path) -> None:
    first = train(mixed, "slices=[source]", run_dir=tmp_path / "first")
    later = train(mixed, run_dir=tmp_path / "later")
    scores = tunesmith.evaluate(later.path, overrides=["slices=[source]"])
    assert scores == tunesmith.evaluate(first.path)
    assert later.load("slices.json", SliceScores) == first.load("slices.json", SliceScores)
    assert "source = web" in later.read_text("report.html")
    with pytest.raises(RecipeError, match="scored as they are: seed=1"):
        tunesmith.evaluate(later.path, overrides=["evaluate.slices=[source]", "seed=1"])
    with mixed.open("a") as file:
        file.write("a goal,sport,web,x\n")
    with pytest.raises(RunError, match="has changed since it began"):
        tunesmith.evaluate(later.path, overrides=["slices=[length]"])


def test_an_unknown_column_is_an_error_before_anything_trains(
    mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=r"no column 'sorce'[\s\S]*text, label, source, note[\s\S]*did you mean source"):
        train(mixed, "slices=[sorce, length]", run_dir=tmp_path / "run")
    assert not (tmp_path / "run" / "model").exists()
    with pytest.raises(DataError, match="no column 'sorce'"):
        tunesmith.compare(str(mixed), ["slices=sorce", f"output_dir={tmp_path / 'runs'}"], methods=["linear"])
    assert not (tmp_path / "runs").exists()
    with pytest.raises(RecipeError, match="not for task instruction"):
        tunesmith.train({"task": "instruction", "data": {"path": "x.json"}}, ["slices=[source]"])


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_other_tasks_and_formats(task: str, form: str, tmp_path: Path) -> None:
    rows = [
        {"text": text, "label": [label] if task == "multilabel" else float(len(text)), "kind": n % 2}
        for n, (text, label) in enumerate(tiny.texts(300))
    ]
    path = tmp_path / f"rows.{form}"
    if form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pd.DataFrame(rows).to_parquet(path)
    run = train(path, f"task={task}", "slices=[kind, length]", run_dir=tmp_path / "run")
    scores = run.load("slices.json", SliceScores)
    assert scores.metric == {"multilabel": "micro_f1", "regression": "rmse"}[task]
    assert {each.value for each in scores.slices if each.column == "kind"} == {"0", "1"}
    assert "## Slices" in run.read_text("report.md")
    assert "Slices of the test rows" in run.read_text("report.html")


def test_a_test_split_that_is_opened_later_has_slices(mixed: Path, tmp_path: Path) -> None:
    run = train(mixed, "slices=source", run_dir=tmp_path / "run", skip_test=True)
    assert not run.has("slices.json")
    open_test(run)
    assert run.load("slices.json", SliceScores).rows == len(run.predictions("test", PredictionRow))


def test_tables_in_memory_and_files_of_splits(mixed: Path, tmp_path: Path, reviews: Path) -> None:
    table = pd.read_csv(mixed)
    run = tunesmith.train({"data": {"train": table[:400], "test": table[400:]}}, [*FAST, "slices=source"])
    assert {each.value for each in run.load("slices.json", SliceScores).slices} == {"web", "form | *", "(empty)"}
    table[["text", "label"]][:400].to_csv(tmp_path / "train.csv", index=False)  # which needs no source
    table[400:].to_csv(tmp_path / "test.csv", index=False)
    data = {"train": str(tmp_path / "train.csv"), "test": str(tmp_path / "test.csv")}
    again = tunesmith.train({"data": data}, [*FAST, "slices=source"])
    assert again.load("slices.json", SliceScores) == run.load("slices.json", SliceScores)
