"""`train --continue RUN`: a new run that begins with another's weights, and names it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import tunesmith
from tests import tiny
from tests.conftest import write_csv
from tunesmith.cli import main
from tunesmith.errors import RecipeError, RunError
from tunesmith.runs import Run
from tunesmith.types import PredictionRow

Models = Callable[[str], Path]
STILL = "learning_rate=1e-12"
"""A learning rate at which no float32 weight of these models changes visibly."""


@pytest.fixture
def parent(reviews: Path, tiny_models: Models, tmp_path: Path) -> Run:
    source = {"data": {"path": str(reviews)}, "model": {"name_or_path": str(tiny_models("bert"))}}
    settings = ["bootstrap_samples=100", "max_steps=6", "learning_rate=1e-2"]
    return tunesmith.train(source, settings, run_dir=tmp_path / "parent")


def test_a_run_begins_with_its_parents_weights_and_names_it(parent: Run, tmp_path: Path) -> None:
    run = tunesmith.train(None, ["max_steps=2", STILL], continue_from=parent.path, run_dir=tmp_path / "child")
    before, after = (load_file(one.model / "model.safetensors") for one in (parent, run))
    assert all(torch.allclose(after[name], weight, atol=1e-6) for name, weight in before.items())
    assert [row.label for row in run.predictions("test", PredictionRow)] == [
        row.label for row in parent.predictions("test", PredictionRow)
    ]
    assert run.manifest.parent == str(parent.path)
    assert parent.manifest.parent is None
    assert run.manifest.description == "fine-tuned parent, 2 steps"
    assert (run.finished.notes.steps, run.recipe.train.learning_rate) == (2, 1e-12)
    assert run.recipe.data == parent.recipe.data
    grandchild = tunesmith.train(None, ["max_steps=3", "learning_rate=1e-2"], continue_from=run.path)
    assert grandchild.manifest.parent == str(run.path)
    assert not torch.equal(
        load_file(grandchild.model / "model.safetensors")["classifier.weight"], before["classifier.weight"]
    )


@pytest.mark.parametrize("method", ["encoder", "generator"])
def test_an_adapter_is_trained_further_beside_its_base(
    method: str, reviews: Path, tiny_models: Models, tmp_path: Path
) -> None:
    model = tiny_models("bert") if method == "encoder" else tiny.generator("llama", tmp_path / "llama")
    source = {"method": method, "data": {"path": str(reviews)}, "model": {"name_or_path": str(model)}}
    settings = ["bootstrap_samples=100", "adapter.kind=lora", "adapter.r=4", "max_steps=3", "learning_rate=1e-2"]
    parent = tunesmith.train(source, settings, run_dir=tmp_path / "parent")
    run = tunesmith.train(None, [STILL], continue_from=parent.path, run_dir=tmp_path / "child")
    before, after = (load_file(one.model / "adapter_model.safetensors") for one in (parent, run))
    assert before.keys() == after.keys()
    assert all(torch.allclose(after[name], weight, atol=1e-6) for name, weight in before.items())
    assert any(weight.abs().max() > 0 for name, weight in after.items() if "lora_B" in name)
    assert run.finished.costs.trainable == parent.finished.costs.trainable
    stored, again = parent.predictions("test", PredictionRow), run.predictions("test", PredictionRow)
    for one, other in zip(stored, again, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-4)
    with pytest.raises(RecipeError, match=r"adapter\.r=4"):
        tunesmith.train(None, ["adapter.r=8"], continue_from=parent.path, run_dir=tmp_path / "other")


def test_what_cannot_be_continued_is_refused(
    parent: Run, reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    linear = tunesmith.train({"method": "linear", "data": {"path": str(reviews)}}, run_dir=tmp_path / "linear")
    with pytest.raises(RunError, match="not trained in steps"):
        tunesmith.train(continue_from=linear.path)
    with pytest.raises(RecipeError, match="leave the recipe out"):
        tunesmith.train("other.yaml", continue_from=parent.path)
    two = write_csv(tmp_path / "two.csv", tiny.texts(60, labels=("sport", "tech")))
    with pytest.raises(RunError, match="on other labels"):
        tunesmith.train(None, [f"data.path={two}"], continue_from=parent.path)
    with pytest.raises(RecipeError, match=r"--continue \S+ num_train_epochs=5"):
        tunesmith.train(None, ["num_train_epochs=5"], resume=parent.path)
    capsys.readouterr()
    tunesmith.train(None, ["max_steps=1", "split.seed=7"], continue_from=parent.path, run_dir=tmp_path / "child")
    assert "may have learned rows of this test split" in capsys.readouterr().err


def test_the_command_continues_a_run(parent: Run, tmp_path: Path) -> None:
    assert main(["train", "--continue", str(parent.path), "max_steps=1", "--run-dir", str(tmp_path / "child")]) == 0
    assert Run(tmp_path / "child").manifest.parent == str(parent.path)
