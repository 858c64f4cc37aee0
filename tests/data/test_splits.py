"""Splits: nothing lost, nothing twice, stratified within a row, groups and equal texts whole, the same every time."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings, strategies as st

from tunesmith.data import read, splits
from tunesmith.data.text_keys import text_key
from tunesmith.errors import DataError
from tunesmith.recipe import Data, Split
from tunesmith.types import Example, Splits

SIZES = st.fixed_dictionaries(
    {"test": st.sampled_from([0.1, 0.2, 0.35, 3]), "validation": st.sampled_from([0.1, 0.25, 2])}
)
SEEDS = st.integers(0, 2**32 - 1)
UNHURRIED = settings(deadline=None)  # machines are shared, time says nothing about the code
LABELS = st.lists(st.sampled_from("abcd"), min_size=12, max_size=200)


def rows(labels: Sequence[str], *, texts: int | None = None, groups: int | None = None) -> tuple[Example, ...]:
    """Rows with distinct texts, or with `texts` different ones; without groups, or with `groups` of them."""
    return tuple(
        Example(
            id=f"row:{i}",
            text=f"text {i if texts is None else i * 7919 % texts}",
            label=label,
            group=None if groups is None else str(i * 104729 % groups),
        )
        for i, label in enumerate(labels)
    )


def cut(train: tuple[Example, ...], sizes: dict[str, float], seed: int = 0) -> dict[str, tuple[Example, ...]]:
    return splits.cut({"train": train}, sizes, seed)[0]


def counted(size: float, total: int) -> int:
    return int(size) if size >= 1 else max(1, int(size * total + 0.5))


def is_possible(train: Sequence[Example], sizes: dict[str, float]) -> bool:
    held = sum(counted(size, len(train)) for size in sizes.values())
    return held <= len(train) - len({row.label for row in train})


@UNHURRIED
@given(labels=LABELS, sizes=SIZES, seed=SEEDS)
def test_a_cut_is_a_stratified_partition_of_the_asked_sizes(
    labels: list[str], sizes: dict[str, float], seed: int
) -> None:
    train = rows(labels)
    assume(is_possible(train, sizes))
    made, changes = splits.cut({"train": train}, sizes, seed)
    assert sorted((row for part in made.values() for row in part), key=lambda row: int(row.id[4:])) == list(train)
    assert all([int(row.id[4:]) for row in part] == sorted(int(row.id[4:]) for row in part) for part in made.values())
    assert {part: len(made[part]) for part in sizes} == {
        part: counted(size, len(train)) for part, size in sizes.items()
    }
    assert changes == []
    assert {row.label for row in made["train"]} == set(labels)
    totals = Counter(labels)
    held = sum(len(made[part]) for part in sizes) / len(train)
    if all(total * (1 - held) >= 3 for total in totals.values()):  # else the row that each label keeps in train binds
        for part in sizes:
            found = Counter(row.label for row in made[part])
            for label, total in totals.items():
                assert abs(found[label] - total * len(made[part]) / len(train)) < 1


@UNHURRIED
@given(labels=LABELS, sizes=SIZES, seed=SEEDS, groups=st.integers(6, 60), texts=st.integers(20, 400))
def test_groups_and_equal_texts_stay_whole(
    labels: list[str], sizes: dict[str, float], seed: int, groups: int, texts: int
) -> None:
    train = rows(labels, texts=texts, groups=groups)
    assume(is_possible(train, sizes))
    try:
        made, changes = splits.cut({"train": train}, sizes, seed)
    except DataError as error:
        assert "no row is left for" in str(error)  # noqa: PT017 - either outcome is right
        return
    assert sorted(row.id for part in made.values() for row in part) == sorted(row.id for row in train)
    part_of = {row.id: part for part, part_rows in made.items() for row in part_rows}
    for key in (lambda row: row.group, text_key):
        parts: dict[Any, set[str]] = {}
        for row in train:
            parts.setdefault(key(row), set()).add(part_of[row.id])
        assert all(len(found) == 1 for found in parts.values())
    assert {row.label for row in made["train"]} == set(labels)
    short = {part: counted(size, len(train)) - len(made[part]) for part, size in sizes.items()}
    assert all(missing >= 0 for missing in short.values())
    assert sorted(change.count for change in changes) == sorted(missing for missing in short.values() if missing)


@UNHURRIED
@given(labels=LABELS, sizes=SIZES, seed=SEEDS)
def test_a_cut_depends_on_seed_and_rows_alone(labels: list[str], sizes: dict[str, float], seed: int) -> None:
    train = rows(labels, texts=80)
    assume(is_possible(train, sizes))
    try:
        assert cut(train, sizes, seed) == cut(tuple(train), dict(sizes), seed)
    except DataError:
        with pytest.raises(DataError):
            cut(train, sizes, seed)


def test_small_groups_reach_the_sizes_and_shares() -> None:
    train = rows(["a", "a", "b", "a", "c"] * 200, groups=250)
    made = cut(train, {"test": 0.2, "validation": 0.1})
    assert (len(made["test"]), len(made["validation"])) == (200, 100)
    for part in made.values():
        shares = Counter(row.label for row in part)
        assert shares["a"] / len(part) == pytest.approx(0.6, abs=0.03)
        assert shares["c"] / len(part) == pytest.approx(0.2, abs=0.03)


def test_single_rows_even_out_what_groups_left_uneven() -> None:
    grouped = tuple(Example(f"g{i}", f"g{i}", None, "a", group=f"{i // 6}") for i in range(60))
    single = tuple(Example(f"s{i}", f"s{i}", None, "a" if i < 40 else "b") for i in range(140))
    made = cut(grouped + single, {"test": 20})
    assert Counter(row.label for row in made["test"]) == {"a": 10, "b": 10}
    assert sum(row.group is not None for row in made["test"]) == 6


def test_seeds_draw_different_rows() -> None:
    train = rows(["a", "b"] * 500)
    drawn = [frozenset(row.id for row in cut(train, {"test": 0.2}, seed)["test"]) for seed in range(3)]
    assert all(len(one & other) < 80 for one in drawn for other in drawn if one is not other)  # 40 by chance


def test_the_cut_is_pinned_and_free_of_the_hash_seed() -> None:
    program = (
        "from tunesmith.data import splits; from tunesmith.types import Example\n"
        "texts = [str(i // 3 * 3 if i % 10 == 0 else i) for i in range(60)]\n"
        "rows = tuple(Example(str(i), text, None, 'ab'[i % 7 < 3]) for i, text in enumerate(texts))\n"
        "print(*(row.id for row in splits.cut({'train': rows}, {'test': 8}, 42)[0]['test']))"
    )
    for seed in ("0", "1"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        run = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        assert run.stdout.split() == PINNED


PINNED = ["1", "3", "26", "31", "35", "42", "44", "54"]


def test_units_chain_groups_and_texts() -> None:
    chained = (
        Example("0", "a", group="g"),
        Example("1", "b", group="h"),
        Example("2", "c"),
        Example("3", "a", group="h"),
        Example("4", "c", text_pair="other"),
    )
    assert splits.units(chained) == [[0, 1, 3], [2], [4]]


def test_one_huge_group_is_told() -> None:
    huge = tuple(Example(str(i), str(i), None, "ab"[i % 2], group="g" if i < 95 else str(i)) for i in range(100))
    made, changes = splits.cut({"train": huge}, {"test": 20}, 0)
    assert len(made["test"]) == 5 - len({row.id for row in made["train"]} - {str(i) for i in range(95)})
    assert changes[0].what.startswith(f"test has {len(made['test'])} rows instead of 20")
    whole = tuple(Example(str(i), str(i), None, "ab"[i % 2], group="g") for i in range(100))
    with pytest.raises(DataError, match=r"no row is left for test(.|\n)*finer column"):
        cut(whole, {"test": 20})


@pytest.mark.parametrize("sizes", [{"test": 10}, {"test": 99}, {"test": 9}, {"test": 0.5, "validation": 0.4}])
def test_impossible_sizes(sizes: dict[str, float]) -> None:
    with pytest.raises(DataError, match=r"(?s)of 2 labels.*10 rows"):
        cut(rows("ababababab"), sizes)


@UNHURRIED
@given(labels=st.lists(st.sampled_from("abcd"), min_size=30, max_size=150), most=st.integers(4, 29), seed=SEEDS)
def test_samples_are_stratified_and_keep_every_label(labels: list[str], most: int, seed: int) -> None:
    train = rows(labels)
    (kept, changes), again = splits.sample({"train": train}, most, seed), splits.sample({"train": train}, most, seed)
    assert (kept, changes) == again
    assert len(kept["train"]) == most
    assert changes[0].count == len(train) - most
    assert [row for row in train if row in set(kept["train"])] == list(kept["train"])
    found, totals = Counter(row.label for row in kept["train"]), Counter(labels)
    assert set(found) == set(totals)
    if all(total * most / len(train) >= 1 for total in totals.values()):
        assert all(abs(found[label] - total * most / len(train)) < 1 for label, total in totals.items())


# --- through `read` ------------------------------------------------------------------------------------------------


def write(path: Path, pairs: Sequence[tuple[str, str]]) -> str:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *pairs])
    return str(path)


def some(count: int, prefix: str = "text") -> list[tuple[str, str]]:
    return [(f"{prefix} {i}", "xyz"[i % 3]) for i in range(count)]


def changes_of(read_splits: Splits) -> dict[str, tuple[int, tuple[str, ...]]]:
    return {change.what: (change.count, change.where) for change in read_splits.notes}


def test_missing_splits_are_made_from_the_original_train(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", some(100))
    made = read(Data(path=path), Split(), 42)
    assert (len(made.train), len(made.validation), len(made.test)) == (70, 10, 20)
    assert made.made == ("validation", "test")
    assert read(Data(path=path), Split(), 42) == made
    assert read(Data(path=path), Split(), 43).fingerprints != made.fingerprints
    numbers = read(Data(path=path), Split(validation_size=7, test_size=0), 42)
    assert (len(numbers.train), len(numbers.validation), len(numbers.test)) == (93, 7, 0)
    assert numbers.made == ("validation",)


def test_given_splits_are_kept(tmp_path: Path) -> None:
    train, test = write(tmp_path / "train.csv", some(50)), write(tmp_path / "test.csv", some(9, "other"))
    made = read(Data(train=train, test=test), Split(), 0)
    assert [row.text for row in made.test] == [text for text, _ in some(9, "other")]
    assert (len(made.train), len(made.validation), made.made) == (45, 5, ("validation",))


def test_duplicates_are_reported_or_removed(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", [*some(6), ("text 0", "x"), ("both", "x"), ("torn", "x")])
    validation = write(tmp_path / "val.csv", [("both", "x"), ("text 1", "y"), ("mine", "x")])
    test = write(tmp_path / "test.csv", [("both", "x"), ("torn", "y"), ("yours", "x")])
    data = Data(train=train, validation=validation, test=test)
    reported = read(data, Split(), 0)
    assert (len(reported.train), len(reported.validation), len(reported.test)) == (9, 3, 3)
    assert changes_of(reported) == {
        "exact duplicates within train": (1, ("train.csv:8",)),
        "same text with contradicting labels": (2, ("train.csv:10", "test.csv:3")),
        "same text in train and validation": (2, ("train.csv:3", "train.csv:9")),
        "same text in train and test": (2, ("train.csv:9", "train.csv:10")),
        "same text in validation and test": (1, ("val.csv:2",)),
    }
    removed = read(data, Split(leaks="remove"), 0)
    assert (len(removed.train), len(removed.validation), len(removed.test)) == (6, 2, 3)
    assert changes_of(removed)["removed from train: same text in validation"] == (2, ("train.csv:3", "train.csv:9"))
    assert changes_of(removed)["removed from validation: same text in test"] == (1, ("val.csv:2",))
    assert not {row.text for row in removed.train} & {row.text for row in removed.validation + removed.test}


def test_groups_in_two_given_splits_are_reported(tmp_path: Path) -> None:
    for name, author in (("train", "ann"), ("test", "ann")):
        lines = [f"{name} {i},{'xy'[i % 2]},{author if i else 'bob' + name}" for i in range(4)]
        (tmp_path / f"{name}.csv").write_text("text,label,author\n" + "\n".join(lines))
    found = read(Data(path=str(tmp_path)), Split(group="author", validation_size=0), 0)
    assert changes_of(found) == {
        "same group in train and test": (3, ("train.csv:3", "train.csv:4", "train.csv:5")),
        "test rows lie in 2 groups of author: intervals take rows as independent and are too narrow": (4, ()),
    }


def test_max_samples_cuts_each_split_and_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", some(100))
    small = read(Data(path=path), Split(max_samples=9), 0)
    assert (len(small.train), len(small.validation), len(small.test)) == (9, 9, 9)
    assert Counter(row.label for row in small.train) == {"x": 3, "y": 3, "z": 3}
    assert {what: count for what, (count, _) in changes_of(small).items()} == {
        "left out of train by split.max_samples": 61,
        "left out of validation by split.max_samples": 1,
        "left out of test by split.max_samples": 11,
    }
    with pytest.raises(DataError, match=r"(?s)split.max_samples=2 .*at least 3, the number of labels"):
        read(Data(path=path), Split(max_samples=2), 0)


def test_fingerprints_are_of_contents_not_of_places(tmp_path: Path) -> None:
    pairs = some(12)
    one = read(Data(path=write(tmp_path / "a.csv", pairs)), Split(validation_size=0, test_size=0), 0)
    lines = "".join(json.dumps([text, None, label]) + "\n" for text, label in pairs)
    assert one.fingerprints["train"] == hashlib.sha256(lines.encode()).hexdigest()
    assert one.fingerprints["test"] == one.fingerprints["validation"] == hashlib.sha256(b"").hexdigest()
    assert set(one.fingerprints) == {"train", "validation", "test", "data"}
    moved = read(Data(path=write(tmp_path / "b.csv", pairs)), Split(validation_size=0, test_size=0), 9)
    assert moved.fingerprints == one.fingerprints
    swapped = read(Data(path=write(tmp_path / "b.csv", pairs[::-1])), Split(validation_size=0, test_size=0), 0)
    assert swapped.fingerprints["data"] != one.fingerprints["data"]


def test_fields_do_not_run_into_each_other() -> None:
    one = splits.fingerprint([Example("1", "ab", "c", "x")])
    assert one != splits.fingerprint([Example("1", "a", "bc", "x")])
    assert one != splits.fingerprint([Example("1", "ab", None, "x")])
