"""What a training shows and logs while it runs: losses, evaluations, and evaluations on a few batches."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import tunesmith
from tests import tiny
from tunesmith import data
from tunesmith.evaluation import metrics
from tunesmith.pipeline.fitting import finetune
from tunesmith.pipeline.fitting.methods import load_text_predictor
from tunesmith.prediction.classify import EncoderPredictor
from tunesmith.prediction.label import LabelClassifier
from tunesmith.reporting.schema import WorstMistakes
from tunesmith.runs import Run
from tunesmith.tasks import classification
from tunesmith.types import Example, Prediction, PredictionRow

Models = Callable[[str], Path]
FAST = ["bootstrap_samples=100", "max_steps=4", "eval_strategy=steps", "eval_steps=2", "logging_steps=2"]


def train(reviews: Path, models: Models, *overrides: str) -> Run:
    source = {"data": {"path": str(reviews)}, "model": {"name_or_path": str(models("bert"))}}
    return tunesmith.train(source, [*FAST, *overrides])


def test_losses_and_evaluations_reach_a_log(
    reviews: Path, tiny_models: Models, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same figures as in metrics.jsonl, a line for each: stderr is no terminal here."""
    run = train(reviews, tiny_models, "learning_rate=3e-3")
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step ")]
    expected, best = [], -1.0
    for entry in run.metrics():
        if entry.loss is not None:
            line = f"step {entry.step}/4: loss {entry.loss:.4f}, learning rate {entry.learning_rate:.2e}"
            expected.append(re.escape(line))
            continue
        f1 = entry.validation["macro_f1"]
        shown = "the best so far" if f1 > best else f"best {best:.4f}"
        best = max(best, f1)
        expected.append(rf"step {entry.step}/4: loss \d\.\d{{4}}, validation macro_f1 {f1:.4f} \({shown}\)")
    assert len(lines) == len(expected) == 5  # losses of steps 1, 2 and 4, evaluations after 2 and 4
    assert all(re.fullmatch(pattern, line) for pattern, line in zip(expected, lines, strict=True)), lines


def test_evaluations_on_a_few_batches_have_both_losses(reviews: Path, tiny_models: Models) -> None:
    """2 batches of 4 rows of either split; the whole validation split is still scored at the end."""
    run = train(reviews, tiny_models, "eval_batches=2", "per_device_train_batch_size=4")
    rows = data.read(run.recipe.data, run.recipe.split, run.recipe.seed)
    assert (len(rows.train), len(rows.validation)) == (168, 24)
    classifier = load_text_predictor(run)

    def log_loss(examples: list[Example]) -> float:
        return metrics.headline(classification.gold(examples), classifier.predict(examples), rows.labels)["log_loss"]

    held_out = finetune.sample(rows.validation, run.recipe)
    learned = finetune.sample(rows.train, run.recipe)
    assert len(held_out) == len(learned) == 8
    best = run.finished.notes.best_step
    (kept,) = (entry for entry in run.metrics() if entry.validation and entry.step == best)
    assert kept.validation["log_loss"] == pytest.approx(log_loss(held_out), abs=1e-6)
    assert kept.train_loss == pytest.approx(log_loss(learned), abs=1e-6)
    assert run.finished.validation == pytest.approx(
        metrics.headline(classification.gold(rows.validation), classifier.predict(rows.validation), rows.labels)
    )


@pytest.mark.parametrize("method", ["encoder", "generator"])
def test_the_validation_rows_are_predicted_once_for_each_evaluation(
    method: str, reviews: Path, tmp_path: Path, tiny_models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the best weights predicted during the training is what a finished run keeps."""
    model = tiny_models("bert") if method == "encoder" else tiny.generator("llama", tmp_path / "llama")
    source = {"method": method, "data": {"path": str(reviews)}, "model": {"name_or_path": str(model)}}
    predicted: list[int] = []
    kind = EncoderPredictor if method == "encoder" else LabelClassifier
    predict = kind.predict

    def noting(self: Any, examples: Sequence[Example]) -> list[Prediction]:
        predicted.append(len(examples))
        return predict(self, examples)

    monkeypatch.setattr(kind, "predict", noting)
    run = tunesmith.train(source, [*FAST, "learning_rate=3e-3", "prompt.template=classify"])
    rows = data.read(run.recipe.data, run.recipe.split, run.recipe.seed)
    validation, test = len(rows.validation), len(rows.test)
    mistakes = [len(run.load("worst.json", WorstMistakes).worst)] if method == "encoder" else []  # to be explained
    assert predicted == [validation, validation, test, *mistakes, len(rows.train)]
    reloaded = predict(load_text_predictor(run), rows.validation)
    stored = run.predictions("validation", PredictionRow)
    assert [(row.id, row.label, row.gold) for row in stored] == [
        (row.id, row.label, example.label) for row, example in zip(reloaded, rows.validation, strict=True)
    ]
    for row, other in zip(stored, reloaded, strict=True):
        assert list(row.probabilities) == pytest.approx(list(other.probabilities), abs=1e-6)


def test_instructions_are_evaluated_on_a_few_batches_too(tmp_path: Path) -> None:
    model = tiny.generator("llama", tmp_path / "model")
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"instruction": f"Say {word}", "output": word * 2} for word in "abcdefghijklmnopqrst"]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"task": "instruction", "data": {"path": str(pairs)}, "model": {"name_or_path": str(model)}}
    quick = [
        "max_new_tokens=4",
        "max_responses=1",
        "num_samples=0",
        "base=false",
        "split.validation_size=6",
        "eval_batches=1",
    ]
    run = tunesmith.train(source, [*FAST, *quick, "per_device_train_batch_size=2", "learning_rate=1e-2"])
    entries = [entry for entry in run.metrics() if entry.validation]
    assert [entry.step for entry in entries] == [2, 4]
    assert all(entry.train_loss and entry.train_loss != entry.validation["loss"] for entry in entries)
    assert entries[1].train_loss < entries[0].train_loss
    whole = tunesmith.train(source, [*FAST, *quick[:-1], "per_device_train_batch_size=2", "learning_rate=1e-2"])
    compared = [entry for entry in whole.metrics() if entry.validation]
    assert all(entry.train_loss is None for entry in compared)
    assert [entry.validation["loss"] for entry in compared] != [entry.validation["loss"] for entry in entries]
    assert (run.path / "model" / "model.safetensors").read_bytes() == (
        whole.path / "model" / "model.safetensors"
    ).read_bytes(), "what is evaluated changes nothing that is learned"


def test_noise_and_optimizer_of_the_recipe_are_used(reviews: Path, tiny_models: Models) -> None:
    plain, noisy, other = (
        train(reviews, tiny_models, "eval_strategy=no", *more)
        for more in ([], ["neftune_noise_alpha=5"], ["optim=adafactor"])
    )
    losses = [[entry.loss for entry in run.metrics()] for run in (plain, noisy, other)]
    assert losses[0][0] != losses[1][0]
    assert losses[0][0] == losses[2][0]  # before the first step
    assert losses[0][-1] != losses[2][-1]
    assert torch.isfinite(torch.tensor(losses[1])).all()
