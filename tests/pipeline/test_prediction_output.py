"""Predictions of many rows: the same in every format, resumed after kills, by several processes, through a pipe."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas
import pytest

import tunesmith
from tests import forked, tiny
from tunesmith import cli
from tunesmith.data import row_encoders
from tunesmith.errors import DataError, FileError, RecipeError, RunError
from tunesmith.pipeline import prediction_stream
from tunesmith.pipeline.commands.predict import predict_rows, write_predictions
from tunesmith.pipeline.prediction_output import OutputSettings
from tunesmith.pipeline.prediction_stream import PredictionSettings
from tunesmith.runs import Run

ROWS = 120
KEPT = ("data.text=review", "data.on_bad_rows=keep")
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    rows = [{"text": text, "label": label} for text, label in tiny.texts(60)]
    folder = tmp_path_factory.mktemp("run")
    return tunesmith.train(rows, ["method=linear", f"output_dir={folder}"], run_dir=folder / "run")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Rows with columns of their own, ids that repeat, and every tenth without a text."""
    rows = [
        {"id": n % 7, "review": text if n % 10 else "", "price": n / 2, "sold": n % 3 == 0, "note": "=1+1"}
        for n, (text, _) in enumerate(tiny.texts(ROWS, seed=5))
    ]
    pandas.DataFrame(rows).to_parquet(tmp_path / "new.parquet")
    return tmp_path / "new.parquet"


def settings(*more: str, **options: Any) -> PredictionSettings:
    return PredictionSettings((*KEPT, *more), **options)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_all_formats_have_all_columns_and_rows_in_their_order(run: Run, source: Path, tmp_path: Path) -> None:
    given = pandas.read_parquet(source)
    written = write_predictions(run, source, "out.parquet", settings(chunk_rows=50))
    assert (written.rows, written.errors) == (ROWS, ROWS // 10)
    frame = pandas.read_parquet("out.parquet")
    pandas.testing.assert_frame_equal(frame[list(given)], given)
    assert list(frame)[len(given.columns) :] == ["predicted_label", "probability", "error"]
    bad = given["review"] == ""
    assert (frame["error"][bad] == "empty text").all()
    assert frame["error"][~bad].isna().all()
    assert frame["predicted_label"].isna().tolist() == frame["probability"].isna().tolist() == bad.tolist()
    write_predictions(run, source, "parts/", settings(chunk_rows=7))
    pandas.testing.assert_frame_equal(pandas.read_parquet("parts"), frame)
    write_predictions(run, source, "out.jsonl", settings())
    lines = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert lines == list(predict_rows(run, source, settings(chunk_rows=11)))
    assert [line["probability"] for line in lines if not line["error"]] == frame["probability"].dropna().tolist()
    write_predictions(run, source, "out.csv", settings())
    with Path("out.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["id"] for row in table] == [str(n % 7) for n in range(ROWS)]
    assert [row["probability"] for row in table] == [str(line["probability"] or "") for line in lines]
    assert table[0]["note"] == "'=1+1"
    pieces = tmp_path / "pieces"
    write_predictions(run, source, pieces, settings(chunk_rows=50), output_settings=OutputSettings(format="csv"))
    joined: Rows = []
    for name in ("part-00000.csv", "part-00001.csv", "part-00002.csv"):
        joined += csv.DictReader(io.StringIO((pieces / name).read_text(), newline=""))
    assert joined == table


def test_only_predictions_and_ranks(run: Run, source: Path) -> None:
    write_predictions(run, source, "out.parquet", settings(top_k=2, only_predictions=True))
    frame = pandas.read_parquet("out.parquet")
    ranks = ["label_1", "probability_1", "label_2", "probability_2"]
    assert list(frame) == ["id", "predicted_label", "probability", *ranks, "error"]
    good = frame[frame["error"].isna()]
    assert good["label_1"].tolist() == good["predicted_label"].tolist()
    assert (good["probability_1"] > good["probability_2"]).all()


def test_rows_that_cannot_be_predicted_obey_the_setting(run: Run, source: Path, tmp_path: Path) -> None:
    lines = [json.dumps({"review": text}) for text, _ in tiny.texts(6)]
    lines[2], lines[4] = "{broken", json.dumps({"review": None})
    (tmp_path / "new.jsonl").write_text("\n".join(lines))
    rows = list(predict_rows(run, tmp_path / "new.jsonl", settings()))
    assert [row["error"] is None for row in rows] == [True, True, False, True, False, True]
    assert rows[2]["id"] == "new.jsonl:3"
    assert rows[2]["error"].startswith("broken JSON line: Expecting property name")
    assert rows[4] == {
        "id": "new.jsonl:5", "review": None, "predicted_label": None, "probability": None, "error": "null text"
    }  # fmt: skip
    dropped = list(predict_rows(run, tmp_path / "new.jsonl", settings("data.on_bad_rows=drop")))
    assert [row["id"] for row in dropped] == [row["id"] for row in rows if row["error"] is None]
    with pytest.raises(DataError, match=r"12 bad rows of 120"):
        write_predictions(run, source, "out.csv", PredictionSettings(KEPT[:1]))
    assert not Path("out.csv").exists()
    learned = [{"review": text, "label": label} for text, label in tiny.texts(60)]
    with pytest.raises(RecipeError, match="keep is for rows to predict"):
        tunesmith.train(learned, ["method=linear", *KEPT])
    for action in (tunesmith.evaluate, tunesmith.explain):
        options = {"data": source} if action is tunesmith.evaluate else {"source": source}
        with pytest.raises(RecipeError, match="keep is for predict"):
            action(run.path, overrides=KEPT, **options)


def test_pseudo_labels_keep_rows_that_cannot_be_labelled(run: Run, source: Path) -> None:
    labelled = tunesmith.pseudo_label(run.path, source=source, threshold=0.5, overrides=KEPT)
    left = [json.loads(line) for line in labelled.left_out.read_text().splitlines()]
    bad = [row for row in left if row["reason"] == "empty text"]
    assert [row["id"] for row in bad] == [f"new.parquet:row {n}" for n in range(1, ROWS, 10)]
    assert [row["price"] for row in bad] == [n / 2 for n in range(0, ROWS, 10)]
    report = labelled.report
    assert (report.rows, report.left_out["empty text"]) == (ROWS, ROWS // 10)
    assert report.kept + len(left) == ROWS
    assert sum(report.histogram) == ROWS - ROWS // 10


def test_evaluating_a_chunk_at_a_time_changes_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": text, "label": label} for text, label in tiny.texts(90, seed=8)]
    whole = tunesmith.evaluate(run.path, data=rows)
    monkeypatch.setattr(prediction_stream, "MOST", 7)
    assert tunesmith.evaluate(run.path, data=rows) == whole


@pytest.mark.timeout(400)  # starts processes, one after the other
def test_killed_at_random_and_resumed_is_the_same_to_the_last_bit(run: Run, source: Path, tmp_path: Path) -> None:
    whole, out, draw = tmp_path / "whole", tmp_path / "out", random.Random(0)
    words = ["predict", str(run.path), "--data", str(source), *KEPT, "--chunk-rows", "2", "--resume", "--output"]
    forked.run(forked.command, *words, str(whole))
    written = [0]
    for kill in range(3):
        process = forked.start(tmp_path / "log", forked.command, *words, str(out))
        wanted = written[-1] + draw.randint(0, 12)
        while process.is_alive() and len(list(out.glob("part-*"))) <= wanted:
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.01))
        process.kill()
        process.join()
        there = {name: content for name, content in files(out).items() if name.startswith("part-")}
        assert there.items() <= files(whole).items()
        written.append(len(there))
        assert written[kill] < written[kill + 1] < ROWS // 2
    forked.run(forked.command, *words, str(out))
    assert len(files(out)) == 1 + ROWS // 2
    assert files(out) == files(whole)
    assert not (out / "_chunks").exists()


def test_what_was_changed_is_not_resumed(run: Run, source: Path, tmp_path: Path) -> None:
    resume, out = OutputSettings(resume=True), tmp_path / "out"
    write_predictions(run, source, out, settings(chunk_rows=20))
    before = files(out)
    with pytest.raises(RecipeError, match=r"it exists\n  found: 120 predictions of run"):
        write_predictions(run, source, out, settings(chunk_rows=20))
    with pytest.raises(
        RecipeError, match="found: only_predictions: True instead of False; chunk_rows: 30 instead of 20"
    ):
        write_predictions(run, source, out, settings(chunk_rows=30, only_predictions=True), output_settings=resume)
    other = tmp_path / "other" / "run"
    shutil.copytree(run.path, other)
    (other / "recipe.yaml").write_text((other / "recipe.yaml").read_text() + "\n# changed\n")
    with pytest.raises(RunError, match=r"recipe.yaml has changed"):
        write_predictions(Run(other), source, out, settings(chunk_rows=20), output_settings=resume)
    rows = [{"text": text, "label": label} for text, label in tiny.texts(60, seed=1)]
    another = tunesmith.train(rows, ["method=linear", f"output_dir={tmp_path}"], run_dir=tmp_path / "another")
    with pytest.raises(RecipeError, match="another run: another instead of run"):
        write_predictions(another, source, out, settings(chunk_rows=20), output_settings=resume)
    frame = pandas.read_parquet(source)
    frame.loc[119, "review"] = "another text"
    frame.to_parquet(source)
    with pytest.raises(RecipeError, match=r"other data than new.parquet had"):
        write_predictions(run, source, out, settings(chunk_rows=20), output_settings=resume)
    assert files(out) == before
    (out / "notes.txt").write_text("mine")
    with pytest.raises(RecipeError, match=r"it is not empty\n  found: notes.txt"):
        write_predictions(run, source, out, settings(), output_settings=OutputSettings(overwrite=True))
    (out / "notes.txt").unlink()
    write_predictions(run, source, out, settings(), output_settings=OutputSettings(overwrite=True))
    assert [name for name in files(out) if name.startswith("part-")] == ["part-00000.parquet"]


def test_a_damaged_part_is_predicted_again(
    run: Run, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    write_predictions(run, source, out, settings(chunk_rows=20))
    before = files(out)
    (out / "part-00001.parquet").write_bytes(before["part-00001.parquet"][:-9])
    (out / "part-00003.parquet").unlink()
    capsys.readouterr()
    write_predictions(run, source, out, settings(chunk_rows=20), output_settings=OutputSettings(resume=True))
    assert files(out) == before
    said = capsys.readouterr().err
    assert "part-00001.parquet has changed since it was written: its rows are predicted again" in said
    assert "part-00003.parquet is missing" in said
    manifest = json.loads((out / "_manifest.json").read_text())
    (out / "_manifest.json").write_text(json.dumps(manifest | {"rows": 7}))
    with pytest.raises(RunError, match=r"_manifest.json is damaged"):
        write_predictions(run, source, out, settings(chunk_rows=20), output_settings=OutputSettings(resume=True))


@pytest.mark.parametrize("output", ["out", "out.csv"])
def test_a_full_disk_costs_nothing_that_was_written(
    output: str, run: Run, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        if len(list(tmp_path.glob("out/part-*"))) == 3 or output == "out.csv":
            raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(FileError, match="No space left on device"):
            write_predictions(run, source, output, settings(chunk_rows=20))
    assert not Path("out.csv").exists()
    again = OutputSettings(resume=output == "out")
    assert write_predictions(run, source, output, settings(chunk_rows=20), output_settings=again).rows == ROWS


def test_a_source_that_changes_on_the_way_is_noticed(run: Run, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = prediction_stream.LabelRows.rows

    def changing(self: prediction_stream.LabelRows, examples: Any) -> Rows:
        pandas.DataFrame({"review": ["x"]}).to_parquet(source)
        return rows(self, examples)

    monkeypatch.setattr(prediction_stream.LabelRows, "rows", changing)
    with pytest.raises(DataError, match="was changed while it was read"):
        write_predictions(run, source, "out", settings(chunk_rows=200))


@pytest.mark.timeout(400)  # starts processes, one after the other
def test_two_processes_write_the_files_of_one(run: Run, source: Path, tmp_path: Path) -> None:
    words = ["predict", str(run.path), "--data", str(source), *KEPT, "--chunk-rows", "9", "--output"]
    assert cli.main([*words, str(tmp_path / "one")]) == 0
    ranks = forked.ranks(2, ACCELERATE_USE_CPU="true")
    forked.run(forked.command, *words, str(tmp_path / "two"), environments=ranks)
    assert files(tmp_path / "two") == files(tmp_path / "one")
    (tmp_path / "two" / "part-00005.parquet").unlink()  # the part of a process that died
    forked.run(forked.command, *words, str(tmp_path / "two"), "--resume", environments=ranks)
    assert files(tmp_path / "two") == files(tmp_path / "one")


def test_several_processes_need_a_folder(run: Run, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match="several processes write a folder"):
        write_predictions(run, source, "out.csv", settings())


def test_outputs_that_cannot_be(run: Run, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["predict", str(run.path), "--data", str(source), *KEPT]
    for more, problem in (
        (["--output", "out.csv", "--resume"], "--resume is for a folder"),
        (["--output", "out.xml"], "a name that ends in .parquet, .csv, .jsonl, or a folder"),
        (["--output", "out.csv", "--format", "jsonl"], "cannot write out.csv as jsonl"),
        (["--output", "out", "--resume", "--overwrite"], "exclude each other"),
        (["--output", "nowhere/out.csv"], "no folder nowhere"),
        (["--output", str(run.path)], "it is not empty"),
        (["--output", str(source)], "it is the input"),
        (["--output", "out", "--chunk-rows", "-1"], "expected: at least 1"),
        (["--output", "/proc/out"], "cannot make the folder /proc/out"),
    ):
        assert cli.main([*words, *more]) == 2
        assert problem in capsys.readouterr().err
    assert cli.main(["predict", str(run.path), "--text", "a goal", "--output", "out"]) == 2
    assert "folders are for --data" in capsys.readouterr().err
    (source.parent / "data").mkdir()
    source.rename(source.parent / "data" / "train.parquet")
    with pytest.raises(RecipeError, match="it is in the input"):
        write_predictions(run, "data", "data/out/", settings())


def test_stdin_and_stdout_in_a_pipe(run: Run, tmp_path: Path) -> None:
    rows = [{"review": text, "n": n} for n, (text, _) in enumerate(tiny.texts(3000))]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    command = [sys.executable, "-m", "tunesmith", "predict", str(run.path), "--data", "-", "data.text=review"]
    options: dict[str, Any] = {"capture_output": True, "text": True, "check": False}
    done = subprocess.run([*command, "--output", "-", "--chunk-rows", "7"], input=lines, **options)
    shown = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["n"] for row in shown] == list(range(3000))
    assert shown[4]["id"] == "stdin.jsonl:5"
    head = f"{' '.join(command)} --output - --chunk-rows 7 | head -n 2"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", head], input=lines, **options)
    assert [json.loads(line)["n"] for line in done.stdout.splitlines()] == [0, 1]
    assert (done.returncode, done.stderr) == (0, "")
    table = "review;n\n" + "".join(f"{row['review']};{row['n']}\n" for row in rows[:5])
    done = subprocess.run([*command, "--output", "-", "--format", "csv"], input=table, **options)
    assert [row["n"] for row in csv.DictReader(done.stdout.splitlines())] == list("01234")
    assert "read with the delimiter ';'" in done.stderr


def test_a_frame_and_a_spreadsheets_csv_are_written(run: Run, tmp_path: Path) -> None:
    frame = pandas.DataFrame({"Text (en)": [text for text, _ in tiny.texts(9)], "price": [1.5, None, *range(7)]})
    frame.to_csv(tmp_path / "new.csv", sep=";", decimal=",", index=False, encoding="utf-8-sig")
    column = PredictionSettings(["data.text='Text (en)'"])
    for given, name in ((frame, "a.parquet"), (tmp_path / "new.csv", "b.parquet")):
        write_predictions(run, given, name, column)
    a, b = pandas.read_parquet("a.parquet"), pandas.read_parquet("b.parquet")
    assert a["predicted_label"].tolist() == b["predicted_label"].tolist()
    assert (a["price"].dtype, b["price"][0]) == (float, "1,5")


def test_columns_of_mixed_values_are_text_and_types_have_to_stay() -> None:
    rows: Rows = [{"mixed": 1, "list": [1], "none": None, "n": 1}, {"mixed": "a", "list": [], "none": None, "n": 2}]
    types = row_encoders.column_types(["mixed", "list", "none", "n"], rows, {})
    assert [str(kind) for kind in types.values()] == ["string", "string", "string", "int64"]
    encoder = row_encoders.ParquetEncoder(types)
    assert encoder.encode([*rows, {"mixed": "\ud800", "list": {"a": 1}, "none": 7, "n": 3}])
    with pytest.raises(DataError, match=r"column 'n' as Parquet\n  expected: int64 in every row"):
        encoder.encode([{"n": "many"}])
    with pytest.raises(DataError, match="columns that the first rows lack"):
        encoder.encode([{"id": 1, "other": 2}])
