"""Files of answers: columns under many names, several models, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tunesmith.data import response_files
from tunesmith.errors import DataError, RunError
from tunesmith.pipeline import response_comparison
from tunesmith.pipeline.response_comparison import ResponseColumns
from tunesmith.types import ResponseRow

DATA = Path(os.environ.get("TUNESMITH_DATA") or Path(__file__).parents[3] / "shared" / "data")
BOOK = DATA / "llms_from_scratch_ch07"


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    lines = path.suffix == ".jsonl"
    text = "".join(json.dumps(row) + "\n" for row in rows) if lines else json.dumps(rows)
    path.write_text(text, encoding="utf-8")
    return path


ROW = {"instruction": "Add.", "input": "1 + 1", "output": "2", "model_response": "3"}


def model(path: Path, **named: Any) -> list[ResponseRow]:
    """The rows of the only model in a file."""
    (rows,) = response_files.read(path, **named).models.values()
    return rows


def parts(rows: list[ResponseRow]) -> list[tuple[Any, ...]]:
    return [(row.instruction, row.input, row.reference, row.response) for row in rows]


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_a_row_in_alpacas_shape_with_a_response(tmp_path: Path, suffix: str) -> None:
    found = response_files.read(write(tmp_path / f"said{suffix}", [ROW])).models
    assert list(found) == ["said"]
    assert parts(found["said"]) == [("Add.", "1 + 1", "2", "3")]
    assert found["said"][0].prompt == "Add.\n\n1 + 1"
    assert found["said"][0].id.startswith(f"said{suffix}:")


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
        ("prompt", "output", "completion"),
        ("instruction", "completion", "response"),
    ],
)
def test_columns_go_by_many_names(tmp_path: Path, columns: tuple[str, str, str]) -> None:
    row = dict(zip(columns, ("asked", "gold", "said"), strict=True))
    assert parts(model(write(tmp_path / "a.json", [row]))) == [("asked", "", "gold", "said")]


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        (("Model 1 response", "model_2_response"), ["Model 1", "model 2"]),
        (("right_response", "GPT-4 response"), ["right", "GPT-4"]),
        (("response_a", "response_b"), ["response a", "response b"]),
        (("model_a_answer", "model_b_answer"), ["model a", "model b"]),
        (("one response", "one_response"), ["one response", "one_response"]),
    ],
)
def test_several_response_columns_are_several_models(
    tmp_path: Path, columns: tuple[str, str], names: list[str]
) -> None:
    row = {"instruction": "a", "output": "b", columns[0]: "c", columns[1]: ""}
    found = response_files.read(write(tmp_path / "a.json", [row])).models
    assert list(found) == names
    assert [rows[0].response for rows in found.values()] == ["c", ""]


def test_named_columns_override_the_names(tmp_path: Path) -> None:
    row = ROW | {"Chosen": "x", "rejected": "y", "gold": "z"}
    path = write(tmp_path / "a.json", [row])
    found = response_files.read(path, responses=["chosen", "rejected"], reference="output").models
    assert {name: (rows[0].response, rows[0].reference) for name, rows in found.items()} == {
        "Chosen": ("x", "2"),
        "rejected": ("y", "2"),
    }
    with pytest.raises(DataError, match=r"no key 'nope'(.|\n)*'model_response'"):
        response_files.read(path, responses=["nope"])
    assert model(path, reference="gold", responses=["output"])[0].response == "2"


@pytest.mark.parametrize("column", ["id", "question_id"])
def test_own_ids_are_kept_where_they_tell_rows_apart(tmp_path: Path, column: str) -> None:
    rows = [ROW | {column: n} for n in (7, 8)]
    assert [row.id for row in model(write(tmp_path / "a.json", rows))] == ["7", "8"]
    rows[1][column] = 7
    found = response_files.read(write(tmp_path / "a.json", rows))
    assert [row.id for row in found.models["a"]] == ["a.json:row 1", "a.json:row 2"]
    assert [change.what for change in found.changes] == ["duplicate ids; using row numbers"]


def test_no_response_is_not_an_empty_one_and_references_may_be_missing(tmp_path: Path) -> None:
    rows = [ROW | {"model_response": said} for said in ("yes", "", None)] + [{"instruction": "a", "output": ""}]
    found = model(write(tmp_path / "a.json", rows))
    assert [(row.response, row.reference) for row in found] == [
        ("yes", "2"),
        ("", "2"),
        (None, "2"),
        (None, None),
    ]
    bare = write(tmp_path / "b.json", [{"instruction": "a", "response": "b"}])
    with pytest.raises(DataError, match="no reference"):
        response_files.read(bare)
    assert parts(model(bare, graded=False)) == [("a", "", None, "b")]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"instruction": "a", "output": "b"}], r"no response(.|\n)*'instruction', 'output'(.|\n)*--response"),
        ([{"text": "a", "response": "b"}], r"no instruction(.|\n)*'text', 'response'"),
        ([ROW | {"gold": "2"}], "'output' and 'gold' could each be the reference"),
        ([ROW | {"model 1 response": "2"}], "'model_response' and 'model 1 response' could each be the response"),
        ([ROW | {"instruction": " "}], "a.json:row 1: no instruction"),
        ([ROW | {"model_response": ["x"]}], "a.json:row 1: model_response that is neither"),
        ([ROW | {"model_response": None}], "holds none"),
        (["x"], "1 rows cannot be read: row that is not an object"),
        ([], "no rows"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        response_files.read(write(tmp_path / "a.json", rows))


def test_what_is_no_source_of_answers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        response_comparison.read(tmp_path / "nothing.json", ResponseColumns())
    with pytest.raises(RunError, match="not a run directory"):
        response_comparison.read(tmp_path, ResponseColumns())
    with pytest.raises(DataError, match="unknown file format"):
        response_comparison.read(write(tmp_path / "a.txt", [ROW]), ResponseColumns())


@pytest.mark.skipif(not BOOK.is_dir(), reason="needs the book's files: set TUNESMITH_DATA")
def test_the_books_own_files() -> None:
    found = response_files.read(BOOK / "eval-example-data.json").models
    assert {name: len(rows) for name, rows in found.items()} == {"model 1": 100, "model 2": 100}
    rows = model(BOOK / "instruction-data-with-response.json")
    assert len(rows) == 110
    assert rows[0].response == "The car is as fast as a bullet."
