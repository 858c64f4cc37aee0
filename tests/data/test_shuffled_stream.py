"""Rows without end: drawn once a pass, from a bounded buffer, and resumed at any position."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import chain, count
from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tunesmith import recipe as recipes, records
from tunesmith.data import shuffled_stream, sources
from tunesmith.data.encode import EncodedText
from tunesmith.data.rows import Item, Row, Table
from tunesmith.data.shuffled_stream import ShuffledStream, StreamPosition, open_stream, read_head
from tunesmith.errors import DataError, RecipeError
from tunesmith.recipe import Data, Split
from tunesmith.types import DataNote, Example

NONE_HELD_OUT = Split(test_size=0, validation_size=0)


def write(path: Path, rows: Iterable[Any]) -> Data:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Data(path=str(path), streaming=True)


def row(number: int) -> dict[str, str]:
    return {"instruction": f"Say {number}.", "output": str(number)}


def learned(example: Example) -> tuple[list[EncodedText], list[DataNote]]:
    """What stands for tokens: the answer. An answer of 3 figures counts as cut, one that ends with 7 as too long."""
    text = example.messages[-1].content
    if text.endswith("7"):
        return [], [DataNote("left out: longer", 1)]
    return [EncodedText(example.id, [int(text)], [int(text)])], [DataNote("cut", 1)] if len(text) > 2 else []


def numbers(stream: ShuffledStream, steps: Iterable[int]) -> list[list[int]]:
    return [[text.ids[0] for text in stream.draw(step)] for step in steps]


def test_every_row_is_drawn_once_a_pass_in_an_order_of_its_own(tmp_path: Path) -> None:
    data = write(tmp_path / "rows.jsonl", map(row, range(60))).model_copy(update={"shuffle_buffer": 20})
    rows = [number for number in range(60) if number % 10 != 7]
    stream = open_stream(data, NONE_HELD_OUT, 1, 18, learned)
    drawn = numbers(stream, range(6))
    passes = [[*chain(*drawn[:3])], [*chain(*drawn[3:])]]
    assert [sorted(one) for one in passes] == [rows, rows]
    assert passes[0] != passes[1]
    assert rows not in passes
    assert all(
        number < 18 + 20 + 4 for number in drawn[0]
    )  # those that had been read, rows that were left out included
    assert numbers(open_stream(data, NONE_HELD_OUT, 1, 18, learned), range(6)) == drawn
    assert numbers(open_stream(data, NONE_HELD_OUT, 2, 18, learned), range(6)) != drawn
    in_order = open_stream(data.model_copy(update={"shuffle_buffer": 1}), NONE_HELD_OUT, 1, 18, learned)
    assert [*chain(*numbers(in_order, range(6)))] == rows + rows
    assert stream.learned == 6 * 18


@pytest.mark.parametrize("buffer", [1, 7, 500])
def test_a_position_is_exact(buffer: int, tmp_path: Path) -> None:
    """From every step on, through JSON, also beyond the end of the source, the stream goes on as it would have."""
    data = write(tmp_path / "rows.jsonl", map(row, range(100, 160))).model_copy(update={"shuffle_buffer": buffer})
    split = Split(test_size=5, validation_size=3)
    whole = open_stream(data, split, 3, 11, learned)
    expected = numbers(whole, range(20))
    stream = open_stream(data, split, 3, 11, learned)
    for step in range(20):
        position = records.load(StreamPosition, json.loads(json.dumps(records.dump(stream.position))), "progress.json")
        resumed = open_stream(data, split, 3, 11, learned)
        resumed.restore(position)
        assert resumed.position == stream.position
        assert numbers(resumed, range(step, 20)) == expected[step:]
        assert resumed.notes == whole.notes
        assert numbers(stream, [step, step]) == [expected[step]] * 2  # again, in smaller micro-batches


def test_other_data_is_not_gone_on_with(tmp_path: Path) -> None:
    data = write(tmp_path / "rows.jsonl", map(row, range(200)))
    data = data.model_copy(update={"shuffle_buffer": 5})
    stream = open_stream(data, NONE_HELD_OUT, 3, 10, learned)
    stream.draw(0)
    position = stream.position
    write(tmp_path / "rows.jsonl", map(row, range(1, 201)))
    with pytest.raises(DataError, match=r"rows.jsonl: the data has changed[\s\S]*another row at this place"):
        open_stream(data, NONE_HELD_OUT, 3, 10, learned).restore(position)
    write(tmp_path / "rows.jsonl", map(row, range(9)))
    with pytest.raises(DataError, match=r"found: +9 rows"):
        open_stream(data, NONE_HELD_OUT, 3, 10, learned).restore(position)


def test_a_source_without_end_is_read_no_further_than_the_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    read = 0

    def endless() -> Iterator[Item]:
        nonlocal read
        for read in count(1):
            yield Row(f"row {read}", {"prompt": "a", "completion": str(10 * read)})

    def tables(*_: object) -> dict[str, Table]:
        return {"train": Table("endless", ("prompt", "completion"), endless())}

    monkeypatch.setattr(sources, "tables", tables)
    data = Data(path="x", streaming=True, shuffle_buffer=50)
    splits = read_head(data, Split(test_size=30, validation_size=20))
    assert [len(rows) for rows in (splits.test, splits.validation, splits.train)] == [30, 20, shuffled_stream.HEAD]
    assert splits.is_stream
    stream = open_stream(data, Split(test_size=30, validation_size=20), 0, 10, learned)
    drawn = numbers(stream, range(5))
    assert read <= 30 + 20 + 5 * 10 + 50
    held_out = {int(row.messages[-1].content) for row in (*splits.test, *splits.validation)}
    assert held_out == {10 * number for number in range(1, 51)}
    assert not held_out & {number for step in drawn for number in step}


def test_bad_rows_are_named_or_dropped_and_counted(tmp_path: Path) -> None:
    rows = [row(0), row(1), {"instruction": "no answer", "output": ""}, row(3), *map(row, range(100, 130))]
    data = write(tmp_path / "rows.jsonl", rows)
    with pytest.raises(DataError, match=r"rows\.jsonl:3"):
        read_head(data, NONE_HELD_OUT)
    dropped = data.model_copy(update={"on_bad_rows": "drop"})
    (bad,) = [note for note in read_head(dropped, NONE_HELD_OUT).notes if note.what.startswith("dropped")]
    assert (bad.count, bad.where) == (1, ("rows.jsonl:3",))
    stream = open_stream(dropped, NONE_HELD_OUT, 0, 30, learned)
    stream.draw(0)
    stream.draw(1)
    counts = {note.what: note.count for note in stream.notes}
    assert counts[bad.what] == 1
    assert (counts["cut"], counts["left out: longer"]) == (27, 3)
    assert counts["rows of the stream read, 1 passes through the source before"] == len(rows)


def test_held_out_rows_have_files_of_their_own(tmp_path: Path) -> None:
    write(tmp_path / "test.jsonl", map(row, range(5)))
    write(tmp_path / "train.jsonl", map(row, range(10, 40)))
    data = Data(train=str(tmp_path / "train.jsonl"), test=str(tmp_path / "test.jsonl"), streaming=True)
    splits = read_head(data, Split(validation_size=2))
    answers = {
        name: [int(example.messages[-1].content) for example in getattr(splits, name)]
        for name in ("train", "validation", "test")
    }
    assert answers == {"train": [*range(12, 40)], "validation": [10, 11], "test": [*range(5)]}
    assert splits.made == ("validation",)
    drawn = numbers(open_stream(data, Split(validation_size=2), 0, 25, learned), range(1))[0]
    assert sorted(drawn) == [number for number in range(12, 40) if number % 10 != 7]


def test_what_needs_all_rows_is_refused(tmp_path: Path) -> None:
    data = write(tmp_path / "rows.jsonl", map(row, range(30)))
    with pytest.raises(RecipeError, match=r"no length to take a share of[\s\S]*split\.test_size=0\.2"):
        read_head(data, Split(validation_size=3))
    for settings in ({"group": "author"}, {"column": "part"}, {"max_samples": 5}, {"max_train_samples": 5}):
        with pytest.raises(RecipeError, match=f"split.{next(iter(settings))}, which needs all rows"):
            read_head(data, NONE_HELD_OUT.model_copy(update=settings))
    with pytest.raises(RecipeError, match="copies are not sought"):
        read_head(data, NONE_HELD_OUT.model_copy(update={"leaks": "remove"}))
    with pytest.raises(DataError, match="too few rows to set aside 31 for test"):
        read_head(data, Split(test_size=31, validation_size=0))
    source = {"task": "instruction", "data": data, "train": {"max_steps": 3}, "split": {"test_size": 5}}
    source = recipes.load(source, ["validation_size=2"])
    with pytest.raises(RecipeError, match="an audit needs all rows"):
        tunesmith.audit(source)
    with pytest.raises(RecipeError, match="a learning curve needs all rows"):
        tunesmith.compare([source], methods=["generator", "generator:untuned"], learning_curve=True)
    with pytest.raises(RecipeError, match=r"needs train\.max_steps"):
        recipes.load({"task": "instruction", "data": {"path": "x", "streaming": True}})
    with pytest.raises(RecipeError, match="for task instruction, not classification"):
        recipes.load({"data": {"path": "x", "streaming": True}, "train": {"max_steps": 3}})
    stream = open_stream(data, NONE_HELD_OUT, 0, 5, lambda example: ([], [DataNote("left out: longer", 1)]))
    with pytest.raises(DataError, match=r"no training row is left[\s\S]*30 left out: longer"):
        stream.draw(0)
