"""Folds: every row in one, stratified, groups and equal texts together."""

from __future__ import annotations

from collections import Counter

import pytest

from tests import tiny
from tunesmith.data import folds
from tunesmith.tasks import classification, multilabel
from tunesmith.types import Example


def rows(count: int) -> list[Example]:
    return [Example(f"r:{n}", text, label=label) for n, (text, label) in enumerate(tiny.texts(count))]


def test_every_fold_has_its_share_of_each_label() -> None:
    examples = rows(100)
    assigned = folds.assign(examples, 5, 42, classification.strata)
    assert sorted(Counter(assigned).values()) == [20] * 5
    counts = Counter(zip(assigned, (row.label for row in examples), strict=True))
    assert {6, 7} == set(counts.values())


def test_groups_and_equal_texts_lie_in_one_fold() -> None:
    examples = [
        Example(f"r:{n}", f"text {n % 30}", label="ab"[n % 2], group=str(n // 4) if n < 40 else None) for n in range(90)
    ]
    assigned = folds.assign(examples, 5, 1, classification.strata)
    for key in ("text", "group"):
        places: dict[str, set[int]] = {}
        for row, fold in zip(examples, assigned, strict=True):
            if getattr(row, key) is not None:
                places.setdefault(getattr(row, key), set()).add(fold)
        assert all(len(found) == 1 for found in places.values())


@pytest.mark.parametrize("seed", [0, 1])
def test_folds_repeat_for_a_seed_and_differ_between_seeds(seed: int) -> None:
    examples = rows(60)
    assigned = folds.assign(examples, 5, seed, classification.strata)
    assert assigned == folds.assign(examples, 5, seed, classification.strata)
    assert assigned != folds.assign(examples, 5, seed + 7, classification.strata)


def test_rare_labels_of_rows_with_several_are_spread() -> None:
    examples = [
        Example(f"r:{n}", f"text {n}", labels=("common", "rare") if n % 20 == 0 else ("common",)) for n in range(100)
    ]
    assigned = folds.assign(examples, 5, 3, multilabel.strata)
    rare = [fold for row, fold in zip(examples, assigned, strict=True) if "rare" in (row.labels or ())]
    assert sorted(rare) == [0, 1, 2, 3, 4]
    assert sorted(Counter(assigned).values()) == [20] * 5
