"""What `predict` and `pseudo-label` write: nothing that a spreadsheet runs, nothing lost, no input replaced."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pandas
import pytest

import tunesmith
from tests import tiny
from tests.conftest import write_csv
from tunesmith import cli
from tunesmith.data import read_unlabelled
from tunesmith.errors import RecipeError
from tunesmith.pipeline.commands.predict import table
from tunesmith.recipe import Data
from tunesmith.runs import Run

FORMULAS = ("=1+1", "+49 170", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1", "-", "=cmd|' /C calc'!A0")
HARMLESS = ("-1.5", "+3", "-1,234.5", "-.5", "1e-5", "-2E+3", "-3 %", "-inf", "a=b", "'=1", "", " =1", "e-mail")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    rows = [{"text": text, "label": label} for text, label in tiny.texts(60)]
    folder = tmp_path_factory.mktemp("run")
    return tunesmith.train(rows, ["method=linear", f"output_dir={folder}"], run_dir=folder / "run")


def cells(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


def test_cells_that_a_spreadsheet_would_run_are_quoted_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[dict[str, Any]] = [{"=name": cell, "number": -1.5} for cell in (*FORMULAS, *HARMLESS)]
    written = cells(table(rows, ".csv"))
    assert written == [["'=name", "number"], *([f"'{x}", "-1.5"] for x in FORMULAS), *([x, "-1.5"] for x in HARMLESS)]
    assert capsys.readouterr().err.startswith(f"warning: {len(FORMULAS) + 1} cells that a spreadsheet would run")
    kept = cells(table(rows, ".csv", keep_formulas=True))
    assert [row[0] for row in kept] == ["=name", *FORMULAS, *HARMLESS]
    assert [json.loads(line) for line in table(rows, ".jsonl").splitlines()] == rows
    assert capsys.readouterr().err == ""


def test_what_predict_wrote_is_read_again(run: Run, tmp_path: Path) -> None:
    texts = ["=1+1 goal", "-1.5", "a vote,\nand more", 'say "goal"', "\x1b[31mred \u202e"]
    source = tmp_path / "new.jsonl"
    source.write_text("".join(json.dumps({"text": text, "half": "\ud800"}) + "\n" for text in texts))
    for name in ("out.csv", "out.jsonl"):
        assert cli.main(["predict", str(run.path), "--data", str(source), "--output", str(tmp_path / name)]) == 0
        again, _ = read_unlabelled(Data(path=str(tmp_path / name), label="predicted_label"))
        assert [row.text for row in again] == ["'=1+1 goal" if name == "out.csv" else texts[0], *texts[1:]]


def test_no_command_replaces_its_input(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    train = write_csv(folder / "train.csv", tiny.texts(20))
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": text}) + "\n" for text, _ in tiny.texts(20)))
    (tmp_path / "link.jsonl").symlink_to(rows)
    kept = run.path / "pseudo-labels" / "kept.jsonl"
    kept.parent.mkdir()
    kept.write_bytes(rows.read_bytes())
    before = {path: path.read_bytes() for path in (train, rows, kept)}
    for source, output in ((folder, train), (rows, tmp_path / "link.jsonl"), (tmp_path / "link.jsonl", rows)):
        words = [str(run.path), "--data", str(source), "--output", str(output), "--overwrite"]
        assert cli.main(["predict", *words]) == 2
        assert "it is the input" in capsys.readouterr().err
    for source, words in ((rows, ["--output", str(rows), "--overwrite"]), (kept, [])):
        assert cli.main(["pseudo-label", str(run.path), "--data", str(source), *words]) == 2
        assert "it is the input" in capsys.readouterr().err
    with pytest.raises(RecipeError, match="it exists"):
        tunesmith.pseudo_label(run.path, source=rows, output=kept)
    assert {path: path.read_bytes() for path in before} == before


def test_a_spreadsheets_csv_and_a_frame_are_read(run: Run, tmp_path: Path) -> None:
    texts = [text for text, _ in tiny.texts(8)]
    frame = pandas.DataFrame(
        {"Review (en) = 1": texts, 7: range(8), "price": [1.5, None, *range(6)]}, index=range(3, 11)
    )
    frame.index += 3
    frame.to_csv(tmp_path / "new.csv", sep=";", decimal=",", index=False, encoding="utf-8-sig")
    column = ["data.text='Review (en) = 1'"]
    rows = tunesmith.predict(run, source=tmp_path / "new.csv", overrides=column)
    assert [(row["Review (en) = 1"], row["price"]) for row in rows][:2] == [(texts[0], "1,5"), (texts[1], "")]
    of_frame = tunesmith.predict(run, frame, overrides=column)
    assert [row["predicted_label"] for row in of_frame] == [row["predicted_label"] for row in rows]
    assert [row["7"] for row in of_frame] == list(range(8))
