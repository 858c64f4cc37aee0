"""Comparisons: every method has its own settings, and what was stopped is finished later."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import tunesmith
from tunesmith import cli
from tunesmith.errors import Interrupted, RecipeError, RunError
from tunesmith.pipeline.commands import compare
from tunesmith.pipeline.fitting import subprocess
from tunesmith.recipe import Recipe
from tunesmith.runs import Run

Plans = dict[str, Recipe]


@pytest.fixture
def recipe(reviews: Path, tmp_path: Path) -> dict[str, object]:
    return {
        "data": {"path": str(reviews)},
        "output_dir": str(tmp_path / "runs"),
        "evaluate": {"bootstrap_samples": 100},
    }


def planned(content: dict[str, object], methods: Sequence[str], *overrides: str) -> Plans:
    return dict(compare.plans([{"data": {"path": "x.csv"}} | content], overrides, methods))


def test_the_settings_of_a_recipes_method_are_not_anothers(capsys: pytest.CaptureFixture[str]) -> None:
    adapter = {"kind": "qlora", "r": 4, "target_modules": ["query_key_value"]}
    tuned = {"method": "generator", "adapter": adapter, "train": {"learning_rate": 3e-4, "num_train_epochs": 7}}
    plans = planned(tuned, ["generator:qlora", "encoder", "encoder:lora"])
    own, full, lora = plans.values()
    assert (own.adapter.r, own.adapter.target_modules, own.train.learning_rate) == (4, ("query_key_value",), 3e-4)
    assert full.adapter == Recipe().adapter
    assert full.train.learning_rate == Recipe().train.learning_rate
    assert (lora.adapter.kind, lora.adapter.r, lora.adapter.target_modules) == ("lora", 16, ("all-linear",))
    assert lora.train.learning_rate == 2e-4  # the default with an adapter
    assert {plan.train.num_train_epochs for plan in plans.values()} == {7}  # how long all are trained
    assert "note: encoder is trained with its defaults of adapter.kind, adapter.r" in capsys.readouterr().err
    alike = {"method": "generator", "adapter": {"kind": "none", "r": 4}, "train": {"learning_rate": 5e-5}}
    assert planned(alike, ["encoder:full"])["encoder-full"].adapter.r == Recipe().adapter.r
    assert "note: encoder is trained with its defaults of adapter.r: the recipe" in capsys.readouterr().err
    plans = planned(tuned, ["generator:qlora", "encoder:lora"], "adapter.r=8", "learning_rate=1e-3")
    assert {(plan.adapter.r, plan.train.learning_rate) for plan in plans.values()} == {(8, 1e-3)}


def test_a_recipe_that_names_no_method_is_about_all_of_them() -> None:
    plans = planned({"adapter": {"r": 4}, "train": {"learning_rate": 3e-4}}, ["encoder:lora", "generator:lora"])
    assert {(plan.adapter.r, plan.train.learning_rate) for plan in plans.values()} == {(4, 3e-4)}


@pytest.mark.parametrize("seeds", [None, [1, 2]])
def test_a_comparison_that_was_stopped_trains_the_rest(
    seeds: list[int] | None,
    recipe: dict[str, object],
    trained_here: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of two recipes, or of one with two seeds, the second training is stopped; the report is that of one go."""
    linear = recipe | {"method": "linear"}
    sources = [linear] if seeds else [linear, linear | {"linear": {"C": 0.1}}]
    methods = ["linear"] if seeds else None
    whole = tunesmith.compare(sources, methods=methods, seeds=seeds)
    train: Callable[[Recipe, Path], Run] = subprocess.train
    trained: list[Path] = []

    def stops(plan: Recipe, folder: Path) -> Run:
        if len(trained) == 1:
            raise Interrupted("stopped", signal.SIGTERM, do="go on")
        trained.append(folder)
        return train(plan, folder)

    with monkeypatch.context() as patched:
        patched.setattr(subprocess, "train", stops)
        with pytest.raises(Interrupted):
            tunesmith.compare(sources, methods=methods, seeds=seeds)
    folder = trained[0].parents[1 if seeds else 0]
    assert f"tunesmith compare --resume {folder}" in capsys.readouterr().err
    with pytest.raises(RecipeError, match="keeps its sources and settings"):
        tunesmith.compare(sources, resume=folder)
    before = (trained[0] / "manifest.json").read_bytes()
    assert cli.main(["compare", "--resume", str(folder)]) == 0
    assert (trained[0] / "manifest.json").read_bytes() == before
    report, expected = (json.loads((path / "comparison.json").read_text()) for path in (folder, whole.path))
    assert report["pairs"] == expected["pairs"]
    assert [method["scores"] for method in report["methods"]] == [method["scores"] for method in expected["methods"]]
    if seeds:
        assert (folder / "seeds.json").read_bytes() == (whole.path / "seeds.json").read_bytes()


def test_only_a_comparison_is_resumed(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not the folder of a comparison"):
        tunesmith.compare(resume=tmp_path)
    with pytest.raises(RecipeError, match="nothing to compare"):
        tunesmith.compare()
