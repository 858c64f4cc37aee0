"""Out-of-fold predictions: no row has a say in its own, and held-out rows get what a trained run gives them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests import tiny
from tests.conftest import write_csv
from tunesmith import recipe as recipes
from tunesmith.errors import DataError
from tunesmith.pipeline import out_of_fold
from tunesmith.pipeline.fitting import methods
from tunesmith.pipeline.part_training import PartTrainer
from tunesmith.pipeline.task_table import job_of, read_splits
from tunesmith.recipe import Recipe
from tunesmith.runs import Run
from tunesmith.types import Splits


def prepared(tmp_path: Path, rows: int = 90, *overrides: str) -> tuple[Recipe, Splits]:
    path = write_csv(tmp_path / "texts.csv", tiny.texts(rows))
    recipe = recipes.load({}, [f"data.path={path}", "linear.min_df=1", *overrides])
    return recipe, read_splits(recipe)


def table(predictions: list[object]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.array([prediction.probabilities for prediction in predictions])  # type: ignore[attr-defined]


def test_a_rows_own_label_does_not_enter_its_prediction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, splits = prepared(tmp_path)
    first = out_of_fold.predict(PartTrainer.of(recipe, splits, "linear"))
    monkeypatch.setattr(out_of_fold.data_folds, "assign", lambda *_: first.folds.tolist())
    changed = replace(splits.train[0], label="world" if splits.train[0].label != "world" else "tech")
    second = out_of_fold.predict(PartTrainer.of(recipe, replace(splits, train=(changed, *splits.train[1:])), "linear"))
    before, after = table(first.train), table(second.train)
    same = first.folds == first.folds[0]
    assert np.abs(before[same] - after[same]).max() == 0
    assert np.abs(before[~same] - after[~same]).max() > 1e-6


def test_held_out_rows_get_the_probabilities_of_a_trained_run(tmp_path: Path) -> None:
    recipe, splits = prepared(tmp_path, 90, "method=linear")
    found = out_of_fold.predict(PartTrainer.of(recipe, splits, "linear"))
    trained = methods.find(recipe).fit(job_of(recipe, splits, Run(tmp_path))).text_predictor
    held_out = [*splits.validation, *splits.test]
    assert [prediction.id for prediction in found.held_out] == [row.id for row in held_out]
    assert np.abs(table(found.held_out) - table(trained.predict(held_out))).max() < 1e-5


@pytest.mark.parametrize("method", ["probe", "encoder"])
def test_other_methods(tmp_path: Path, method: str) -> None:
    model = tiny.model("bert", tmp_path / "bert")
    recipe, splits = prepared(tmp_path, 60, f"model.name_or_path={model}", "train.max_steps=2")
    found = out_of_fold.predict(PartTrainer.of(recipe, splits, method), folds=2)
    assert found.method == method
    assert [prediction.id for prediction in found.train] == [row.id for row in splits.train]
    assert np.allclose(table(found.train).sum(axis=1), 1)
    assert len(found.held_out) == len(splits.validation) + len(splits.test)
    again = out_of_fold.predict(PartTrainer.of(recipe, splits, method), folds=2)
    assert np.abs(table(found.train) - table(again.train)).max() == 0


def test_rows_that_share_a_text_lie_in_one_fold_and_few_rows_in_fewer_folds(tmp_path: Path) -> None:
    recipe, splits = prepared(tmp_path, 12, "split.test_size=0", "split.validation_size=0")
    splits = replace(splits, train=(*splits.train[:4], *splits.train[:4], *splits.train[:4]))
    found = out_of_fold.predict(PartTrainer.of(recipe, splits, "linear"))
    assert set(found.folds.tolist()) == {0, 1, 2, 3}
    assert np.array_equal(found.folds[:4], found.folds[4:8])
    assert found.held_out == []
    with pytest.raises(DataError, match="at least 2 different texts"):
        out_of_fold.predict(PartTrainer.of(recipe, replace(splits, train=splits.train[:1] * 3), "linear"))


def test_a_label_of_one_fold_is_not_judged(tmp_path: Path) -> None:
    recipe, splits = prepared(tmp_path)
    train = (*splits.train[1:], replace(splits.train[0], label="rare"))
    splits = replace(splits, train=train, labels=(*splits.labels, "rare"))
    unseen = out_of_fold.predict(PartTrainer.of(recipe, splits, "linear")).unseen(train)
    assert np.flatnonzero(unseen).tolist() == [len(train) - 1]
