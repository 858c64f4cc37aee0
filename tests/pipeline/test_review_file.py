"""Review files as people and spreadsheets leave them: read as they were meant, or refused with their lines."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import tunesmith
from tests import tiny
from tests.conftest import write_csv
from tunesmith.errors import DataError, FileError, RecipeError
from tunesmith.pipeline import review_file
from tunesmith.pipeline.commands.apply_review import CleanedData
from tunesmith.types import Example

Rows = list[dict[str, str]]
LABELS = ("sport", "caf\u00e9")
DECISIONS = ("drop", "relabel", "keep", "")
"""Of the four rows of the review file."""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    topics = {"sport": LABELS[0], "tech": LABELS[1]}
    return write_csv(
        tmp_path / "topics.csv", [(text, topics[label]) for text, label in tiny.texts(40, labels=tuple(topics))]
    )


@pytest.fixture
def rows(source: Path) -> Rows:
    """Lines of a review file, each with a decision."""
    with source.open(encoding="utf-8", newline="") as file:
        data = list(csv.DictReader(file))
    lines = []
    for n, decision in enumerate(DECISIONS):
        text, label = data[n]["text"], data[n]["label"]
        other = LABELS[1 - LABELS.index(label)]
        content = review_file.content_of(Example("", text, label=label))
        row = {"decision": decision, "new_label": other, "label": label, "text": text, "split": "train"}
        lines.append(row | {"id": f"topics.csv:{n + 2}", "content": content})
    return lines


def table(rows: Rows, columns: Sequence[str] | None = None, delimiter: str = ",", end: str = "\r\n") -> str:
    out = io.StringIO()
    writer = csv.DictWriter(
        out, columns or list(rows[0]), delimiter=delimiter, lineterminator=end, extrasaction="ignore"
    )
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def apply(source: Path, content: bytes, name: str = "review.csv") -> CleanedData:
    Path(name).write_bytes(content)
    return tunesmith.apply_review(name, str(source), output="cleaned.csv")


def is_applied(source: Path, rows: Rows, cleaned: CleanedData) -> bool:
    """Whether the first row went, the second has its new label, and all others are as they were."""
    with source.open(encoding="utf-8", newline="") as file:
        before = list(csv.DictReader(file))
    with cleaned.path.open(encoding="utf-8", newline="") as file:
        after = list(csv.DictReader(file))
    return after == [before[1] | {"label": rows[1]["new_label"]}, *before[2:]]


ANY_ORDER = ("text", "content", "id", "notes", "new_label", "decision")
SAVED: dict[str, Callable[[Rows], bytes]] = {
    "as it was": lambda rows: table(rows).encode(),
    "semicolons": lambda rows: table(rows, delimiter=";").encode(),
    "semicolons and Windows-1252": lambda rows: table(rows, delimiter=";").encode("cp1252"),
    "tabs and UTF-16": lambda rows: table(rows, delimiter="\t").encode("utf-16"),
    "a byte order mark": lambda rows: table(rows).encode("utf-8-sig"),
    "line feeds": lambda rows: table(rows, end="\n").encode(),
    "other columns in another order": lambda rows: table([row | {"notes": "?"} for row in rows], ANY_ORDER).encode(),
    "columns without a name": lambda rows: table(rows).replace("\r\n", ",,\r\n").encode(),
    "empty rows": lambda rows: (table(rows) + ",,,,,,\r\n \r\n" * 3).encode(),
    "a row with a remark": lambda rows: (table(rows) + ",,,well done,,,\r\n").encode(),
    "a row less": lambda rows: table(rows[:3]).encode(),
    "a row twice": lambda rows: table([*rows, rows[0]]).encode(),
    "a kept row twice, with another suggestion": lambda rows: table([*rows, rows[2] | {"new_label": "?"}]).encode(),
    "another case and spaces": lambda rows: table(
        [row | {"decision": f" {row['decision'].upper()}\u00a0", "id": f"{row['id']} "} for row in rows]
    ).encode(),
}


@pytest.mark.parametrize("how", SAVED)
def test_what_spreadsheets_and_people_do_to_a_review_file_changes_nothing(how: str, source: Path, rows: Rows) -> None:
    cleaned = apply(source, SAVED[how](rows))
    assert is_applied(source, rows, cleaned)
    assert {name: cleaned.provenance.counts[name] for name in ("drop", "relabel", "keep")} == {
        "drop": 1,
        "relabel": 1,
        "keep": 1,
    }


def test_a_jsonl_file(source: Path, rows: Rows) -> None:
    content = "".join(json.dumps(row) + "\n" for row in rows)
    assert is_applied(source, rows, apply(source, content.encode("utf-8-sig"), "review.jsonl"))


def _xlsx(rows: Rows) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("xl/workbook.xml", "<workbook/>")
    return out.getvalue()


REFUSED: dict[str, tuple[Callable[[Rows], bytes], str]] = {
    "an unknown decision": (
        lambda rows: table([rows[0], rows[1] | {"decision": "remove"}]).encode(),
        r"(?s)review\.csv:3: unknown decision 'remove'.*do: correct",
    ),
    "an unknown label": (
        lambda rows: table([rows[0], rows[1] | {"new_label": "Sports"}]).encode(),
        r"review\.csv:3: unknown label 'Sports'; the data has caf\u00e9, sport",
    ),
    "two decisions": (
        lambda rows: table([*rows, rows[0] | {"decision": "keep"}]).encode(),
        r"review\.csv:6: row topics\.csv:2 is decided twice, first in review\.csv:2",
    ),
    "a decision without an id": (
        lambda rows: table([rows[0] | {"id": ""}]).encode(),
        r"review\.csv:2: no id",
    ),
    "a row of other data": (
        lambda rows: table([rows[0] | {"id": "others.csv:2"}]).encode(),
        r"review\.csv:2: there is no row others\.csv:2",
    ),
    "another text": (
        lambda rows: table([rows[0] | {"content": rows[1]["content"]}]).encode(),
        r"review\.csv:2: row topics\.csv:2 has other texts or another label",
    ),
    "cells that are gone": (
        lambda rows: (table(rows) + "drop,sport\r\n").encode(),
        r"review\.csv:6: ragged row: 2 fields instead of 7",
    ),
    "a column that is gone": (
        lambda rows: table(rows, ["decision", "new_label", "id"]).encode(),
        r"review\.csv: no column content",
    ),
    "a spreadsheet under the name of a table": (_xlsx, r"review\.csv: not a text file"),
    "nothing": (lambda rows: b"", r"review\.csv: no rows"),
}


@pytest.mark.parametrize("how", REFUSED)
def test_what_is_not_clear_is_refused_and_nothing_is_written(how: str, source: Path, rows: Rows) -> None:
    make, message = REFUSED[how]
    before = source.read_bytes()
    with pytest.raises(DataError, match=message):
        apply(source, make(rows))
    assert source.read_bytes() == before
    assert not [path.name for path in Path.cwd().iterdir() if "cleaned" in path.name]


def test_a_spreadsheet_is_refused_by_its_name_and_a_folder_too(source: Path, rows: Rows) -> None:
    with pytest.raises(DataError, match=r"(?s)review\.xlsx.*CSV"):
        apply(source, _xlsx(rows), "review.xlsx")
    Path("folder.csv").mkdir()
    with pytest.raises(DataError, match=r"(?s)folder\.csv is not a file.*found: a folder"):
        tunesmith.apply_review("folder.csv", str(source), output="cleaned.csv")


def test_texts_with_zero_bytes_do_not_make_a_review_that_cannot_be_read(source: Path) -> None:
    topics = {"sport": LABELS[0], "tech": LABELS[1]}
    rows = [
        {"text": text.replace(" ", "\0", 1), "label": topics[label if n % 9 else "sport"]}
        for n, (text, label) in enumerate(tiny.texts(60, labels=tuple(topics)))
    ]
    Path("zeros.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tunesmith.audit("zeros.jsonl", ["linear.min_df=1", "bootstrap_samples=100"], method="linear", output="audit")
    with Path("audit/review.csv").open(encoding="utf-8", newline="") as file:
        review = list(csv.DictReader(file))
    assert review
    assert all("\\u0000" in row["text"] for row in review)
    cleaned = tunesmith.apply_review("audit/review.csv", output="cleaned.jsonl")
    assert [json.loads(line) for line in cleaned.path.read_text().splitlines()] == rows


def test_the_review_is_not_overwritten(source: Path, rows: Rows) -> None:
    Path("review.csv").write_text(table(rows))
    with pytest.raises(RecipeError, match="it is the input"):
        tunesmith.apply_review("review.csv", str(source), output="review.csv", overwrite=True)
    assert Path("review.csv").read_text() == table(rows).replace("\r\n", "\n")


@pytest.mark.parametrize("nth", [1, 2])
def test_a_full_disk_leaves_what_was_there(nth: int, source: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of provenance and data neither is written where one cannot be."""
    old = {"cleaned.csv": b"old", "cleaned.provenance.json": b"{}"}
    for name, content in old.items():
        Path(name).write_bytes(content)
    Path("review.csv").write_text(table(rows))
    sync, calls = os.fsync, []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) == nth:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match="No space left"):
        tunesmith.apply_review("review.csv", str(source), output="cleaned.csv", overwrite=True)
    assert {name: Path(name).read_bytes() for name in old} == old
    assert not list(Path.cwd().glob(".*.partial"))
