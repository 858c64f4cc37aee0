"""Tables of examples: what was put in comes out, and splits made of tables are those made of tuples."""

from __future__ import annotations

import csv
import gc
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import tiny
from tests.conftest import write_csv
from tunesmith.data import example_table, read_unlabelled
from tunesmith.data.example_table import (
    ExampleTable,
    characters,
    collect,
    fields,
    join,
    leave_out,
    save,
    take,
    targets,
    text_hashes,
)
from tunesmith.data.text_keys import text_key
from tunesmith.errors import FileError
from tunesmith.pipeline.task_table import read_splits
from tunesmith.recipe import load
from tunesmith.types import Example, Message


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three rows are many, and lie in several batches."""
    monkeypatch.setattr(example_table, "MOST_BYTES", 1000)
    monkeypatch.setattr(example_table, "ROWS", 7)


def odd_rows(count: int) -> list[Example]:
    rows = [Example(f"a.csv:{place}", f"text {place} \u00e4\ud800\0", label=str(place % 3)) for place in range(count)]
    turns = (Message("user", "hi \ud800", "input"), Message("assistant", "yes", learned=False))
    rows[1] = Example("b", "", "pair", None, "group", turns, 1.5, ("x", "\ud801"), 2.0)
    rows[2] = Example("c", "t", "", "", "", (), float("inf"), (), 0.5)
    return rows


def test_rows_come_out_as_they_went_in(many: None, tmp_path: Path) -> None:
    rows = odd_rows(50)
    table = collect(rows)
    assert isinstance(table, ExampleTable)
    assert list(table) == rows
    assert table == rows
    assert table == tuple(rows)
    assert [message.learned for message in table[1].messages] == [True, False]  # which equality leaves out
    save(table, tmp_path / "rows.arrow")
    assert ExampleTable.open(tmp_path / "rows.arrow") == rows


def test_any_rows_in_any_order(many: None) -> None:
    rows, draw = odd_rows(50), random.Random(0)
    table = collect(rows)
    for _ in range(100):
        places = [draw.randrange(50) for _ in range(draw.randrange(30))]
        taken = take(table, places)
        assert list(taken) == list(take(rows, places)) == [rows[place] for place in places]
        start, stop, step = draw.randrange(-60, 60), draw.randrange(-60, 60), draw.choice([-3, -1, 1, 2])
        assert list(taken[start:stop:step]) == [rows[place] for place in places][start:stop:step]
        assert leave_out(taken, {0, 3}) == [rows[place] for n, place in enumerate(places) if n not in {0, 3}]
        if places:
            assert taken[-1] == rows[places[-1]]
    with pytest.raises(IndexError):
        table[50]
    joined = join([table[3:5], (), tuple(rows[:2]), take(table, [9, 1])])
    assert list(joined) == [*rows[3:5], *rows[:2], rows[9], rows[1]]


def test_few_rows_are_a_tuple() -> None:
    rows = odd_rows(20)
    assert collect(rows) == tuple(rows)
    assert not collect([])
    assert join([rows[:2], rows[2:]]) == tuple(rows)


def test_no_file_is_left_behind_also_where_reading_fails(
    many: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    rows = odd_rows(50)

    def failing() -> Iterator[Example]:
        yield from rows
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        collect(failing())
    gc.collect()  # the traceback holds what was collected
    assert list(collect(rows)) == rows
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_table_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "rows.arrow").write_bytes(b"ARROW1\0\0 and no more")
    with pytest.raises(FileError, match=r"cannot read .*rows\.arrow"):
        ExampleTable.open(tmp_path / "rows.arrow")


@pytest.mark.parametrize("more", [[], ["split.leaks=remove"], ["split.max_samples=40"], ["split.group=group"]])
def test_splits_made_of_tables_are_those_made_of_tuples(
    more: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = tiny.texts(150)
    texts += [(f"{text.upper()}!", label) for text, label in texts[:20]] + texts[:5]
    rows = [(text, label, str(number // 3)) for number, (text, label) in enumerate(texts)]
    test = write_csv(tmp_path / "test.csv", [*texts[30:50], *tiny.texts(20, seed=9)])
    source = tmp_path / "reviews.csv"
    with source.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label", "group"), *rows])
    for words in ([f"data.path={source}"], [f"data.train={source}", f"data.test={test}"]):
        if "group" in str(more) and len(words) > 1:
            continue  # the test rows have none
        recipe = load({}, [*words, *more])
        plain = read_splits(recipe)
        with monkeypatch.context() as patch:
            patch.setattr(example_table, "MOST_BYTES", 1000)
            patch.setattr(example_table, "ROWS", 7)
            columns = read_splits(recipe)
            unlabelled = read_unlabelled(recipe.data)
        assert isinstance(columns.train, ExampleTable)
        assert columns == plain
        assert columns.copies is not None
        assert plain.copies is not None
        assert list(columns.copies.first) == list(plain.copies.first)
        assert dict(columns.copies.numbers) == dict(plain.copies.numbers)
        assert isinstance(unlabelled[0], ExampleTable)
        assert unlabelled == read_unlabelled(recipe.data)


def test_targets_of_rows(many: None) -> None:
    rows = odd_rows(50)
    table = collect(rows)
    backwards = take(table, range(49, -1, -1))
    for made, wanted in ((targets(table), rows), (targets(backwards), rows[::-1])):
        assert [(row.gold, row.group, row.weight) for row in made] == [
            (row.gold, row.group, row.weight) for row in wanted
        ]
        assert len({id(row) for row in made}) == 5  # three labels, and two odd rows
    assert targets(rows) is rows


def test_columns_are_those_of_the_rows(many: None) -> None:
    rows = odd_rows(50)
    order = [*range(49, -1, -1), 3, 3]
    table, wanted = take(collect(rows), order), [rows[place] for place in order]
    assert isinstance(table, ExampleTable)
    assert [*fields(table, "text", "labels", "messages")] == [(row.text, row.labels, row.messages) for row in wanted]
    assert characters(table).tolist() == characters(wanted).tolist()
    assert len({*characters(table).tolist()}) > 3
    assert text_hashes(table).tolist() == [[*divmod(text_key(row), 2**64)] for row in wanted]
    assert not len(text_hashes(table[:0]))
    assert not len(text_hashes(()))
