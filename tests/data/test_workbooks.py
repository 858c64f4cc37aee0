"""Excel workbooks: cells as CSV would have them, sheets by name, rows counted as Excel counts them."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest

from tests.written_files import Formula, write_xlsx
from tunesmith.data import files, read, read_unlabelled
from tunesmith.data.sources import tables
from tunesmith.errors import DataError, MissingExtra
from tunesmith.recipe import Data, Split

python_calamine = pytest.importorskip("python_calamine")
ALL = Split(test_size=0, validation_size=0)


def test_cells_are_those_of_a_csv_file(tmp_path: Path) -> None:
    rows = [
        [],
        ["text", "label", "day", "stars", "gone", None],
        ["good, really", "pos", (45000,), 4, None, None],
        [],
        [Formula("made by a formula"), "neg", (45000.5,), 4.5, "x", "lost"],
        [12, True, None, 1e20, None, None],
    ]
    path = write_xlsx(tmp_path / "a.xlsx", {"Reviews": rows})
    (table,) = tables(Data(path=str(path)), ALL, None).values()
    assert table.columns == ("text", "label", "day", "stars", "gone", "")
    items = list(table.items)
    values = {item.id: item.values for item in items if hasattr(item, "values")}
    assert values["a.xlsx:3"] == {
        "text": "good, really",
        "label": "pos",
        "day": "2023-03-15",
        "stars": 4,
        "gone": None,
        "": None,
    }
    assert values["a.xlsx:5"]["text"] == "made by a formula"
    assert values["a.xlsx:5"]["day"] == "2023-03-15T12:00:00"
    assert values["a.xlsx:6"] == {"text": 12, "label": True, "day": None, "stars": 10**20, "gone": None, "": None}
    assert [(item.what, item.where) for item in items if not hasattr(item, "values")] == [
        ("skipped: empty row", ("a.xlsx:4",)),
        ("ignored: cells of a column without a name", ("a.xlsx:5",)),
    ]


def test_sheets(tmp_path: Path) -> None:
    header = ["text", "label"]
    sheets = {
        "Notes": [],
        "Secret": [header, ["s", "x"]],
        "2024": [header, ["a", "x"], ["b", "y"]],
        "2025 new": [header, ["c", "x"], ["d", "y"]],
    }
    path = write_xlsx(tmp_path / "book.xlsx", sheets, hidden=["Secret"])
    first = read(Data(path=str(path)), ALL, 0)
    assert [row.text for row in first.train] == ["a", "b"]
    assert any("read sheet 2024 of the workbook alone; it also has 2025 new" in note.what for note in first.notes)
    splits = read(Data(train=f"{path}#2024", test=f"{path}#2025 new"), Split(validation_size=0), 0)
    assert [row.id for row in splits.test] == ["book.xlsx#2025 new:2", "book.xlsx#2025 new:3"]
    assert [row.text for row in read_unlabelled(Data(path=f"{path}#Secret"))[0]] == ["s"]
    with pytest.raises(DataError, match=r"no such sheet(.|\n)*Notes, Secret, 2024, 2025 new(.|\n)*found: '2026'"):
        read(Data(path=f"{path}#2026"), ALL, 0)
    with pytest.raises(DataError, match=r"data\.path: no such file"):
        read(Data(path=f"{tmp_path}/none.xlsx#2026"), ALL, 0)


def test_what_is_wrong_with_a_workbook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="no rows"):
        read(Data(path=str(write_xlsx(tmp_path / "empty.xlsx", {"A": []}))), ALL, 0)
    twice = write_xlsx(tmp_path / "twice.xlsx", {"A": [["text", "text"], ["a", "b"]]})
    with pytest.raises(DataError, match=r"twice\.xlsx:1: duplicate column names"):
        read(Data(path=str(twice)), ALL, 0)
    (tmp_path / "text.xlsx").write_text("text,label\n")
    (tmp_path / "old.xlsx").write_bytes(b"\xd0\xcf\x11\xe0" + b"\0" * 600)
    with zipfile.ZipFile(tmp_path / "zip.xlsx", "w") as archive:
        archive.writestr("a.txt", "a")
    for name in ("text", "old", "zip"):
        with pytest.raises(
            DataError, match=rf"{name}\.xlsx: not an Excel workbook that can be read(.|\n)*save it again"
        ):
            read(Data(path=str(tmp_path / f"{name}.xlsx")), ALL, 0)
    large = write_xlsx(tmp_path / "large.xlsx", {"A": [["text"], *(["a" * 1000],) * 2000]})
    monkeypatch.setattr(files, "UNPACKED_BYTES", 2**20)
    with pytest.raises(DataError, match=r"large\.xlsx: unpacks to too much"):
        read(Data(path=str(large)), ALL, 0)


def test_the_extra_is_named_where_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_xlsx(tmp_path / "a.xlsx", {"A": [["text", "label"], ["a", "x"]]})
    monkeypatch.setitem(sys.modules, "python_calamine", None)
    with pytest.raises(MissingExtra, match=r"tunesmith\[excel\]"):
        read(Data(path=str(path)), ALL, 0)
