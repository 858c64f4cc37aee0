"""Where test rows have copies in train, every run and comparison also shows its scores without them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tunesmith
from tests import tiny
from tests.conftest import write_csv
from tests.random_texts import text
from tests.sample_reports import Balance
from tests.small_runs import QUICK
from tunesmith import cli
from tunesmith.evaluation.clean_scores import CleanScores
from tunesmith.evaluation.metrics import ClassificationScores
from tunesmith.pipeline.commands.train import open_test
from tunesmith.pipeline.leaked_rows import LeakedRows
from tunesmith.pipeline.task_table import TASKS
from tunesmith.runs import Run
from tunesmith.types import PredictionRow

FAST = ["bootstrap_samples=100", "method=linear", "min_df=1"]


def rows(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Texts whose label shows in a few words among many random ones."""
    return [(f"{topic} {text(seed + n)}", label) for n, (topic, label) in enumerate(tiny.texts(count, seed=seed))]


@pytest.fixture
def leaking(tmp_path: Path) -> list[str]:
    """60 test rows, of which 20 are in train with another suffix and the label that is right for them alone."""
    test = rows(60, seed=1000)
    wrong = [(each, list(tiny.WORDS)[n % len(tiny.WORDS)]) for n, (each, _) in enumerate(test[:20])]
    test[:20] = wrong
    train = rows(100) + [(f"{each} indeed", label) for each, label in wrong] * 3
    return [
        f"data.train={write_csv(tmp_path / 'train.csv', train)}",
        f"data.test={write_csv(tmp_path / 'test.csv', test)}",
        "split.validation_size=0",
    ]


def test_a_run_scores_its_clean_test_rows_too(
    leaking: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tunesmith.train({}, [*FAST, *leaking], run_dir=tmp_path / "run")
    said = capsys.readouterr().err
    leaked, clean = run.load("leaks.json", LeakedRows).rows, run.load("clean.json", CleanScores)
    assert [row.id for row in leaked] == [f"test.csv:{n}" for n in range(2, 22)]
    assert (clean.rows, clean.exact, clean.normalised, clean.near, clean.copies) == (40, 0, 0, 20, 20)
    predicted = run.predictions("test", PredictionRow)[20:]
    right = sum(row.label == row.gold for row in predicted)
    assert clean.headline["accuracy"].value == right / 40
    overall = run.load("scores.json", ClassificationScores).headline
    assert overall["accuracy"].value > clean.headline["accuracy"].value
    sentence = (
        f"20 of 60 test rows have a copy in train (20 near): accuracy {overall['accuracy'].value:.3f}; on the 40 test "
        f"rows without a copy in train {right / 40:.3f} ["
    )
    assert sentence in said
    assert sentence in run.read_text("README.md")
    page, markdown = run.read_text("report.html"), run.read_text("report.md")
    assert "The test split leaks." in page
    assert "40 clean rows" in page
    assert f"| linear | {overall['accuracy'].value:.3f} | {right / 40:.3f} [" in markdown
    parser = Balance()
    parser.feed(page)
    assert parser.open == []

    before = (run.path / "clean.json").read_bytes()
    (run.path / "clean.json").unlink()
    tunesmith.evaluate(run.path)
    assert (run.path / "clean.json").read_bytes() == before
    assert sentence in capsys.readouterr().err


def test_a_comparison_of_finished_runs_shows_both(
    leaking: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, C in (("one", 1), ("other", 100)):
        tunesmith.train({}, [*FAST, *leaking, f"linear.C={C}"], run_dir=tmp_path / name, quiet=True)
    assert cli.main(["compare", str(tmp_path / "one"), str(tmp_path / "other")]) == 0
    out = capsys.readouterr().out
    assert "20 of 60 test rows have a copy in train (20 near)" in out
    assert "40 clean rows" in out
    assert "linear (linear.C=100)" in out


def test_without_leaks_nothing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tunesmith.train(
        {"data": {"path": str(write_csv(tmp_path / "d.csv", rows(100)))}}, FAST, run_dir=tmp_path / "r"
    )
    assert not run.has("leaks.json")
    assert not run.has("clean.json")
    assert "The test split leaks" not in run.read_text("report.html")
    assert "audit: no duplicates, within or across splits" in capsys.readouterr().err


def test_too_few_clean_rows_are_not_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    test = rows(30, seed=1000)
    train = rows(60) + [(each.upper(), label) for each, label in test[:20]]
    files = [
        f"data.{name}={write_csv(tmp_path / f'{name}.csv', of)}" for name, of in (("train", train), ("test", test))
    ]
    run = tunesmith.train({}, [*FAST, *files, "split.validation_size=0"], run_dir=tmp_path / "run")
    clean = run.load("clean.json", CleanScores)
    assert (clean.rows, clean.copies, clean.headline) == (10, 20, {})
    assert "the other 10 are fewer than 20 and are not scored" in capsys.readouterr().err
    assert "The other 10 are fewer than 20" in run.read_text("report.html")


def test_removed_leaks_leave_a_clean_test_split(leaking: list[str], tmp_path: Path) -> None:
    run = tunesmith.train({}, [*FAST, *leaking, "split.leaks=remove"], run_dir=tmp_path / "run", quiet=True)
    assert not run.has("clean.json")
    assert run.manifest.data.splits["train"].rows == 100


def test_a_test_split_opened_later_has_it_too(leaking: list[str], tmp_path: Path) -> None:
    run = tunesmith.train({}, [*FAST, *leaking], run_dir=tmp_path / "run", quiet=True, skip_test=True)
    assert not run.has("clean.json")
    assert open_test(run).load("clean.json", CleanScores).rows == 40


def test_new_data_is_scored_without_copies_of_training_rows_too(
    leaking: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tunesmith.train({}, [*FAST, *leaking], run_dir=tmp_path / "run", quiet=True)
    fresh = rows(40, seed=5000)
    path = write_csv(
        tmp_path / "new.csv", [*fresh[:30], *rows(100)[:5], (rows(100)[7][0].upper(), "tech"), *fresh[30:]]
    )
    capsys.readouterr()
    overall = tunesmith.evaluate(run.path, data=str(path)).headline["accuracy"].value
    said = capsys.readouterr().err
    leaked, clean = run.load("leaks-new.json", LeakedRows).rows, run.load("clean-new.json", CleanScores)
    assert [row.id for row in leaked] == [f"new.csv:{n}" for n in range(32, 38)]
    assert [row.copy for row in leaked] == [f"train.csv:{n}" for n in (2, 3, 4, 5, 6, 9)]
    assert (clean.rows, clean.exact, clean.normalised, clean.near) == (40, 5, 1, 0)
    predicted = run.predictions("new", PredictionRow)
    right = sum(row.label == row.gold for row in [*predicted[:30], *predicted[36:]])
    assert clean.headline["accuracy"].value == right / 40
    assert (
        f"warning: 6 of 46 rows of new have a copy in train (5 exact, 1 normalised): accuracy {overall:.3f}; on the 40 "
        f"rows of new without a copy in train {right / 40:.3f} ["
    ) in said
    write_csv(path, fresh)  # other data of that name, without copies
    tunesmith.evaluate(run.path, data=str(path))
    assert "copy in train" not in capsys.readouterr().err
    assert not run.has("leaks-new.json")
    assert not run.has("clean-new.json")


@pytest.mark.parametrize("how", ["changed", "gone"])
def test_new_data_is_scored_without_the_training_rows(
    how: str, leaking: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tunesmith.train({}, [*FAST, *leaking], run_dir=tmp_path / "run", quiet=True)
    (tmp_path / "train.csv").unlink()
    if how == "changed":
        write_csv(tmp_path / "train.csv", rows(90))
    path = write_csv(tmp_path / "new.csv", rows(40, seed=1000))
    assert cli.main(["evaluate", str(run.path), "--data", str(path)]) == 0
    captured = capsys.readouterr()
    assert "warning: copies of training rows are not looked for in new: " in captured.err
    assert "accuracy" in captured.out


def leaking_file(path: Path, of: list[dict[str, object]]) -> Path:
    """The rows with a split, the first 25 of 50 test rows also in train with another suffix."""
    test = of[:50]
    train = [*of[50:], *({**row, "text": f"{row['text']} indeed"} for row in test[:25])]
    named = [{**row, "part": name} for name, rows_of in (("train", train), ("test", test)) for row in rows_of]
    path.write_text("".join(json.dumps(row) + "\n" for row in named))
    return path


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_other_tasks_have_clean_scores(task: str, tmp_path: Path) -> None:
    gold = {"multilabel": lambda label: [label], "regression": lambda label: float(len(label))}[task]
    data = [{"text": each, "label": gold(label)} for each, label in rows(150)]
    path = leaking_file(tmp_path / "data.jsonl", data)
    settings = [f"task={task}", "split.column=part", "split.validation_size=0"]
    run = tunesmith.train({"data": {"path": str(path)}}, [*FAST, *settings], run_dir=tmp_path / "run", quiet=True)
    clean, overall = run.load("clean.json", CleanScores), TASKS[task].score(run)
    assert (clean.rows, clean.near) == (25, 25)
    assert clean.headline.keys() == overall.headline.keys()
    assert clean.headline == TASKS[task].score(run, places=range(25, 50)).headline
    assert "25 clean rows" in run.read_text("report.md")
    assert "25 clean rows" in run.read_text("report.html")


def test_generators_have_clean_scores(model: Path, tmp_path: Path) -> None:
    data = [{"instruction": each, "text": each, "output": label} for each, label in rows(100)]
    path = leaking_file(tmp_path / "data.jsonl", data)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**row, "instruction": row["text"]}) + "\n" for row in lines))
    source = {"task": "instruction", "data": {"path": str(path)}, "model": {"name_or_path": str(model)}}
    settings = [*QUICK, "split.column=part", "split.validation_size=0", "max_steps=1"]
    run = tunesmith.train(source, settings, run_dir=tmp_path / "run", quiet=True)
    assert run.load("clean.json", CleanScores).headline.keys() >= {"loss"}
    assert "25 clean rows" in run.read_text("report.md")
    assert "25 clean rows" in run.read_text("report.html")


def test_training_begins_with_a_summary_of_the_audit(
    leaking: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tunesmith.train({}, [*FAST, *leaking], run_dir=tmp_path / "run")
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("audit: ")]
    assert lines[0] == "audit: severe: 20 of 60 test rows (33.3%) have a copy in train: 20 near."
    assert lines[1].startswith("audit: warning: 40 of 160 train rows (25.0%) repeat an earlier row: 40 exact")
    assert "`tunesmith audit`" in lines[2]
    assert len(lines) == 3


def test_the_recipe_of_an_earlier_run_is_read_without_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.yaml").write_text("split:\n  duplicates: remove\n")
    assert Run(tmp_path).recipe.split.leaks == "remove"
    assert capsys.readouterr().err == ""
