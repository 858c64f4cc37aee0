"""What separates the fields of a CSV file: found out, and never wrong where it is a comma."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from tunesmith import recipe as recipes
from tunesmith.data import delimited, read
from tunesmith.data.files import File
from tunesmith.data.rows import Row
from tunesmith.errors import DataError, RecipeError
from tunesmith.recipe import Data, Split
from tunesmith.types import DataNote

CELL = st.text(st.sampled_from("ab ;|\t,\"'\n\ré1"), max_size=12)


def table(path: Path, content: str | bytes, **settings: str) -> tuple[tuple[str, ...], list[list[str]], list[str]]:
    """The columns, the cells and the notes of a CSV file."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    read = delimited.read_csv(File(path, path.name, **settings))  # type: ignore[arg-type]
    items = list(read.items)
    cells = [list(item.values.values()) for item in items if isinstance(item, Row)]
    return read.columns, cells, [item.what for item in items if isinstance(item, DataNote)]


@given(st.integers(1, 4).flatmap(lambda width: st.lists(st.lists(CELL, min_size=width, max_size=width), max_size=40)))
def test_a_comma_stays_a_comma(tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]) -> None:
    """Whatever the texts hold: semicolons, bars, tabs, quotes, line breaks."""
    header = ["text", "label", "a;b", "c|d"][: len(rows[0]) if rows else 2]
    out = io.StringIO()
    csv.writer(out).writerows([header, *rows])
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    _, cells, notes = table(path, out.getvalue())
    assert not [note for note in notes if "delimiter" in note]
    assert cells == rows


@given(st.sampled_from(";\t|"), st.lists(st.lists(CELL, min_size=3, max_size=3), min_size=1, max_size=40))
def test_what_excel_writes_elsewhere_is_read(
    tmp_path_factory: pytest.TempPathFactory, mark: str, rows: list[list[str]]
) -> None:
    out = io.StringIO()
    csv.writer(out, delimiter=mark).writerows([["text", "label", "stars"], *rows])
    columns, cells, notes = table(tmp_path_factory.mktemp("csv") / "a.csv", out.getvalue())
    assert (columns, cells) == (("text", "label", "stars"), rows)
    assert f"read with the delimiter {mark!r} instead of a comma" in notes


@pytest.mark.parametrize(
    "content",
    [
        "Text, long;label\n1,5 stars;a\nok;b\n",
        '"Text, long";label\n"1,5; really";a\nok;b\n',
        "Text;label\r\nà l'heure, oui;a\r\n\r\nok;b\r\n",
        "sep=;\r\nText;label\r\nx;a\r\n",
        '"sep=|"\nText|label\nx|a\n',
        "\ufeffText\tlabel\nx\ta\n",
    ],
)
def test_headers_of_other_delimiters(tmp_path: Path, content: str) -> None:
    columns, cells, notes = table(tmp_path / "a.csv", content)
    assert columns[1] == "label"
    assert [row[1] for row in cells] == ["a", "b"][: len(cells)]
    assert any("the delimiter" in note for note in notes)


def test_the_line_that_names_the_separator_counts_as_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes('sep=;\r\ntext;label\r\n"so; so";x\r\nfine;y;z\r\n'.encode("cp1252"))
    with pytest.raises(DataError, match=r"a\.csv:4: 3 fields instead of 2"):
        read(Data(path=str(tmp_path / "a.csv")), Split(), 0)


def test_a_comma_file_with_a_ragged_row_stays_one(tmp_path: Path) -> None:
    _, cells, notes = table(tmp_path / "a.csv", "text,label\na;b,x\nc;d,y,z\ne;f,y\n")
    assert cells == [["a;b", "x"], ["e;f", "y"]]
    assert notes == []


def test_a_file_of_excel_in_europe_needs_no_settings(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("text;label\r\n1,50 € für Müll;gut\r\nschön;gut\r\nschlecht, teuer;schlecht\r\n".encode("cp1252"))
    rows = read(
        Data(path=str(path), encoding="utf-8,cp1252", on_bad_rows="drop"), Split(test_size=0, validation_size=0), 0
    )
    assert rows.train[0].text == "1,50 € für Müll"


def test_the_setting_decides(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    content = "text;x~label\na,b~1\n"
    assert table(path, content, delimiter="~")[:2] == (("text;x", "label"), [["a,b", "1"]])
    assert table(path, content, delimiter="~")[2] == []
    assert table(path, "text;label\na;b\n", delimiter=",")[0] == ("text;label",)
    assert table(path, "sep=;\ntext,label\na,b\n", delimiter=",")[0] == ("text", "label")
    for written in ("tab", "\\t", "\t"):
        recipe = recipes.load({"data": {"path": "x.csv", "delimiter": written}})
        assert recipe.data.delimiter == "\t"
    assert recipes.load({}, ["data.delimiter=;"]).data.delimiter == ";"
    assert recipes.load({}, ["data.delimiter=|"]).data.delimiter == "|"
    for wrong in ("", ";;", '"', "\n"):
        with pytest.raises(RecipeError, match=r"data\.delimiter"):
            recipes.load({"data": {"delimiter": wrong}})


def test_a_delimiter_reaches_every_kind_of_source(tmp_path: Path) -> None:
    for name in ("train.csv", "test.csv"):
        (tmp_path / name).write_text("text~label\na~x\nb~y\n")
    for data in (
        Data(path=str(tmp_path), delimiter="~"),
        Data(train=str(tmp_path / "train.csv"), test=str(tmp_path / "t*st.csv"), delimiter="~"),
    ):
        assert len(read(data, Split(validation_size=0), 0).test) == 2
