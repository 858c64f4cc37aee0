"""Answers from files: columns under many names, several models, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tunesmith.data import answers
from tunesmith.errors import DataError, RunError

DATA = Path(os.environ.get("TUNESMITH_DATA") or Path(__file__).parents[3] / "shared" / "data")
BOOK = DATA / "llms_from_scratch_ch07"


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    lines = path.suffix == ".jsonl"
    text = "".join(json.dumps(row) + "\n" for row in rows) if lines else json.dumps(rows)
    path.write_text(text, encoding="utf-8")
    return path


ROW = {"instruction": "Add.", "input": "1 + 1", "output": "2", "model_response": "3"}


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_a_row_in_alpacas_shape_with_a_response(tmp_path: Path, suffix: str) -> None:
    (found,) = answers.read(write(tmp_path / f"said{suffix}", [ROW]))
    (row,) = found.rows
    assert (found.model, row.instruction, row.input, row.reference, row.response) == ("said", "Add.", "1 + 1", "2", "3")
    assert row.prompt == "Add.\n\n1 + 1"
    assert row.id.startswith(f"said{suffix}:")


@pytest.mark.parametrize(
    "columns",
    [
        ("instruction", "output", "response"),
        ("Instruction", "Reference", "Model_Response"),
        ("prompt", "label", "predict"),
        ("question", "reference_answer", "output"),
        ("PROMPT", "ground truth", "generated_text"),
        ("query", "expected response", "answer"),
        ("input", "target", "completion"),
    ],
)
def test_columns_go_by_many_names(tmp_path: Path, columns: tuple[str, str, str]) -> None:
    row = dict(zip(columns, ("asked", "gold", "said"), strict=True))
    (found,) = answers.read(write(tmp_path / "a.json", [row]))
    assert [(one.instruction, one.input, one.reference, one.response) for one in found.rows] == [
        ("asked", "", "gold", "said")
    ]


def test_several_response_columns_are_several_models(tmp_path: Path) -> None:
    row = {"instruction": "a", "output": "b", "Model 1 response": "c", "model_2_response": ""}
    first, second = answers.read(write(tmp_path / "a.json", [row]))
    assert (first.model, first.rows[0].response) == ("model 1", "c")
    assert (second.model, second.rows[0].response) == ("model 2", "")


def test_named_columns_override_the_names(tmp_path: Path) -> None:
    row = ROW | {"Chosen": "x", "rejected": "y", "gold": "z"}
    path = write(tmp_path / "a.json", [row])
    first, second = answers.read(path, ["chosen", "rejected"], "output")
    assert [(one.model, one.rows[0].response, one.rows[0].reference) for one in (first, second)] == [
        ("chosen", "x", "2"), ("rejected", "y", "2"),
    ]  # fmt: skip
    with pytest.raises(DataError, match=r"no column 'nope'(.|\n)*'model_response'"):
        answers.read(path, ["nope"])


def test_own_ids_are_kept_where_they_tell_rows_apart(tmp_path: Path) -> None:
    rows = [ROW | {"id": n} for n in (7, 8)]
    assert [one.id for one in answers.read(write(tmp_path / "a.json", rows))[0].rows] == ["7", "8"]
    rows[1]["id"] = 7
    assert [one.id for one in answers.read(write(tmp_path / "a.json", rows))[0].rows] == [
        "a.json:row 1",
        "a.json:row 2",
    ]


def test_no_response_is_not_an_empty_one(tmp_path: Path) -> None:
    rows = [ROW | {"model_response": said} for said in ("yes", "", None)] + [{"instruction": "a", "output": "b"}]
    (found,) = answers.read(write(tmp_path / "a.json", rows))
    assert [one.response for one in found.rows] == ["yes", ""]
    assert found.unanswered == ("a.json:row 3", "a.json:row 4")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"instruction": "a", "output": "b"}],
            r"no column of responses(.|\n)*'instruction', 'output'(.|\n)*--response",
        ),
        ([{"text": "a", "response": "b"}], r"no column of instructions(.|\n)*'text', 'response'"),
        ([ROW | {"instruction": " "}], "a.json:row 1: no instruction"),
        ([ROW | {"model_response": ["x"]}], "a.json:row 1: model_response that is neither"),
        ([ROW | {"model_response": None}], "holds no response"),
        (["x"], "a.json:row 1: row that is not an object"),
        ([], "no rows"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        answers.read(write(tmp_path / "a.json", rows))


def test_what_is_no_file_of_answers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        answers.read(tmp_path / "nothing.json")
    with pytest.raises(RunError, match="not a run directory"):
        answers.read(tmp_path)
    with pytest.raises(DataError, match="not a file of answers"):
        answers.read(write(tmp_path / "a.txt", [ROW]))


def test_a_run_directory_gives_its_predictions(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "generator:lora"}', encoding="utf-8")
    (tmp_path / "predictions").mkdir()
    stored = {"id": "x.json:row 1", "prompt": "Add.\n\n1 + 1", "reference": "2", "loss": 1.5, "learned": 2}
    write(
        tmp_path / "predictions" / "test.jsonl",
        [stored | {"response": "3", "tokens": 2, "ended": True}, stored | {"id": "y"}],
    )
    (found,) = answers.read(tmp_path)
    assert (found.model, found.unanswered) == ("generator:lora", ("y",))
    assert found.rows == (answers.Answer("x.json:row 1", "Add.\n\n1 + 1", "", "2", "3"),)


@pytest.mark.skipif(not BOOK.is_dir(), reason="needs the book's files: set TUNESMITH_DATA")
def test_the_books_own_files() -> None:
    first, second = answers.read(BOOK / "eval-example-data.json")
    assert [(one.model, len(one.rows)) for one in (first, second)] == [("model 1", 100), ("model 2", 100)]
    (one,) = answers.read(BOOK / "instruction-data-with-response.json")
    assert len(one.rows) == 110
    assert one.rows[0].response == "The car is as fast as a bullet."
