"""`tunesmith audit`, as a user gives it, on data of every kind: what it says of texts and conversations."""

from __future__ import annotations

import json
import os
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pandas
import pytest

import tunesmith
from tests import tiny
from tests.conftest import write_csv
from tests.random_rows import random_rows
from tunesmith import cli
from tunesmith.auditing import drift
from tunesmith.errors import RecipeError
from tunesmith.pipeline.task_table import read_splits
from tunesmith.recipe import load
from tunesmith.reporting.audit_schema import AuditReport

LINEAR = {"method": "linear"}
DATA = Path(os.environ.get("TUNESMITH_DATA") or Path(__file__).parents[3] / "shared" / "data")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def audited(source: Any, *settings: str, **options: Any) -> AuditReport:
    return tunesmith.audit(source, settings, **LINEAR | options).report


def table(count: int = 60, **more: Any) -> list[dict[str, Any]]:
    return [{"text": row.text, "label": row.label, **more} for row in random_rows(count)]


def test_every_task_and_form_of_data_is_profiled() -> None:
    rows = table()
    texts = [row["text"] for row in rows]
    sources: dict[str, tuple[Any, list[str]]] = {
        "list": (rows, []),
        "DataFrame": (pandas.DataFrame(rows), []),
        "pairs": ([{**row, "other": row["text"][::-1]} for row in rows], ["data.text_pair=other"]),
        "several labels": (
            [{"text": text, "label": ["a", "b"][: 1 + n % 2]} for n, text in enumerate(texts)],
            ["task=multilabel"],
        ),
        "numbers": ([{"text": text, "label": n / 7} for n, text in enumerate(texts)], ["task=regression"]),
        "conversations": (
            [{"instruction": text, "input": "", "output": f"{text}."} for text in texts],
            ["task=instruction"],
        ),
        "raw text": ([{"text": text} for text in texts], ["task=instruction", "data.format=text"]),
    }
    for name, (source, settings) in sources.items():
        report = audited(source, *settings)
        assert report.texts is not None, name
        columns = {"pairs": ["text", "text_pair"], "conversations": ["prompt", "response"]}.get(name, ["text"])
        assert [column.column for column in report.texts.columns] == columns, name
        assert all(column.rows == 60 for column in report.texts.columns), name
        assert (report.conversations is not None) == (name == "conversations")


def test_ten_rows_are_enough_and_one_is_an_error_that_says_so(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    assert audited(table(10)).texts is not None
    write_csv(place / "one.csv", [("a text", "a")])
    (place / "empty.csv").write_text("")
    for name in ("one.csv", "empty.csv", "missing.csv"):
        assert cli.main(["audit", name, "--method", "linear"]) == 2
        assert "Traceback" not in capsys.readouterr().err
    assert not (place / "runs").exists() or len(list((place / "runs").glob("*audit_one*"))) == 0


def test_rows_that_training_refuses_are_a_finding(place: Path) -> None:
    rows = [(row.text, row.label or "") for row in random_rows(60)]
    write_csv(place / "a.csv", [*rows, ("", "yes"), ("no label", "")])
    findings = audited("a.csv").findings
    assert {finding.headline for finding in findings} >= {
        "1 row cannot be used: empty text.",
        "1 row cannot be used: missing label.",
    }
    with pytest.raises(tunesmith.errors.DataError, match="2 bad rows"):
        audited("a.csv", "data.on_bad_rows=error")


def test_strict_and_json(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    leak = [(f"{row.text} {'leak' if row.label == 'yes' else ''}", row.label or "") for row in random_rows(300)]
    write_csv(place / "leak.csv", leak)
    write_csv(place / "sound.csv", [(row.text, row.label or "") for row in random_rows(300)])
    common = ["--method", "linear", "--json"]
    assert cli.main(["audit", "leak.csv", *common]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["texts"]["findings"][0]["severity"] == "severe"
    assert cli.main(["audit", "leak.csv", *common, "--strict"]) == 3
    assert cli.main(["audit", "sound.csv", *common, "--strict"]) == 0


def test_output_is_a_new_or_empty_folder(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    write_csv(place / "a.csv", [(row.text, row.label or "") for row in random_rows(60)])
    (place / "empty").mkdir()
    for folder in ("new", "empty"):
        assert cli.main(["audit", "a.csv", "--method", "linear", "--output", folder]) == 0
        assert {"audit.json", "report.html", "report.md"} <= {path.name for path in (place / folder).iterdir()}
    before = (place / "new" / "audit.json").read_bytes()
    assert cli.main(["audit", "a.csv", "--method", "linear", "--output", "new"]) == 2
    assert "give another --output" in capsys.readouterr().err
    assert (place / "new" / "audit.json").read_bytes() == before


def test_a_recipe_a_run_and_folders_are_audited(place: Path) -> None:
    rows = [(row.text, row.label or "") for row in random_rows(90)]
    (place / "hub").mkdir()
    for name, part in (("train", rows[:60]), ("validation", rows[60:75]), ("test", rows[75:])):
        write_csv(place / "hub" / f"{name}.csv", part)
    (place / "recipe.yaml").write_text("data: {path: hub}\nmethod: linear\n")
    run = tunesmith.train("recipe.yaml", run_dir="run", quiet=True)
    for n, (text, label) in enumerate(rows):
        (place / "classes" / label).mkdir(parents=True, exist_ok=True)
        (place / "classes" / label / f"{n}.txt").write_text(text)
    for source in ("recipe.yaml", "run", run.path, "hub", "classes"):
        report = audited(source)
        assert report.texts is not None
        assert report.texts.columns[0].rows == 90
    assert {split.rows for split in audited("run").data.splits.values()} == {60, 15}


def test_personal_data_is_counted_and_never_shown(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    secrets = [
        "jane.doe@mail.example",
        "+1 555 010 1234",
        "4111 1111 1111 1111",
        "sk-abcdefghijklmnop1234",
        "08712460324",
    ]
    rows = [
        (f"{' '.join(secrets) if n % 2 else ''} {row.text} caf\ufffd {' '.join(secrets) if n % 2 else ''}", "ab"[n % 2])
        for n, row in enumerate(random_rows(200))
    ]
    write_csv(place / "a.csv", rows)
    assert cli.main(["audit", "a.csv", "--method", "linear", "--output", "out"]) == 0
    shown = capsys.readouterr().out
    pages = [(place / "out" / name).read_text() for name in ("report.html", "report.md", "audit.json")]
    for secret in (*secrets, "jane.doe", "mail.example", "41111111", "1111 1111"):
        assert not any(secret in text for text in (shown, *pages))
    assert "100 texts" in shown


def test_a_column_of_dates_and_a_random_split() -> None:
    days = [(date(2021, 1, 1) + timedelta(days=n)).isoformat() for n in range(120)]
    rows = [{**row, "posted": day} for row, day in zip(table(120), days, strict=True)]
    report = audited(rows)
    assert report.texts is not None
    (time,) = report.texts.times
    assert (time.column, time.made) == ("posted", True)
    assert [finding.severity for finding in report.findings if "“posted”" in finding.headline] == ["warning"]


def test_audits_repeat_to_the_letter(place: Path) -> None:
    rows = [(row.text, row.label or "") for row in random_rows(200)]
    write_csv(place / "a.csv", rows)
    first, again = (audited("a.csv").texts for _ in range(2))
    assert first == again


def test_losses_of_the_base_model_are_ranked(place: Path) -> None:
    tiny.generator("llama", place / "model")
    rows = [{"instruction": f"{text}?", "output": f"{text} and more."} for text, _ in tiny.texts(30)]
    settings = ("task=instruction", "model.name_or_path=model")
    report = audited(rows, *settings, loss_outliers=True)
    assert report.conversations is not None
    losses = report.conversations.losses
    assert losses is not None
    assert losses.rows == 30
    assert losses.highest[0].loss >= losses.median >= losses.lowest[0].loss > 0
    html = (sorted((place / "runs").glob("*audit*"))[-1] / "report.html").read_text()
    assert "Highest: what surprises the model" in html
    with pytest.raises(RecipeError, match="responses to instructions"):
        audited(table(), loss_outliers=True)


@pytest.mark.skipif(not (DATA / "sms_spam").exists(), reason="the data set is not there")
def test_a_random_split_of_messages_with_many_versions_is_not_told_apart(tmp_path: Path) -> None:
    """When its near-duplicates counted as different texts, this split gave itself away with AUC 0.57 [0.54, 0.60]."""
    recipe = load(str(DATA / "sms_spam" / "SMSSpamCollection.csv.gz"))
    splits = read_splits(recipe)
    for index, apart in ((None, True), (splits.copies, False)):
        found = drift.compare(("train", "test"), splits.train, splits.test, recipe.seed, index)
        assert found is not None
        assert found.detected == apart
        assert (found.auc.value > 0.55) == apart
