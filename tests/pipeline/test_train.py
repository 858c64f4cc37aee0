"""Whole runs: the same bits twice, the best weights kept, trackers fed, plain Hugging Face files left behind."""

from __future__ import annotations

import csv
import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from safetensors.torch import load_file, save_file

import tunesmith
from tests import tiny
from tunesmith import cli, data, runs as run_folders
from tunesmith.errors import DataError, ModelError, RecipeError, RunError, TrainingError
from tunesmith.evaluation import metrics
from tunesmith.models import packing
from tunesmith.pipeline.engines import load_generator
from tunesmith.pipeline.fitting.job import Job
from tunesmith.pipeline.fitting.methods import METHODS, load_text_predictor
from tunesmith.pipeline.task_table import read_splits
from tunesmith.prediction import likelihood
from tunesmith.processes import ProcessIdentity
from tunesmith.protocols import TrainResult
from tunesmith.runs import Run
from tunesmith.types import Example, Prediction

Models = Callable[[str], Path]
FAST = ["bootstrap_samples=100", "per_device_train_batch_size=16", "learning_rate=3e-3"]


def train(method: str, reviews: Path, models: Models, *overrides: str) -> Run:
    source = {"method": method, "data": {"path": str(reviews)}, "model": {"name_or_path": str(models("bert"))}}
    return tunesmith.train(source, [*FAST, *overrides])


@pytest.mark.parametrize("method", ["linear", "probe", "encoder"])
def test_the_same_recipe_gives_the_same_bits(method: str, reviews: Path, tiny_models: Models) -> None:
    runs = [train(method, reviews, tiny_models, "max_steps=6") for _ in range(2)]
    assert (runs[0].path / "scores.json").read_bytes() == (runs[1].path / "scores.json").read_bytes()
    weights = [sorted(run.model.rglob("*.safetensors")) for run in runs]
    assert weights[0]
    for first, second in zip(*weights, strict=True):
        assert first.read_bytes() == second.read_bytes()
    other = train(method, reviews, tiny_models, "max_steps=6", "seed=43")
    assert other.manifest.data.fingerprint != runs[0].manifest.data.fingerprint


def test_the_best_weights_are_the_ones_kept(reviews: Path, tiny_models: Models) -> None:
    """What `model/` predicts on validation is the best evaluation of the log, not the last one."""
    settings = ["num_train_epochs=6", "eval_strategy=steps", "eval_steps=4", "metric_for_best_model=log_loss", "seed=3"]
    run = train("encoder", reviews, tiny_models, *settings, "learning_rate=2e-2", "lr_scheduler_type=constant")
    logged = {line.step: line.validation["log_loss"] for line in run.metrics() if line.validation}
    best = min(logged, key=logged.__getitem__)
    assert best != max(logged), "this seed should get worse at the end; choose another"
    assert run.finished.notes.best_step == best
    assert run.finished.validation["log_loss"] == pytest.approx(logged[best], rel=1e-6)
    last = train(
        "encoder",
        reviews,
        tiny_models,
        *settings,
        "learning_rate=2e-2",
        "lr_scheduler_type=constant",
        "load_best_model_at_end=false",
    )
    assert last.finished.validation["log_loss"] == pytest.approx(logged[max(logged)], rel=1e-6)


def test_early_stopping_ends_the_run(reviews: Path, tiny_models: Models) -> None:
    settings = ["num_train_epochs=50", "eval_strategy=steps", "eval_steps=2", "early_stopping_patience=3"]
    run = train("encoder", reviews, tiny_models, *settings, "learning_rate=2e-2", "lr_scheduler_type=constant")
    notes = run.finished.notes
    assert notes.steps == notes.best_step + 6 < 50 * 11
    assert [line.step for line in run.metrics() if line.loss is not None][-1] == notes.steps


def test_without_validation_or_test_rows(reviews: Path, tiny_models: Models) -> None:
    for method in ("linear", "encoder"):
        run = train(method, reviews, tiny_models, "validation_size=0", "test_size=0", "max_steps=2")
        assert not (run.path / "scores.json").exists()
        assert run.finished.validation is None
        assert tunesmith.predict(run, ["the goal"])[0]["label"] in tiny.WORDS


def test_runs_without_test_rows_say_so(reviews: Path, tiny_models: Models) -> None:
    run = train("linear", reviews, tiny_models, "validation_size=0", "test_size=0")
    with pytest.raises(RunError, match="no predictions for the test split"):
        tunesmith.evaluate(run)
    with pytest.raises(RecipeError, match="needs a test split"):
        tunesmith.compare([str(reviews)], ["test_size=0"])


def test_two_precisions_in_one_process(reviews: Path, tiny_models: Models) -> None:
    """What is saved is float32, and predicts as the model in memory did."""
    for precision in ("no", "bf16", "auto", "no"):
        run = train(
            "encoder", reviews, tiny_models, "max_steps=3", f"mixed_precision={precision}", "num_train_epochs=1"
        )
        used = run.finished.notes.mixed_precision
        assert used == precision or precision == "auto"
        stored = run.predictions("test", Prediction)
        again = load_text_predictor(run).predict(
            [Example(p.id, row.text) for p, row in zip(stored, rows_of(run), strict=True)]
        )
        assert again == stored


def test_weights_of_16_bits_score_as_they_are_reloaded(reviews: Path, tiny_models: Models) -> None:
    """Also where an adapter learned beside a body that was rounded, and is reloaded beside one that is not."""
    for more in ([], ["adapter.kind=lora"]):
        run = train("encoder", reviews, tiny_models, "max_steps=3", "model.dtype=bfloat16", *more)
        stored = run.predictions("test", Prediction)
        again = load_text_predictor(run).predict(
            [Example(p.id, row.text) for p, row in zip(stored, rows_of(run), strict=True)]
        )
        assert again == stored


def test_evaluations_in_mixed_precision_are_those_of_the_saved_model(reviews: Path, tiny_models: Models) -> None:
    """No rounding by autocast in what decides which step is best."""
    run = train("encoder", reviews, tiny_models, "max_steps=3", "mixed_precision=bf16", "eval_strategy=epoch")
    logged = next(entry for entry in reversed(run.metrics()) if entry.validation)
    rows = data.read(run.recipe.data, run.recipe.split, run.recipe.seed)
    scores = metrics.headline(
        [str(row.label) for row in rows.validation], load_text_predictor(run).predict(rows.validation), rows.labels
    )
    assert logged.validation == scores


def rows_of(run: Run) -> tuple[Example, ...]:
    recipe = run.recipe
    return data.read(recipe.data, recipe.split, recipe.seed).test


def test_gradient_checkpointing_changes_no_weight(reviews: Path, tiny_models: Models) -> None:
    runs = [
        train("encoder", reviews, tiny_models, "max_steps=4", f"gradient_checkpointing={on}") for on in (True, False)
    ]
    first, second = (load_file(run.model / "model.safetensors") for run in runs)
    assert max((first[name] - second[name]).abs().max().item() for name in first) < 1e-6


def test_a_body_with_missing_weights_is_refused(reviews: Path, tiny_models: Models, tmp_path: Path) -> None:
    """Renamed tensors would leave the pretrained part random, and it would merely look bad."""
    folder = shutil.copytree(tiny_models("bert"), tmp_path / "odd")
    tensors = {f"xx.{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    for method in ("probe", "encoder"):
        with pytest.raises(ModelError, match="do not have all weights"):
            train(method, reviews, lambda _: folder)


def test_a_body_without_pooler_gives_the_same_bits(reviews: Path, tiny_models: Models, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_models("bert"), tmp_path / "bare")
    tensors = load_file(folder / "model.safetensors")
    save_file({n: t for n, t in tensors.items() if "pooler" not in n}, folder / "model.safetensors", {"format": "pt"})
    for method in ("probe", "encoder"):
        one, two = (train(method, reviews, lambda _: folder, "max_steps=2") for _ in range(2))
        for first, second in zip(*(sorted(run.model.rglob("*.safetensors")) for run in (one, two)), strict=True):
            assert first.read_bytes() == second.read_bytes()


def test_check_uses_the_models_own_limit(
    reviews: Path, tiny_models: Models, capsys: pytest.CaptureFixture[str]
) -> None:
    with reviews.open("a") as file:
        file.write(f"{'goal ' * 300},sport\n")
    source = {"data": {"path": str(reviews)}, "model": {"name_or_path": str(tiny_models("bert")), "max_length": 5000}}
    tokens = tunesmith.check(source).tokens
    assert (tokens.max_length, tokens.cut) == (128, 1)
    assert "this model reads 128 tokens" in capsys.readouterr().err


@pytest.mark.parametrize(("family", "limit"), [("roberta", 128), ("xlnet", 128), ("gpt2", 128), ("modernbert", 128)])
def test_long_inputs_stay_within_the_models_positions(
    family: str, limit: int, tiny_models: Models, tmp_path: Path, reviews: Path
) -> None:
    """RoBERTa's table of 130 positions reads 129 tokens at most here (padding index 0); the tokenizer says 128."""
    from tunesmith.models import pretrained
    from tunesmith.recipe import Model

    settings = Model(name_or_path=str(tiny_models(family)), max_length=5000)
    assert pretrained.longest_input(settings, pretrained.tokenizer(settings)) == limit


def test_tensorboard_gets_the_curve(reviews: Path, tiny_models: Models) -> None:
    run = train("encoder", reviews, tiny_models, "max_steps=12", "report_to=tensorboard", "logging_steps=5")
    assert list(run.path.rglob("events.out.tfevents.*"))


def test_the_model_folder_is_plain_hugging_face(reviews: Path, tiny_models: Models) -> None:
    from transformers import pipeline

    run = train("encoder", reviews, tiny_models, "max_steps=4")
    texts = [text for text, _ in tiny.texts(20, seed=5)]
    theirs = pipeline("text-classification", str(run.model), top_k=None)(texts)
    ours = load_text_predictor(run).predict([Example(str(i), text) for i, text in enumerate(texts)])
    labels = run.manifest.data.labels
    for rows, prediction in zip(theirs, ours, strict=True):
        scores = {row["label"]: row["score"] for row in rows}
        np.testing.assert_allclose([scores[label] for label in labels], prediction.probabilities, atol=1e-5)


def test_what_was_cut_is_in_the_manifest(reviews: Path, tiny_models: Models) -> None:
    for method in ("probe", "encoder"):
        run = train(method, reviews, tiny_models, "max_length=6", "max_steps=1")
        assert run.finished.notes.cut > 0.9 * run.manifest.data.splits["train"].rows


@pytest.mark.real
def test_the_quickstart_compares_methods_on_headlines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        comparison = tunesmith.quickstart(["max_samples=300"], methods=["linear", "probe"])
    except DataError as error:
        pytest.skip(f"assets are out of reach: {error}")
    with Path("runs/data/bbc-headlines.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2225
    assert all(set(row) == {"headline", "topic"} and 5 < len(row["headline"]) < 80 for row in rows)
    scores = {
        path.parent.name: json.loads(path.read_text())["headline"]["accuracy"]["value"]
        for path in comparison.path.glob("*/scores.json")
    }
    assert scores["probe"] > 0.7 > scores["linear"] > 0.3


def test_how_a_run_ended_is_recorded_and_its_folder_can_be_used_again(
    reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = {"method": "linear", "data": {"path": str(reviews)}, "evaluate": {"bootstrap_samples": 100}}
    places = {name: tmp_path / "runs" / name for name in ("failed", "broken", "stopped")}
    endings = [TrainingError("no memory left", do="use less"), ValueError("a bug"), KeyboardInterrupt()]
    for place, ending in zip(places.values(), endings, strict=True):

        def stop(job: Job, ending: BaseException = ending) -> TrainResult:
            assert job.run.manifest.state() == ("running", "")
            raise ending

        with monkeypatch.context() as patched:
            patched.setattr(METHODS["linear"], "fit", stop)
            with pytest.raises(type(ending)):
                tunesmith.train(source, run_dir=place)
    states = {name: Run(place).manifest.state() for name, place in places.items()}
    assert states == {
        "failed": ("failed", "no memory left"),
        "broken": ("failed", "ValueError: a bug"),
        "stopped": ("interrupted", "KeyboardInterrupt"),
    }
    assert tunesmith.train(source, run_dir=places["failed"]).manifest.state() == ("finished", "")
    assert tunesmith.train(resume=places["stopped"]).manifest.state() == ("finished", "")
    capsys.readouterr()
    assert cli.main(["runs", "list"]) == 0
    listed = capsys.readouterr().out
    assert "failed: ValueError: a bug" in listed
    assert listed.count("accuracy") == 2
    assert cli.main(["runs", "show", str(places["broken"])]) == 0
    assert "resume: tunesmith train --resume" in capsys.readouterr().out


def test_names_and_lists_of_runs_carry_the_model(
    reviews: Path, tiny_models: Models, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = []
    for family in ("bert", "roberta"):
        source = {
            "method": "probe",
            "data": {"path": str(reviews)},
            "model": {"name_or_path": str(tiny_models(family))},
        }
        runs.append(tunesmith.train(source, FAST))
        assert runs[-1].path.name.endswith(f"_probe_{family}_reviews")
    capsys.readouterr()
    assert cli.main(["runs", "list"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "  bert  accuracy" in first
    assert "  roberta  accuracy" in second
    compared = tunesmith.compare([run.path for run in runs])
    assert [method.name for method in compared.report.methods] == ["probe bert", "probe roberta"]


def test_a_run_under_way_is_not_resumed_unless_its_machine_is_said_to_be_gone(
    reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tunesmith.train({"method": "linear", "data": {"path": str(reviews)}}, FAST, run_dir=tmp_path / "run")
    elsewhere = ProcessIdentity("another", 1, 0.0)
    run.save_manifest(tiny.manifest(data=run.manifest.data, process=elsewhere))
    with pytest.raises(RunError, match=r"is being trained\n  found: process 1 on another\n  do: .* add --take-over"):
        tunesmith.train(resume=run.path)
    assert tunesmith.train(resume=run.path, take_over=True).manifest.status == "finished"
    assert "taking " in capsys.readouterr().err
    here = psutil.Process(os.getppid())
    identity = ProcessIdentity(socket.gethostname(), here.pid, here.create_time())
    run.save_manifest(tiny.manifest(data=run.manifest.data, process=identity))
    with pytest.raises(RunError, match=f"is being trained\n  found: {identity}$"):
        tunesmith.train(resume=run.path, take_over=True)
    with pytest.raises(RecipeError, match="take_over is for a run that is resumed"):
        tunesmith.train(take_over=True)


def test_training_begins_with_a_summary(reviews: Path, tiny_models: Models, capsys: pytest.CaptureFixture[str]) -> None:
    run = train("encoder", reviews, tiny_models, "max_steps=1", "test_size=30", "validation_size=30")
    lines = capsys.readouterr().err.splitlines()
    data = run.manifest.data
    assert lines[0] == f"{reviews}: columns text, label; 3 labels, fingerprint {data.fingerprint[:12]}"
    median, longest = data.splits["train"].characters.median, data.splits["train"].characters.max
    assert lines[1] == f"train           180 rows; characters: median {median}, longest {longest}"
    assert lines[2].strip() == "sport 60 (33.3%), tech 60 (33.3%), world 60 (33.3%)"
    assert lines[3].startswith("validation       30 rows (made here)")
    assert lines[5].startswith("test             30 rows (made here)")
    costs, cpu = run.finished.costs, run.finished.environment.cpu
    learn = f"{costs.parameters:,} of {costs.parameters:,} parameters learn (100.0000%)"
    assert f"{learn} on cpu ({cpu}); float32 weights, mixed precision no" in lines
    run = train("linear", reviews, tiny_models)
    parameters = run.finished.costs.parameters
    assert f"{parameters:,} of {parameters:,} parameters were trained" in capsys.readouterr().err


def test_what_training_measured_and_wrote_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [{"instruction": f"Say {n}", "output": f"it is {n}"} for n in range(24)]
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    recipe = {
        "task": "instruction",
        "data": {"path": str(tmp_path / "pairs.json")},
        "train": {"max_steps": 2},
        "model": {"name_or_path": str(tiny.generator("llama", tmp_path / "llama")), "max_length": 256},
        "evaluate": {"max_responses": 0, "num_samples": 0, "base": False, "bootstrap_samples": 100},
    }
    scored: list[int] = []
    written: list[str] = []
    losses, write_folder = likelihood.losses, run_folders.write_folder

    tried: list[int] = []
    set_up = packing.set_up

    def score(model: Any, encoder: Any, length: int, names: Any, *more: Any) -> list[likelihood.Loss]:
        scored.append(len(names))
        return losses(model, encoder, length, names, *more)

    def try_packing(model: Any, sequences: Any, *more: Any, **settings: Any) -> str | None:
        tried.append(len(sequences))
        return set_up(model, sequences, *more, **settings)

    def write(target: Path, fill: Callable[[Path], None]) -> None:
        written.append(target.name)
        write_folder(target, fill)

    monkeypatch.setattr(likelihood, "losses", score)
    monkeypatch.setattr(packing, "set_up", try_packing)
    monkeypatch.setattr(run_folders, "write_folder", write)
    run = tunesmith.train(recipe, run_dir=tmp_path / "run")
    splits = read_splits(run.recipe)
    assert scored == [len(splits.test)]
    assert tried == [len(splits.train) + 1], "the longest held-out row was tried too"
    assert written.count("model") == 1
    rows = splits.validation
    loaded = load_generator(run).losses([row.id for row in rows], [row.messages for row in rows])
    mean = sum(loss for loss, _ in loaded) / sum(count for _, count in loaded)
    assert run.finished.validation == {"loss": pytest.approx(mean, rel=1e-5)}
