"""What a row must have, what labels are called, and that nothing is left out in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunesmith.data import read, read_unlabelled
from tunesmith.errors import DataError
from tunesmith.recipe import Data, Split
from tunesmith.types import Splits

GIVEN = Split(validation_size=0, test_size=0)
GOOD = [
    {"text": "a", "label": "x"},
    {"text": "b", "label": "y"},
    {"text": "c", "label": "x"},
    {"text": "d", "label": "y"},
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def read_rows(folder: Path, rows: list[dict[str, Any]], split: Split = GIVEN, **settings: Any) -> Splits:
    return read(Data(path=str(write(folder / "a.jsonl", rows)), **settings), split, 0)


def counts(splits: Splits) -> dict[str, int]:
    return {change.what: change.count for change in splits.notes}


def labelled(*labels: Any) -> list[dict[str, Any]]:
    return [{"text": f"text {i}", "label": label} for i, label in enumerate(labels)]


def test_texts_are_kept_as_they_are(tmp_path: Path) -> None:
    splits = read_rows(tmp_path, [*GOOD, {"text": "  e\n", "label": "x"}])
    assert splits.train[-1].text == "  e\n"
    assert splits.notes == ()


def test_columns_that_are_not_used_are_named_once(tmp_path: Path) -> None:
    rows = [{**row, "label2": "z", "split": "train", "date": "2026"} for row in GOOD]
    rows += [{**row, "text": row["text"] * 2, "split": "test"} for row in GOOD]
    notes = read_rows(tmp_path, rows, Split(validation_size=0, column="split")).notes
    assert [(note.what, note.count) for note in notes] == [("unused columns: label2, date", 2)]
    assert read_unlabelled(Data(path=str(tmp_path / "a.jsonl")))[1] == ()  # rows to predict keep theirs


def test_instructions_that_are_read_as_labelled_texts_are_recognized(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="set task=instruction"):
        read_rows(tmp_path, [{"instruction": "Go.", "output": "Yes."}])
    with pytest.raises(DataError) as caught:
        read_rows(tmp_path, [{"body": "Go.", "topic": "x"}])
    assert "instruction" not in str(caught.value)


def test_numbers_become_text_and_are_counted(tmp_path: Path) -> None:
    splits = read_rows(tmp_path, [*GOOD, {"text": 5, "label": "x"}, {"text": 2.5, "label": "y"}])
    assert [row.text for row in splits.train[-2:]] == ["5", "2.5"]
    assert counts(splits) == {"numbers read as text in column text": 2}


BAD_ROWS = [
    ({"text": "", "label": "x"}, "empty text"),
    ({"text": " \n\t", "label": "x"}, "empty text"),
    ({"text": None, "label": "x"}, "null text"),
    ({"label": "x"}, "null text"),
    ({"text": float("nan"), "label": "x"}, "null text"),
    ({"text": {"a": 1}, "label": "x"}, "text that is neither a string nor a number"),
    ({"text": True, "label": "x"}, "text that is neither a string nor a number"),
    ({"text": "e", "label": None}, "missing label"),
    ({"text": "e", "label": "  "}, "missing label"),
    ({"text": "e", "label": float("nan")}, "missing label"),
    ({"text": "e"}, "missing label"),
    ({"text": "e", "label": 0.5}, "label that is neither a string nor a whole number"),
    ({"text": "e", "label": ["x"]}, "label that is neither a string nor a whole number"),
    ({"text": "e", "label": "\ud800"}, "label with half a character (a lone surrogate)"),
]


@pytest.mark.parametrize(("row", "reason"), BAD_ROWS)
def test_a_bad_row_stops_or_is_dropped_and_counted(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError) as caught:
        read_rows(tmp_path, [*GOOD, row])
    assert f"{reason}: 1 (a.jsonl:5" in str(caught.value)
    assert "data.on_bad_rows=drop" in str(caught.value)
    splits = read_rows(tmp_path, [*GOOD, row], on_bad_rows="drop")
    assert [row.id for row in splits.train] == ["a.jsonl:1", "a.jsonl:2", "a.jsonl:3", "a.jsonl:4"]
    assert [(change.what, change.count, change.where) for change in splits.notes] == [
        (f"dropped: {reason}", 1, ("a.jsonl:5",))
    ]


def test_all_bad_rows_are_told_together(tmp_path: Path) -> None:
    rows = [*GOOD, *({"text": "", "label": "x"} for _ in range(7)), {"text": "secret", "label": None}]
    with pytest.raises(DataError) as caught:
        read_rows(tmp_path, rows)
    assert str(caught.value).splitlines() == [
        "a.jsonl: 8 bad rows of 12",
        "  expected: rows that can be read",
        "  found: empty text: 7 (a.jsonl:5, a.jsonl:6, a.jsonl:7, a.jsonl:8, a.jsonl:9 and 2 more)",
        "    missing label: 1 (a.jsonl:12)",
        "  do: fix these rows, or leave them out with data.on_bad_rows=drop",
    ]


def test_the_second_text_of_a_pair_is_checked_too(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": "x", "pair": "p"}, {"text": "b", "label": "y", "pair": " "}]
    with pytest.raises(DataError, match=r"empty text_pair: 1 \(a.jsonl:2\)"):
        read_rows(tmp_path, rows, text_pair="pair")


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (("b", "a", "B"), ("B", "a", "b")),
        ((10, 9, -1), ("-1", "9", "10")),
        (("10", "9", "2"), ("2", "9", "10")),
        ((1.0, 0.0, 2), ("0", "1", "2")),
        ((True, False), ("False", "True")),
        (("10", "9", "two"), ("10", "9", "two")),
    ],
)
def test_label_order(tmp_path: Path, values: tuple[Any, ...], labels: tuple[str, ...]) -> None:
    assert read_rows(tmp_path, labelled(*values, *values)).labels == labels


@pytest.mark.parametrize(
    ("values", "names", "expected"),
    [
        ((1, 0), ("neg", "pos"), ["pos", "neg"]),
        (("1", "0"), ("neg", "pos"), ["pos", "neg"]),
        (("1.0", "0.0"), ("neg", "pos"), ["pos", "neg"]),
        ((True, False), ("neg", "pos"), ["pos", "neg"]),
        (("pos", "neg"), ("neg", "pos"), ["pos", "neg"]),
        ((0, 1, 2), ("1", "2", "3"), ["1", "2", "3"]),
        ((1, 2, 3), ("1", "2", "3"), ["1", "2", "3"]),
    ],
)
def test_label_names(tmp_path: Path, values: tuple[Any, ...], names: tuple[str, ...], expected: list[str]) -> None:
    splits = read_rows(tmp_path, labelled(*values), label_names=names)
    assert [row.label for row in splits.train] == expected
    assert splits.labels == names


@pytest.mark.parametrize("policy", ["error", "drop"])
@pytest.mark.parametrize(("value", "told"), [(2, "'2'"), (-1, "'-1'"), ("good", "'good'")])
def test_labels_without_a_name_are_errors(tmp_path: Path, value: Any, told: str, policy: str) -> None:
    with pytest.raises(DataError, match=rf"{told}.*a\.jsonl:3"):
        read_rows(tmp_path, labelled(0, 1, value), label_names=("neg", "pos"), on_bad_rows=policy)


def test_a_repeated_label_name_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="duplicate names"):
        read_rows(tmp_path, labelled(0, 1), label_names=("neg", "neg"))


def test_labels_that_look_alike_stay_apart_and_are_told(tmp_path: Path) -> None:
    splits = read_rows(tmp_path, labelled("pos", "Pos ", "neg", "pos", "Pos ", "neg"))
    assert splits.labels == ("Pos ", "neg", "pos")
    assert counts(splits) == {"labels that differ only by case or spaces: 'Pos ', 'pos'": 2}


def test_labels_unseen_in_train(tmp_path: Path) -> None:
    train = str(write(tmp_path / "train.jsonl", GOOD))
    test = str(write(tmp_path / "test.jsonl", [{"text": "e", "label": "x"}, {"text": "f", "label": "z"}]))
    with pytest.raises(DataError, match=r"label unseen in train: 1 \(test\.jsonl:2: 'z'\)"):
        read(Data(train=train, test=test), GIVEN, 0)
    splits = read(Data(train=train, test=test, on_bad_rows="drop"), GIVEN, 0)
    assert (len(splits.test), splits.labels) == (1, ("x", "y"))
    assert counts(splits) == {"dropped: label unseen in train": 1}


def test_a_label_with_a_single_example_cannot_be_split(tmp_path: Path) -> None:
    rows = [*labelled("x", "y", "x", "y", "x", "y", "z")]
    with pytest.raises(DataError, match=r"label with a single example: 1 \(a\.jsonl:7: 'z'\)"):
        read_rows(tmp_path, rows, Split(test_size=2, validation_size=0))
    dropped = read_rows(tmp_path, rows, Split(test_size=2, validation_size=0), on_bad_rows="drop")
    assert (len(dropped.train), len(dropped.test), dropped.labels) == (4, 2, ("x", "y"))
    kept = read_rows(tmp_path, rows)
    assert counts(kept) == {"label with a single example in train": 1}
    assert kept.labels == ("x", "y", "z")


def test_missing_columns_of_all_files_are_told_together(tmp_path: Path) -> None:
    train = str(write(tmp_path / "train.jsonl", [{"review": "a", "stars": 1}]))
    test = str(write(tmp_path / "test.jsonl", [{"txt": "a", "label": 1}]))
    with pytest.raises(DataError) as caught:
        read(Data(train=train, test=test), Split(group="author"), 0)
    assert str(caught.value).splitlines() == [
        "train.jsonl: no column 'text' and no column 'label' and no column 'author'",
        "  expected: 'text' (data.text), 'label' (data.label), 'author' (split.group)",
        "  found: the columns review, stars",
        "  do: set data.text (--text-column); set data.label (--label-column); set split.group",
        "test.jsonl: no column 'text' and no column 'author'",
        "  expected: 'text' (data.text), 'label' (data.label), 'author' (split.group)",
        "  found: the columns txt, label",
        "  do: did you mean data.text=txt?; set split.group",
    ]


def test_rows_without_a_group_stand_alone(tmp_path: Path) -> None:
    rows = [{**row, "author": author} for row, author in zip(GOOD, ["ann", 3, None, ""], strict=True)]
    splits = read_rows(tmp_path, rows, GIVEN.model_copy(update={"group": "author"}))
    assert [row.group for row in splits.train] == ["ann", "3", None, None]
    assert counts(splits) == {"no group: the row is a group of its own": 2}


def test_nothing_left(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows are left in train"):
        read_rows(tmp_path, [{"text": "", "label": "x"}], on_bad_rows="drop")
    with pytest.raises(DataError, match="no rows are left to predict"):
        read_unlabelled(Data(path=str(write(tmp_path / "a.jsonl", [{"text": ""}])), on_bad_rows="drop"))


def test_bad_rows_stop_predictions_too(tmp_path: Path) -> None:
    path = str(write(tmp_path / "a.jsonl", [{"text": "a"}, {"text": ""}]))
    with pytest.raises(DataError, match=r"empty text: 1 \(a.jsonl:2\)"):
        read_unlabelled(Data(path=path))
    rows, changes = read_unlabelled(Data(path=path, on_bad_rows="drop"))
    assert (len(rows), changes[0].what) == (1, "dropped: empty text")


def test_labels_of_rows_to_predict_are_named_where_they_can_be(tmp_path: Path) -> None:
    path = str(write(tmp_path / "a.jsonl", labelled(0, 1, 7)))
    rows, _ = read_unlabelled(Data(path=path, label_names=("neg", "pos")))
    assert [row.label for row in rows] == ["neg", "pos", "7"]
