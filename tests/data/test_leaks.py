"""Copies across splits are reported, removed or refused, and splits that are made keep them on one side."""

from __future__ import annotations

import random
from itertools import combinations
from pathlib import Path

import pytest

from tests.random_texts import WORDS, text
from tunesmith import recipe as recipes
from tunesmith.data import LABEL_LISTS, duplicates, near_duplicates, read, splits
from tunesmith.data.text_keys import text_key
from tunesmith.errors import DataError
from tunesmith.recipe import Data, Split
from tunesmith.types import Example


def write(path: Path, rows: list[tuple[str, str]]) -> str:
    path.write_text("".join(f'"{one}","{label}"\n' for one, label in [("text", "label"), *rows]), encoding="utf-8")
    return str(path)


@pytest.fixture
def leaking(tmp_path: Path) -> Data:
    """Train: 40 rows, then copies of test rows 0 to 3 (near, upper case, with !, exact) and one of validation row 0."""
    held_out = [(text(1000 + n), "xy"[n % 2]) for n in range(20)]
    changed = held_out[0][0].replace(held_out[0][0].split()[3], "another", 1)
    copies = [changed, held_out[1][0].upper(), held_out[2][0] + "!", held_out[3][0], held_out[10][0].title()]
    train = [(text(n), "xy"[n % 2]) for n in range(40)] + [(copy, "x") for copy in copies]
    return Data(
        train=write(tmp_path / "train.csv", train),
        validation=write(tmp_path / "val.csv", held_out[10:]),
        test=write(tmp_path / "test.csv", held_out[:10]),
    )


SAME, FOLDED, NEAR = duplicates.IN_TWO.values()


def test_leaks_are_reported_by_grade(leaking: Data) -> None:
    notes = {note.what: note.where for note in read(leaking, Split(), 0).notes}
    assert notes[f"{NEAR} in train and test"] == ("train.csv:42",)
    assert notes[f"{FOLDED} in train and test"] == ("train.csv:43", "train.csv:44")
    assert notes[f"{SAME} in train and test"] == ("train.csv:45",)
    assert notes[f"{FOLDED} in train and validation"] == ("train.csv:46",)


def test_removed_leaks_leave_the_earlier_split_and_are_counted(leaking: Data) -> None:
    removed = read(leaking, Split(leaks="remove"), 0)
    assert len(removed.train) == 40
    assert (len(removed.validation), len(removed.test)) == (10, 10)
    counts = {note.what: note.count for note in removed.notes}
    assert counts[f"removed from train: {FOLDED} in test"] == 2
    assert counts[f"removed from train: {FOLDED} in validation"] == 1
    assert removed.copies is not None
    assert not duplicates.copies(removed.test, removed.train, removed.copies)


def test_an_error_names_rows_and_what_to_do(leaking: Data) -> None:
    with pytest.raises(DataError) as caught:
        read(leaking, Split(leaks="error"), 0)
    message = str(caught.value)
    assert "1 rows of train are copies of rows of validation" in message
    assert "train.csv:46 of val.csv:2 (normalised)" in message
    assert "split.leaks" in message


def test_at_threshold_1_near_copies_are_left_alone(leaking: Data) -> None:
    equal = read(leaking, Split(leaks="remove", duplicate_threshold=1), 0)
    assert [row.id for row in equal.train[40:]] == ["train.csv:42"]


@pytest.mark.parametrize("setting", ["duplicates=remove", "split.duplicates=remove", "leaks=remove"])
def test_the_old_name_is_understood(setting: str) -> None:
    assert recipes.load({}, [setting]).split.leaks == "remove"
    assert recipes.load({"split": {"duplicates": "remove"}}).split.leaks == "remove"


def families(count: int, size: int, seed: int = 0) -> list[tuple[str, str]]:
    """`count` texts in `size` versions each, mixed, beside as many single texts."""
    draw = random.Random(seed)
    rows = []
    for n in range(count):
        words = text(5000 + n).split()
        for _ in range(size):
            words[draw.randrange(len(words))] = draw.choice(WORDS)
            rows.append((" ".join(words), "xy"[n % 2]))
    rows += [(text(9000 + n), "xy"[n % 2]) for n in range(len(rows))]
    draw.shuffle(rows)
    return rows


@pytest.mark.parametrize("seed", range(3))
def test_near_duplicates_stay_on_one_side_of_a_cut(tmp_path: Path, seed: int) -> None:
    data = Data(path=write(tmp_path / "data.csv", families(40, 3)))
    made = read(data, Split(), seed)
    assert made.copies is not None
    parts = (made.train, made.validation, made.test)
    assert [len(part) for part in parts] == [168, 24, 48]
    assert all(not duplicates.copies(one, other, made.copies) for one, other in combinations(parts, 2))
    assert sum(len(duplicates.repeats(part, made.copies)) for part in parts) >= 80
    apart = read(data, Split(duplicate_threshold=1), seed)
    index = near_duplicates.find([apart.train, apart.test], 0.7)
    assert duplicates.copies(apart.test, apart.train, index)


def test_data_without_near_duplicates_is_cut_as_before(tmp_path: Path) -> None:
    data = Data(path=write(tmp_path / "data.csv", [(text(n), "xy"[n % 2]) for n in range(200)]))
    assert read(data, Split(), 1).fingerprints == read(data, Split(duplicate_threshold=1), 1).fingerprints


def test_a_template_is_not_kept_together_and_this_is_said(tmp_path: Path) -> None:
    rows = [(f"Your order {n} has been shipped to you today.", "x") for n in range(60)]
    rows += [(text(n), "xy"[n % 2]) for n in range(200)]
    made = read(Data(path=write(tmp_path / "data.csv", rows)), Split(), 0)
    notes = {note.what: note.count for note in made.notes}
    assert notes["near-duplicates not kept in one split: more alike rows than a split should have"] == 60
    assert notes[f"{FOLDED} in train and test"] > 0
    assert [len(part) for part in (made.train, made.validation, made.test)] == [182, 26, 52]


def test_where_units_leave_no_room_a_split_still_has_its_rows(tmp_path: Path) -> None:
    rows = [(text(n % 3) + " " + WORDS[n], "xy"[n % 2]) for n in range(24)]
    made = read(Data(path=write(tmp_path / "data.csv", rows)), Split(test_size=4, validation_size=4), 0)
    assert [len(part) for part in (made.train, made.validation, made.test)] == [16, 4, 4]
    assert any("no split could have its size" in note.what for note in made.notes)


def test_sets_of_labels_are_cut_with_near_duplicates_together(tmp_path: Path) -> None:
    data = Data(path=write(tmp_path / "data.csv", families(40, 3)), label_separator="|")
    made = read(data, Split(), 0, LABEL_LISTS)
    assert made.copies is not None
    assert not duplicates.copies(made.test, made.train, made.copies)


def test_units_are_linked_over_groups_and_copies() -> None:
    one, other = text(1), text(2)
    rows = [
        Example("a", one),
        Example("b", one + " more", group="g"),
        Example("c", other, group="g"),
        Example("d", text(3)),
        Example("e", other.upper()),
    ]
    index = near_duplicates.find([rows], 0.7)
    equal = splits.units(rows)
    assert equal == [[0], [1, 2], [3], [4]]
    assert splits.near_units(rows, equal, index) == ([[0, 1, 2, 4], [3]], [])


def test_copies_name_the_most_similar_row_and_its_grade() -> None:
    base = text(1)
    others = [Example(str(n), each) for n, each in enumerate([f"{base} a b c d", f"{base} a", base.upper(), text(2)])]
    rows = [Example("x", f"{base} a!"), Example("y", text(3)), Example("z", base), Example("w", f"{base} q")]
    index = near_duplicates.find([rows, others], 0.7)
    found = {copy.id: (copy.copy, copy.grade) for copy in duplicates.copies(rows, others, index)}
    assert found == {"x": ("1", "normalised"), "z": ("2", "normalised"), "w": ("2", "near")}
    again = [*rows, Example("x2", f"{base} a!"), Example("z2", base.upper())]
    index = near_duplicates.find([again], 0.7)
    found = {copy.id: (copy.copy, copy.grade) for copy in duplicates.repeats(again, index)}
    assert found == {"z": ("x", "near"), "w": ("z", "near"), "x2": ("x", "exact"), "z2": ("z", "normalised")}
    assert {text_key(row) for row in again} == index.numbers.keys()
