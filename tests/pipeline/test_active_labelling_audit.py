"""`audit --unlabelled`: rows to label next, as a file."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import tunesmith
from tests import small_runs, tiny
from tests.conftest import write_csv
from tunesmith import cli
from tunesmith.auditing.active_labelling import ActiveLabellingAudit
from tunesmith.errors import DataError, RecipeError

LINEAR = ["method=linear"]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "texts.csv", tiny.texts(200))


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """200 new texts, one of them twice in other letters, and two that the data has."""
    new = [text for text, _ in tiny.texts(400)[200:]]
    lines = [*new, new[0].upper() + "!", tiny.texts(1)[0][0], tiny.texts(2)[1][0].title()]
    path = tmp_path / "pool.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("number", "text"), *((n, text) for n, text in enumerate(lines))])
    return path


def chosen(source: object, pool: object, count: int, *more: str, method: str = "linear") -> tuple[Path, Any]:
    found = tunesmith.audit(source, [*LINEAR, *more], method=method, unlabelled=pool, next_rows=count)
    return found.path / "next.csv", found.report.active_labelling


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_file_has_the_columns_of_the_pool_and_what_was_predicted(texts: Path, pool: Path) -> None:
    path, part = chosen(str(texts), str(pool), 20)
    rows = read(path)
    assert list(rows[0]) == ["id", "number", "text", "predicted_label", "probability", "reason"]
    assert len({row["id"] for row in rows}) == len(rows) == 20
    known = {row["text"]: row["number"] for row in read(pool)}
    assert all(known[row["text"]] == row["number"] for row in rows)
    assert not {row["text"].casefold() for row in rows} & {text.casefold() for text, _ in tiny.texts(200)}
    assert isinstance(part, ActiveLabellingAudit)
    assert (part.pool, part.same_as_labelled, part.repeated, part.chosen) == (203, 2, 1, 20)
    assert sum(part.predicted.values()) == 20
    assert rows[0]["reason"].startswith("between ")
    assert chosen(str(texts), str(pool), 20)[0].read_bytes() == path.read_bytes()


def test_chosen_rows_are_less_certain_than_others(texts: Path, pool: Path) -> None:
    some, every = (read(chosen(str(texts), str(pool), count)[0]) for count in (20, 1000))
    certainty = [sum(float(row["probability"]) for row in rows) / len(rows) for rows in (some, every)]
    assert len(every) == 200
    assert certainty[0] < certainty[1] - 0.05


@pytest.mark.parametrize("method", ["probe", "encoder"])
def test_other_methods(method: str, texts: Path, pool: Path, tiny_models: Any) -> None:
    words = [f"model.name_or_path={tiny_models('bert')}", "max_steps=2"]
    rows = read(chosen(str(texts), str(pool), 5, *words, method=method)[0])
    assert len(rows) == 5
    assert {row["predicted_label"] for row in rows} <= set(tiny.WORDS)


def test_several_labels_and_numbers(tmp_path: Path, pool: Path) -> None:
    tagged, prices = small_runs.tagged(tmp_path / "rows.jsonl"), small_runs.prices(tmp_path / "rows.csv")
    path, part = chosen(str(tagged), str(pool), 10, "task=multilabel", "data.label=labels")
    assert all(set(json.loads(row["predicted_labels"])) <= set(small_runs.TOPICS) for row in read(path))
    assert all(0.5 <= float(row["probability"]) <= 1 for row in read(path))
    path, part = chosen(str(prices), str(pool), 10, "task=regression")
    rows = read(path)
    assert all(900 < float(row["predicted_value"]) < 1300 for row in rows)
    assert part.predicted == {}
    every = read(chosen(str(prices), str(pool), 1000, "task=regression")[0])
    spread = [[float(row["reason"].split()[-1]) for row in of] for of in (rows, every)]
    assert sum(spread[0]) / len(spread[0]) > 1.1 * sum(spread[1]) / len(spread[1])
    with pytest.raises(RecipeError, match="does not say how sure it is of a number"):
        chosen(str(prices), str(pool), 10, "task=regression", method="encoder")


def test_tables_in_memory(texts: Path, pool: Path) -> None:
    path, _ = chosen(pd.read_csv(texts), pd.read_csv(pool), 20)
    of_files, _ = chosen(str(texts), str(pool), 20)
    assert [row["text"] for row in read(path)] == [row["text"] for row in read(of_files)]


def test_formulas_are_not_run(texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pool.csv").write_text("text,note\n=1+1 team,-2.5\ngoal,@now\n")
    rows = read(chosen(str(texts), str(tmp_path / "pool.csv"), 2)[0])
    assert {(row["text"], row["note"]) for row in rows} == {("'=1+1 team", "-2.5"), ("goal", "'@now")}
    assert "2 cells that a spreadsheet would run as a formula" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "count", "words", "message"),
    [
        ("review\nhello\n", 5, (), "unlabelled rows without column 'text'"),
        ("text,reason\nhello,x\n", 5, (), "columns that predictions are written to"),
        ("text\n", 5, (), "no rows"),
        ("text\nhello\n", 0, (), "--next is 0"),
    ],
)
def test_pools_that_cannot_be_used(
    content: str, count: int, words: Sequence[str], message: str, texts: Path, tmp_path: Path
) -> None:
    (tmp_path / "pool.csv").write_text(content)
    with pytest.raises((DataError, RecipeError), match=message):
        chosen(str(texts), str(tmp_path / "pool.csv"), count, *words)
    assert not (tmp_path / "runs").exists()


def test_instructions_have_no_rows_to_label(pairs: Path, pool: Path) -> None:
    with pytest.raises(RecipeError, match="for texts that get labels or numbers"):
        tunesmith.audit(str(pairs), ["task=instruction"], unlabelled=str(pool))


def test_the_command(texts: Path, pool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--method", "linear", "--unlabelled", str(pool), "--next", "3", "--output", "audit"]
    assert cli.main(["audit", str(texts), *LINEAR, *words]) == 0
    shown = capsys.readouterr().out
    assert "To label next: 3 of 203 unlabelled rows, in next.csv." in shown
    assert "3 of 203 unlabelled rows repeat a text" in shown
    assert len(read(Path("audit/next.csv"))) == 3
    page = Path("audit/report.html").read_text()
    assert "Which rows to label next" in page
    assert all(row["id"] in page for row in read(Path("audit/next.csv")))
    assert "## Which rows to label next" in Path("audit/report.md").read_text()
