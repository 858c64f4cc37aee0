"""Rows with several labels are split so that every split has its share of each label."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tunesmith.data import iterative_stratification, splits
from tunesmith.tasks import multilabel
from tunesmith.types import Example

SIZES = {"train": 700, "validation": 100, "test": 200}


def drawn(rows: int, labels: int, seed: int) -> list[list[str]]:
    """Labels that become rarer: the first has half of the rows, the last about 1%."""
    draw = np.random.default_rng(seed)
    shares = 0.5 * 0.02 ** (np.arange(labels) / (labels - 1))
    return [[f"label {k}" for k in np.flatnonzero(row)] for row in draw.random((rows, labels)) < shares]


@pytest.mark.parametrize("seed", range(5))
def test_every_split_has_its_share_of_every_label(seed: int) -> None:
    labels = drawn(1000, 20, seed)
    assigned = iterative_stratification.assign([[n] for n in range(1000)], labels, SIZES, random.Random(seed))
    assert {name: assigned.count(name) for name in SIZES} == pytest.approx(SIZES, abs=10)
    for label in {label for row in labels for label in row}:
        holders = [name for name, row in zip(assigned, labels, strict=True) if label in row]
        for name, size in SIZES.items():
            assert abs(holders.count(name) - len(holders) * size / 1000) <= max(1, 0.02 * len(holders))
        assert "train" in holders


def test_units_stay_together_and_the_same_seed_gives_the_same_split() -> None:
    labels = drawn(1000, 10, 0)
    units = [[n, n + 1] for n in range(0, 1000, 2)]
    first, again, other = (
        iterative_stratification.assign(units, labels, SIZES, random.Random(seed)) for seed in (1, 1, 2)
    )
    assert first == again != other
    assert all(first[a] == first[b] for a, b in units)


def test_a_label_of_one_unit_is_in_train() -> None:
    labels = [["common"]] * 99 + [["rare"]]
    units = [[n] for n in range(100)]
    for seed in range(20):
        assigned = iterative_stratification.assign(units, labels, {"train": 50, "test": 50}, random.Random(seed))
        assert assigned[99] == "train"


def test_a_sample_of_train_keeps_every_label() -> None:
    """`shared` is never the rarest label of a row, so that no stratum is its own."""
    rows = tuple(
        Example(f"{partner}{n}", f"{partner} {n}", labels=("shared", partner) if n < 2 else (partner,))
        for partner in "abcdef"
        for n in range(11)
    )
    for seed in range(20):
        sampled, _ = splits.sample({"train": rows}, 8, seed, multilabel.strata)
        assert len(sampled["train"]) == 8
        assert {label for row in sampled["train"] for label in row.all_labels} == {"shared", *"abcdef"}
