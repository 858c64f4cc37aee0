"""Parts of train: each inside the next, with every label, and whole groups."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from tests import tiny
from tests.conftest import write_csv
from tunesmith import data
from tunesmith.data import nested_subsets
from tunesmith.errors import DataError
from tunesmith.recipe import Data, Split
from tunesmith.tasks import classification, multilabel, regression
from tunesmith.types import Example

SIZES = (12, 30, 75, 190, 400)


def rows(count: int) -> list[Example]:
    """Rows of which 70%, 25% and 5% have a label each; every 8th repeats an earlier text, every 10th is in a group."""
    made = []
    for n in range(count):
        label = "a" if n % 20 < 14 else "b" if n % 20 < 19 else "c"
        text = f"text {n - 7 if n % 8 == 7 else n}"
        made.append(Example(f"row:{n}", text, label=label, group=f"g{n % 3}" if n % 10 == 3 and n < 40 else None))
    return made


@pytest.mark.parametrize("seed", [1, 2])
def test_parts_are_nested_stratified_and_whole(seed: int) -> None:
    examples = rows(600)
    nested = nested_subsets.order(examples, seed, classification.strata)
    parts = {size: nested.first(size) for size in SIZES}
    for smaller, larger in pairwise(SIZES):
        assert set(parts[smaller]) < set(parts[larger])
    assert nested.first(600) == list(range(600))
    assert nested == nested_subsets.order(examples, seed, classification.strata)
    for size, part in parts.items():
        assert size - 5 <= len(part) <= size
        counts = Counter(examples[i].label for i in part)
        for label, share in {"a": 0.7, "b": 0.25, "c": 0.05}.items():
            assert counts[label] == pytest.approx(share * len(part), abs=4)
            assert counts[label] >= 1
        inside = set(part)
        for unit in nested.units:  # groups and equal texts
            assert len(inside & set(unit)) in (0, len(unit))


def test_other_seeds_take_other_rows() -> None:
    examples = rows(600)
    first, second = (set(nested_subsets.order(examples, seed, classification.strata).first(100)) for seed in (1, 2))
    assert len(first & second) < 50


def test_every_label_of_several_is_kept() -> None:
    tags = [f"tag{k}" for k in range(20)]
    examples = [
        Example(f"row:{n}", f"text {n}", labels=(tags[n % 5], *([tags[n % 20]] if n > 200 else []))) for n in range(400)
    ]
    nested = nested_subsets.order(examples, 0, multilabel.strata)
    kept = {label for i in nested.first(20) for label in examples[i].all_labels}
    assert kept == set(tags)


def test_numbers_of_all_sizes_are_in_every_part() -> None:
    examples = [Example(f"row:{n}", f"text {n}", value=float(n)) for n in range(500)]
    part = nested_subsets.order(examples, 0, regression.strata).first(50)
    assert Counter(i // 50 for i in part) == dict.fromkeys(range(10), 5)


def test_the_setting_keeps_validation_and_test(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "reviews.csv", tiny.texts(240))
    whole = data.read(Data(path=str(path)), Split(), 1)
    parts = [data.read(Data(path=str(path)), Split(max_train_samples=size), 1) for size in (40, 80)]
    for part, size in zip(parts, (40, 80), strict=True):
        assert (part.test, part.validation, part.labels) == (whole.test, whole.validation, whole.labels)
        assert len(part.train) == size
        assert any(note.what == "left out of train by split.max_train_samples" for note in part.notes)
    assert set(parts[0].train) < set(parts[1].train) < set(whole.train)
    other = data.read(Data(path=str(path)), Split(max_train_samples=40, train_samples_seed=7), 1)
    assert set(other.train) != set(parts[0].train)
    assert other.test == whole.test


def test_too_few_rows_for_the_labels_are_refused() -> None:
    examples = [replace(row, label=f"label {n % 30}") for n, row in enumerate(rows(300))]
    with pytest.raises(DataError, match="leaves no row for some labels"):
        nested_subsets.sample(examples, 10, 0, classification.strata, "train")
