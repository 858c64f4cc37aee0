"""Method `encoder:contrastive`: what it learns from few labels, its bounds, and that its runs are those of a probe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tunesmith
from tests import power_cut, small_runs, tiny
from tunesmith import recipe as recipes
from tunesmith.errors import RecipeError
from tunesmith.pipeline import held_out
from tunesmith.pipeline.commands import compare
from tunesmith.pipeline.fitting import methods
from tunesmith.pipeline.fitting.methods import METHODS, load_predictor
from tunesmith.pipeline.task_table import read_splits
from tunesmith.prediction.classify import ProbePredictor
from tunesmith.runs import Run

Models = Callable[[str], Path]
METHOD = "encoder:contrastive"
FAST = ["bootstrap_samples=100", "learning_rate=2e-3", "num_train_epochs=6"]


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """A CSV file with 24 texts to learn from, 8 of a label, and 120 to test on, under names of a person's own."""
    rows = [(text, label, "test" if n >= 24 else "train") for n, (text, label) in enumerate(tiny.texts(144))]
    path = tmp_path / "few.csv"
    path.write_text("".join(f"{';'.join(row)}\n" for row in [("review", "topic", "part"), *rows]))
    return path


def settings(few: Path, model: Path, **more: Any) -> dict[str, Any]:
    data = {"path": str(few), "text": "review", "label": "topic"}
    split = {"column": "part", "validation_size": 0}
    return {"method": METHOD, "data": data, "split": split, "model": {"name_or_path": str(model)}} | more


def predictor_of(run: Run) -> ProbePredictor:
    predictor = load_predictor(run)
    assert isinstance(predictor, ProbePredictor)
    return predictor


def test_texts_of_a_label_come_together(few: Path, tiny_models: Models, tmp_path: Path) -> None:
    """Cosines within a label minus those between labels, on test rows; and a better accuracy than of the probe."""
    margins, accuracies = {}, {}
    for method in ("probe", METHOD):
        source = settings(few, tiny_models("bert"), method=method)
        run = tunesmith.train(source, [*FAST, "num_train_epochs=60"], run_dir=tmp_path / method.replace(":", "-"))
        test = small_runs.held_out(run)
        vectors_ND = predictor_of(run).embeddings(test)
        vectors_ND /= np.linalg.norm(vectors_ND, axis=1, keepdims=True)
        labels = np.array([example.label for example in test])
        same_NN, cosines_NN = labels[:, None] == labels, vectors_ND @ vectors_ND.T
        margins[method] = cosines_NN[same_NN].mean() - cosines_NN[~same_NN].mean()
        accuracies[method] = run.read("scores.json")["headline"]["accuracy"]["value"]
    assert margins[METHOD] > margins["probe"] + 0.1
    assert accuracies[METHOD] > accuracies["probe"] + 0.1


@pytest.mark.usefixtures("one_thread")
def test_a_run_is_resumed_and_reloaded_to_the_last_bit(few: Path, tiny_models: Models, tmp_path: Path) -> None:
    source = settings(few, tiny_models("bert"))
    overrides = [*FAST, "max_steps=6", "save_strategy=steps", "save_steps=2"]
    whole = tunesmith.train(source, overrides, run_dir=tmp_path / "whole")
    with power_cut.at_step(5):
        tunesmith.train(source, overrides, run_dir=tmp_path / "half")
    half = tunesmith.train(resume=tmp_path / "half")
    for name in ("encoder/model.safetensors", "probe.safetensors"):
        assert (half.model / name).read_bytes() == (whole.model / name).read_bytes()
    assert half.path.joinpath("scores.json").read_bytes() == whole.path.joinpath("scores.json").read_bytes()
    stored = half.path.joinpath("predictions/test.jsonl").read_bytes()
    half.write_predictions("test", held_out.predict(predictor_of(half), small_runs.held_out(half)))
    assert half.path.joinpath("predictions/test.jsonl").read_bytes() == stored


def test_evaluations_keep_the_best_weights_and_their_regression(few: Path, tiny_models: Models, tmp_path: Path) -> None:
    source = settings(few, tiny_models("bert"), split={"column": "part", "validation_size": 9})
    overrides = [*FAST, "num_train_epochs=5", "learning_rate=2e-2", "eval_strategy=epoch"]
    run = tunesmith.train(source, overrides, run_dir=tmp_path / "run")
    scored = {line.step: line.validation["macro_f1"] for line in run.metrics() if line.validation}
    assert list(scored) == [1, 2, 3, 4, 5]
    best = max(scored, key=lambda step: (scored[step], -step))
    assert run.finished.notes.best_step == best
    assert run.finished.validation["macro_f1"] == scored[best]
    rows = held_out.predict(predictor_of(run), read_splits(run.recipe).validation)
    assert run.finished.validation["accuracy"] == np.mean([row.label == row.gold for row in rows])


@pytest.mark.parametrize(
    ("overrides", "steps"),
    [
        ([], 6),  # 24 texts fit into a step of 64: an epoch is a step
        (["per_device_train_batch_size=8"], 18),  # 28 pairs each
        (["per_device_train_batch_size=8", "max_pairs=300"], 10),
        (["max_pairs=300"], 1),  # 276 pairs
        (["max_pairs=1"], 1),
        (["max_steps=4"], 4),
    ],
)
def test_pairs_bound_the_steps(overrides: list[str], steps: int, few: Path, tiny_models: Models) -> None:
    run = tunesmith.train(settings(few, tiny_models("bert")), [*FAST, *overrides])
    assert run.finished.notes.steps == steps


def test_it_is_continued_by_its_encoder(few: Path, tiny_models: Models, tmp_path: Path) -> None:
    parent = tunesmith.train(settings(few, tiny_models("bert")), FAST, run_dir=tmp_path / "parent")
    child = tunesmith.train(continue_from=parent.path, run_dir=tmp_path / "child")
    assert child.recipe.model.name_or_path == str(parent.model / "encoder")
    assert child.manifest.parent == str(parent.path)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"task": "regression"}, "cannot learn task regression"),
        ({"adapter": {"kind": "lora"}}, r"adapter\.kind is lora, which method encoder:contrastive has not"),
        ({"train": {"freeze": "embeddings"}}, r"train\.freeze is embeddings"),
        ({"train": {"loss": "focal"}}, r"train\.loss is focal"),
        ({"train": {"sampling": "balanced"}}, "not for method encoder:contrastive"),
        ({"train": {"num_train_epochs": 0}}, "num_train_epochs is 0"),
    ],
)
def test_what_it_does_not_have_is_refused(tree: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        methods.find(recipes.load({"method": METHOD, "data": {"path": "rows.csv"}, **tree}))


def test_in_a_comparison_every_method_has_its_own_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    """Of a recipe for an adapter, too, whose settings a contrastive encoder could not have."""
    source = {"data": {"path": "rows.csv"}, "method": "encoder", "adapter": {"kind": "lora"}}
    plans = dict(compare.plans([source], ["max_length=64"], ["probe", "encoder", METHOD]))
    assert list(plans) == ["probe", "encoder", "encoder-contrastive"]
    assert [METHODS[plan.method].name(plan) for plan in plans.values()] == ["probe", "encoder:lora", METHOD]
    assert "encoder:contrastive is trained with its defaults of adapter.kind" in capsys.readouterr().err
    tuned, contrastive = plans["encoder"], plans["encoder-contrastive"]
    assert contrastive.train.per_device_train_batch_size > tuned.train.per_device_train_batch_size
    assert (contrastive.evaluate.eval_strategy, tuned.evaluate.eval_strategy) == ("no", "epoch")
    assert {plan.model.max_length for plan in plans.values()} == {64}
    back = dict(compare.plans([contrastive], [], ["encoder:full", METHOD]))
    assert back["encoder-contrastive"] == contrastive
    assert back["encoder-full"].train == tuned.train.model_copy(update={"learning_rate": 5e-5})
