"""Callbacks, metrics and losses of the user, by the example of docs/reference/engine.md."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import tunesmith
from tests import tiny
from tunesmith import extensions
from tunesmith.data.batches import Batch
from tunesmith.data.encode import IGNORE, EncodedText
from tunesmith.errors import RecipeError
from tunesmith.runs import Run
from tunesmith.training import causal, losses

Models = Callable[[str], Path]
DOCS = Path(__file__).parents[2] / "docs" / "reference" / "engine.md"


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """The module of the documentation in the working folder."""
    text = DOCS.read_text(encoding="utf-8")
    code = text.split("## Callbacks, metrics and losses of your own")[1].split("```python\n")[1].split("```")[0]
    (tmp_path / "my_project.py").write_text(code)
    path = [*sys.path]
    yield tmp_path
    sys.modules.pop("my_project", None)
    sys.path[:] = path


def train(reviews: Path, models: Models, *overrides: str) -> Run:
    source = {"data": {"path": str(reviews)}, "model": {"name_or_path": str(models("bert"))}}
    quick = ["bootstrap_samples=100", "max_steps=6", "eval_strategy=steps", "eval_steps=2", "learning_rate=1e-2"]
    return tunesmith.train(source, [*quick, *overrides])


def test_the_documented_example_trains(project: Path, reviews: Path, tiny_models: Models) -> None:
    settings = ["train.callbacks=my_project:Notifier", "evaluate.metrics=my_project:profit"]
    run = train(
        reviews, tiny_models, *settings, "metric_for_best_model=my_project:profit", "train.loss=my_project:focal"
    )
    logged = [(entry.step, entry.validation["profit"]) for entry in run.metrics() if entry.validation]
    assert (project / "evaluations.txt").read_text() == "".join(f"{step} {value:.2f}\n" for step, value in logged)
    best = max(value for _, value in logged)
    assert run.finished.notes.best_step == next(step for step, value in logged if value == best)
    lines = [json.loads(line) for line in run.read_text("predictions/test.jsonl").splitlines()]
    expected = sum(1.0 if line["label"] == line["gold"] else -2.0 for line in lines) / len(lines)
    assert run.read("custom_scores.json") == {"profit": pytest.approx(expected)}
    plain = train(reviews, tiny_models)
    assert run.metrics()[0].loss < 0.7 * plain.metrics()[0].loss  # focal is below cross-entropy


def test_callbacks_see_every_step_and_save(project: Path, reviews: Path, tiny_models: Models) -> None:
    (project / "seen.py").write_text(
        """
from tunesmith.training.callbacks import Callback

steps, saved = [], []

class Seen(Callback):
    def on_step(self, step, state):
        steps.append((step.number, state.step))

    def on_save(self, folder, state):
        assert any(folder.iterdir())
        saved.append(folder.name)
"""
    )
    train(reviews, tiny_models, "train.callbacks=[seen:Seen]", "save_strategy=steps", "save_steps=4")
    seen = sys.modules.pop("seen")
    assert seen.steps == [(number, number) for number in range(1, 7)]
    assert seen.saved[0] == "model"
    assert "step-00000004" in seen.saved


def test_a_linear_run_has_metrics_too(project: Path, reviews: Path) -> None:
    source = {"method": "linear", "data": {"path": str(reviews)}}
    run = tunesmith.train(source, ["evaluate.metrics=my_project:profit", "bootstrap_samples=100"])
    accuracy = run.read("scores.json")["headline"]["accuracy"]["value"]
    assert run.read("custom_scores.json")["profit"] == pytest.approx(accuracy - 2 * (1 - accuracy))


@pytest.mark.parametrize("name", ["my_project:nothing", "no_such_module:profit", "broken:profit"])
def test_what_cannot_be_imported_fails_before_training(name: str, project: Path, reviews: Path) -> None:
    (project / "broken.py").write_text("1 / 0")
    source = {"method": "linear", "data": {"path": str(reviews)}}
    with pytest.raises(RecipeError, match=rf"evaluate\.metrics: cannot import {name}"):
        tunesmith.train(source, [f"evaluate.metrics={name}"], run_dir=project / "run")
    assert not (project / "run" / "model").exists()


@pytest.mark.parametrize("settings", [["metric_for_best_model=my_project:profit"], ["evaluate.metrics=profit"]])
def test_names_that_mean_nothing_are_refused(settings: list[str], reviews: Path) -> None:
    with pytest.raises(RecipeError, match="evaluate"):
        tunesmith.recipe.load({"data": {"path": str(reviews)}}, settings)


def test_a_metric_that_fails_is_named(project: Path, reviews: Path) -> None:
    (project / "failing.py").write_text("def ratio(rows): return 1 / 0")
    source = {"method": "linear", "data": {"path": str(reviews)}}
    with pytest.raises(RecipeError, match=r"(?s)the metric ratio failed.*ZeroDivisionError"):
        tunesmith.train(source, ["evaluate.metrics=failing:ratio", "bootstrap_samples=100"])
    sys.modules.pop("failing")


def test_a_cross_entropy_of_ones_own_has_the_gradients_of_ours(project: Path) -> None:
    """In every layout of causal models, and with class weights and rows without a label for classifiers."""

    def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        assert logits.dtype == torch.float32
        return nn.functional.cross_entropy(logits, targets, reduction="none")

    rows = [EncodedText(f"{i}", [5, 6, 7, 8 + i, 9], [IGNORE, IGNORE, 7, 8 + i, 9]) for i in range(3)]
    pairs = [
        (causal.PackedCausal(), causal.PackedCausal(per_token=cross_entropy), causal.pack(rows)),
        (causal.PaddedCausal(), causal.PaddedCausal(per_token=cross_entropy), causal.pad(rows, 0)),
    ]
    for ours, own, batch in pairs:
        totals, gradients = [], []
        for loss in (ours, own):
            model = tiny.causal("llama")
            total = loss.total(model, batch)
            total.backward()
            totals.append(total.item())
            gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
        assert totals[0] == pytest.approx(totals[1], rel=1e-6)
        torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)

    class Fixed(nn.Module):
        def forward(self, **inputs: torch.Tensor) -> object:
            return type("Output", (), {"logits": torch.linspace(-1, 1, 9).view(3, 3)})

    weights = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
    batch = Batch({}, torch.tensor([2, IGNORE, 1]), ("a", "b", "c"))
    plain, own = (losses.Classification(weights, each).total(Fixed(), batch) for each in (None, cross_entropy))
    assert own.item() == pytest.approx(plain.item(), rel=1e-6)


@pytest.mark.parametrize("own", [False, True])
def test_a_row_of_weight_n_counts_as_n_rows(own: bool) -> None:
    """Of every loss of encoders, with rows that are not learned."""

    class Outputs(nn.Module):
        def forward(self, rows: torch.Tensor) -> object:
            return type("Output", (), {"logits": torch.linspace(-1, 2, 12).view(4, 3)[rows]})

    nan = float("nan")
    classes = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
    per_row = (lambda logits, targets: logits.square().sum(1)) if own else None
    for loss, labels in (
        (losses.Classification(classes, per_row), torch.tensor([2, IGNORE, 1, 0])),
        (losses.MultilabelLoss(classes, per_row=per_row), torch.tensor([[1.0, 0, 0], [nan] * 3, [0, 1, 1], [0, 0, 0]])),
        (losses.NumberLoss(per_row=per_row), torch.tensor([0.5, nan, 3, -1])),
    ):
        weighted = Batch({"rows": torch.arange(4)}, labels, ("a", "b", "c", "d"), weights=torch.tensor([2.0, 7, 1, 3]))
        rows = torch.tensor([0, 0, 1, 2, 3, 3, 3])
        repeated = Batch({"rows": rows}, labels[rows], tuple("aabcddd"))
        assert loss.count(weighted) == loss.count(repeated)
        assert loss.total(Outputs(), weighted).item() == pytest.approx(loss.total(Outputs(), repeated).item(), rel=1e-6)


def test_an_extension_is_what_the_module_has(project: Path) -> None:
    assert extensions.load("my_project:profit", "x") is sys.modules["my_project"].profit
