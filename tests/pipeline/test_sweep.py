"""Sweeps: what is searched, ranked on validation, gone on with, shared by workers; and repetition with seeds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import tunesmith
from tests import forked, tiny
from tunesmith import cli, hardware, recipe as recipes, runs
from tunesmith.errors import FileError, Interrupted, RecipeError, RunError
from tunesmith.pipeline import seeds
from tunesmith.pipeline.commands import sweep as sweeps
from tunesmith.pipeline.fitting import subprocess as training_process
from tunesmith.recipe import Recipe
from tunesmith.runs import Run

SPLIT = {"test_size": 40, "validation_size": 40}
Models = Callable[[str], Path]


@pytest.fixture
def recipe(reviews: Path, tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    content = {
        "method": "linear",
        "data": {"path": str(reviews)},
        "split": SPLIT,
        "evaluate": {"bootstrap_samples": 100},
    }
    path.write_text(yaml.safe_dump(content))
    return path


class Trainer:
    """Over `trained_here`: notes what is trained."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.train = training_process.train
        self.trained: list[str] = []
        self.cut: Callable[[int], None] | None = None
        """Called in the place of the second training, with the lock's file descriptor."""
        monkeypatch.setattr(training_process, "train", self)

    def __call__(self, recipe: Recipe, folder: Path, *, skip_test: bool, held: int) -> Run:
        if self.trained and (cut := self.cut):
            self.cut = None
            cut(held)
        self.trained.append(folder.name)
        return self.train(recipe, folder, skip_test=skip_test)


@pytest.fixture
def trainer(trained_here: None, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    return Trainer(monkeypatch)


def test_settings_are_axes_or_fixed() -> None:
    axes, fixed = sweeps.parse(["linear.C=1,10", "lr=1e-5..1e-3", "adapter.r=4..64", "min_df=1", "word_ngrams=[1, 1]"])
    assert [axis.name for axis in axes] == ["linear.C", "lr", "adapter.r"]
    assert axes[0].choices == ("1", "10")
    assert (axes[1].log, axes[1].whole, axes[2].log, axes[2].whole) == (True, False, True, True)
    assert fixed == ["min_df=1", "word_ngrams=[1, 1]"]
    texts = ["data.path=../rows.json", "instruction='Good, or bad?'", 'data.encoding="utf-8,cp1252"', "do_sample=true"]
    axes, fixed = sweeps.parse([*texts, """instruction="Good, or bad?", 'Well?'""", "C=-1.5e-3..2"])
    assert fixed == texts
    assert axes[0].choices == ('"Good, or bad?"', "'Well?'")
    assert (axes[1].low, axes[1].high, axes[1].whole) == (-0.0015, 2, False)
    for wrong in (["min_df=1"], ["C=3..1"], ["C=a..b"], ["C=1.2.3..4"]):
        with pytest.raises(RecipeError):
            sweeps.parse(wrong)


@pytest.mark.usefixtures("trained_here")
def test_a_grid_is_ranked_on_validation_and_the_test_split_opened_once(recipe: Path, tmp_path: Path) -> None:
    folder = tunesmith.sweep(recipe, ["linear.C=0.0001,10", "linear.min_df=1,2"], sweep_dir=tmp_path / "sweep")
    content = folder.read("sweep.json")
    assert len(content["trials"]) == 4
    scores = [trial["score"] for trial in content["trials"]]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > scores[-1]
    opened = [run.path.name for run in runs.listing(folder.path) if (run.path / "scores.json").exists()]
    assert opened == [content["trials"][0]["run"]]
    looked = [run for run in runs.listing(folder.path) if (run.path / "predictions" / "test.jsonl").stat().st_size]
    assert len(looked) == 1
    assert content["test"] == Run(folder.path / opened[0]).read("scores.json")
    page, text = folder.read_text("report.html"), folder.read_text("report.md")
    for trial in content["trials"]:
        assert f"{trial['score']:.4f}" in page
        assert f"{trial['score']:.4f}" in text


@pytest.mark.usefixtures("trained_here")
def test_a_sweep_goes_on_and_trains_nothing_twice(recipe: Path, tmp_path: Path) -> None:
    words = ["linear.C=0.1,1,10"]
    folder = tunesmith.sweep(recipe, words, trials=2, sweep_dir=tmp_path / "sweep")
    before = {run.path.name: (run.path / "manifest.json").read_bytes() for run in runs.listing(folder.path)}
    assert len(before) == 2
    tunesmith.sweep(recipe, words, sweep_dir=tmp_path / "sweep")
    assert len(runs.listing(folder.path)) == 3
    again = {name: (folder.path / name / "manifest.json").read_bytes() for name in before}
    closed = {name for name in before if before[name] == again[name]}
    assert len(closed) >= 1, "only a winner's manifest changes, when its test split is opened"
    assert len(folder.read("sweep.json")["trials"]) == 3
    with pytest.raises(RunError, match="other settings"):
        tunesmith.sweep(recipe, ["linear.C=5,6"], sweep_dir=tmp_path / "sweep")


@pytest.mark.parametrize("storage", ["sqlite:///shared.db", "journal:shared/sweep.journal"])
def test_workers_share_one_sweep(storage: str, recipe: Path, tmp_path: Path) -> None:
    """One is killed after its first trial, two go on: every trial is trained to its end, and none twice."""
    folder = tmp_path / "sweep"
    words = ["sweep", str(recipe), "linear.C=0.1,1,10,100", "--storage", storage, "--sweep-dir", str(folder)]
    command = [sys.executable, "-m", "tunesmith", *words]

    def work() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, process_group=0)

    first = work()
    while not [*folder.glob("*/README.md"), *folder.glob("*/scores.json"), *folder.glob("*/predictions")]:
        assert first.poll() is None
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    done = {run.path.name for run in runs.listing(folder) if run.manifest.status == "finished"}
    before = {name: (folder / name / "model" / "hashes.json").stat().st_mtime_ns for name in done}
    workers = [work() for _ in range(2)]
    trained = 0
    for worker in workers:
        _, said = worker.communicate(timeout=250)
        assert worker.returncode == 0, said.decode()[-2000:]
        trained += said.decode().count("training rows")
    content = json.loads((folder / "sweep.json").read_text())
    assert sorted(trial["values"]["linear.C"] for trial in content["trials"]) == ["0.1", "1", "10", "100"]
    assert {name: (folder / name / "model" / "hashes.json").stat().st_mtime_ns for name in done} == before
    assert trained == 4 - len(done)


def test_a_trial_counts_as_soon_as_nobody_holds_it(
    recipe: Path, tmp_path: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the end of a training and Optuna's note of its value, another worker may write the report."""
    said = sweeps.say

    def cut(text: str) -> None:
        said(text)
        if "validation" in text:
            raise SystemExit

    monkeypatch.setattr(sweeps, "say", cut)
    with pytest.raises(SystemExit):
        tunesmith.sweep(recipe, ["linear.C=0.1,1,10"], sweep_dir=tmp_path / "sweep")
    first = list(trainer.trained)
    assert len(first) == 1
    monkeypatch.setattr(sweeps, "say", said)
    content = tunesmith.sweep(recipe, ["linear.C=0.1,1,10"], sweep_dir=tmp_path / "sweep").read("sweep.json")
    assert sorted(trial["run"] for trial in content["trials"]) == sorted(trainer.trained)
    assert trainer.trained.count(first[0]) == 1


@pytest.mark.parametrize("sampler", ["grid", "random", "tpe"])
@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_a_sweep_that_was_cut_off_trains_the_rest(
    sampler: str, end: type[BaseException], recipe: Path, tmp_path: Path, trainer: Trainer
) -> None:
    """By Ctrl-C, or killed: what Optuna is not told of (here SystemExit) stays RUNNING in its storage for ever."""
    words = ["linear.C=0.1,1,10"] if sampler == "grid" else ["linear.C=0.1..10"]
    options: dict[str, Any] = {"sampler": sampler, "trials": 3, "sweep_dir": tmp_path / "sweep"}

    def cut(_: int) -> None:
        raise end

    trainer.cut = cut
    with pytest.raises(end):
        tunesmith.sweep(recipe, words, **options)
    begun = {path.name[1:].removesuffix(".lock") for path in (tmp_path / "sweep").glob(".*.lock")}
    assert len(begun) == 2
    content = tunesmith.sweep(recipe, words, **options).read("sweep.json")
    assert sorted(trial["run"] for trial in content["trials"]) == sorted(trainer.trained)
    assert len(trainer.trained) == len(set(trainer.trained)) == 3
    assert begun <= set(trainer.trained)
    assert content["failed"] == []
    assert not list((tmp_path / "sweep").glob(".*"))


@pytest.mark.parametrize("cut", ["manifest.json", "report.html", "README.md"])
def test_a_winner_whose_test_was_cut_off_is_tested_to_its_end(
    cut: str, recipe: Path, tmp_path: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, write = ["linear.C=10,10.0"], Run.write  # equally good: the first to be queued wins

    def until(run: Run, name: str, content: object) -> Path:
        if name == cut and run.has("scores.json"):
            raise SystemExit
        return write(run, name, content)

    def end(_: int) -> None:
        raise SystemExit

    whole = tunesmith.sweep(recipe, words, sweep_dir=tmp_path / "whole")
    trainer.trained, trainer.cut = [""], end  # the first trial: it gets a later number than the second
    with pytest.raises(SystemExit):
        tunesmith.sweep(recipe, words, sweep_dir=tmp_path / "sweep")
    with monkeypatch.context() as patch:
        patch.setattr(Run, "write", until)
        with pytest.raises(SystemExit):
            tunesmith.sweep(recipe, words, sweep_dir=tmp_path / "sweep")
    folder = tunesmith.sweep(recipe, words, sweep_dir=tmp_path / "sweep")
    names = [{path.relative_to(run.path) for path in run.path.rglob("*")} for run in (folder, whole)]
    assert names[0] == names[1]
    winner = folder.read("sweep.json")["trials"][0]["run"]
    assert winner == whole.read("sweep.json")["trials"][0]["run"]
    assert "scores.json" in Run(folder.path / winner).read("manifest.json")["hashes"]


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_samplers_that_go_on_draw_anew(
    sampler: str, recipe: Path, tmp_path: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeps, "REPEATS", 2)
    for trials in (3, 5):
        tunesmith.sweep(recipe, ["linear.C=0.1..10"], sampler=sampler, trials=trials, sweep_dir=tmp_path / "sweep")
    assert len(set(trainer.trained)) == len(trainer.trained) == 5


def test_what_still_trains_is_waited_for(
    recipe: Path, tmp_path: Path, trainer: Trainer, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sweep was killed, but not the training, which holds the lock: nobody else trains there."""
    alive: list[subprocess.Popen[bytes]] = []

    def orphan(held: int) -> None:
        alive.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(99)"], pass_fds=[held]))
        raise SystemExit

    trainer.cut = orphan
    words = ["linear.C=0.1,1,10"]
    with pytest.raises(SystemExit):
        tunesmith.sweep(recipe, words, sweep_dir=tmp_path / "sweep")
    folder = tunesmith.sweep(recipe, words, sweep_dir=tmp_path / "sweep")
    assert "1 trial(s) are still running elsewhere" in capsys.readouterr().err
    assert not (folder.path / "sweep.json").exists()
    assert len(trainer.trained) == 2
    alive[0].kill()
    alive[0].wait()
    assert len(tunesmith.sweep(recipe, words, sweep_dir=tmp_path / "sweep").read("sweep.json")["trials"]) == 3
    assert len(trainer.trained) == 3


def test_ctrl_c_waits_for_the_checkpoint(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training that takes a second to end its step."""
    slow = tmp_path / "slow.sh"
    slow.write_text(f"#!/bin/sh\ntouch {tmp_path}/begun\nsleep 1\ntouch {tmp_path}/checkpoint\n")
    slow.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(slow))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a program in the background ignores it

    def press() -> None:
        while not (tmp_path / "begun").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    hand = threading.Thread(target=press)
    hand.start()
    with pytest.raises(KeyboardInterrupt):
        training_process.train(recipes.load(recipe), tmp_path / "run")
    hand.join()
    signal.signal(signal.SIGINT, before)
    assert (tmp_path / "checkpoint").exists()


def sweep_in_a_group_of_its_own(*words: str) -> None:
    os.setsid()
    forked.command("sweep", *words)


def test_a_sweep_is_gone_on_with_after_ctrl_c(
    recipe: Path, tmp_path: Path, tiny_models: Models, capfd: pytest.CaptureFixture[str]
) -> None:
    """Pressed in the midst of a training, which gets it too: its curve has every step once."""
    folder, model = tmp_path / "sweep", f"model.name_or_path={tiny_models('bert')}"
    settings = ["learning_rate=1e-3,1e-2", model, "method=encoder", "max_steps=50", "logging_steps=1"]
    words = [str(recipe), *settings, "--sweep-dir", str(folder)]
    first = forked.start(tmp_path / "said", sweep_in_a_group_of_its_own, *words, "--trials", "1")
    while first.exitcode is None and not any(len(path.read_text()) > 100 for path in folder.glob("*/metrics.jsonl")):
        time.sleep(0.01)
    assert first.pid
    os.killpg(first.pid, signal.SIGINT)
    first.join(120)
    said = (tmp_path / "said.err").read_text()
    assert first.exitcode == 130, said
    assert "stopping after this step, with a checkpoint" in said
    assert f"same command with --sweep-dir {folder}" in said
    assert len(list(folder.glob("*/checkpoints/step-*"))) == 1
    (trial,) = tunesmith.sweep(recipe, settings, trials=1, sweep_dir=folder).read("sweep.json")["trials"]
    assert "resuming at step" in capfd.readouterr().err
    assert [step for step, _ in trial["curve"]["loss"]] == list(range(1, 51))


@pytest.mark.usefixtures("trained_here")
def test_language_models_are_swept(tmp_path: Path) -> None:
    pairs = [{"instruction": "Name the topic.", "input": text, "output": label} for text, label in tiny.texts(60)]
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    content = {
        "task": "instruction",
        "data": {"path": str(tmp_path / "pairs.json")},
        "model": {"name_or_path": str(tiny.generator("llama", tmp_path / "model"))},
        "adapter": {"kind": "lora"},
        "train": {"max_steps": 3},
        "evaluate": {"bootstrap_samples": 100, "base": False, "num_samples": 1, "logging_steps": 1},
        "generate": {"max_new_tokens": 4},
    }
    folder = tunesmith.sweep(content, ["adapter.r=2,4"], sweep_dir=tmp_path / "sweep")
    trials = folder.read("sweep.json")["trials"]
    assert {trial["run"] for trial in trials} == {"r-2", "r-4"}
    trainable = {trial["run"]: trial["costs"]["trainable"] for trial in trials}
    assert trainable["r-4"] == 2 * trainable["r-2"]
    page, text = folder.read_text("report.html"), folder.read_text("report.md")
    assert page.count("<polyline") + page.count("<path") >= 2
    for trial in trials:
        assert [step for step, _ in trial["curve"]["loss"]] == [1, 2, 3]
        share = f"{trial['costs']['trainable'] / trial['costs']['parameters']:.2%}"
        assert share in page
        assert share in text


def test_a_training_that_is_stopped_stops_the_sweep(recipe: Path, tmp_path: Path, trainer: Trainer) -> None:
    """It alone got the signal; it is no failure, and gone on with."""

    def stopped(held: int) -> None:
        raise Interrupted("stopped", signal.SIGTERM, do="go on")

    trainer.cut = stopped
    with pytest.raises(Interrupted) as stop:
        tunesmith.sweep(recipe, ["linear.C=0.1,1"], sweep_dir=tmp_path / "sweep")
    assert stop.value.signal == signal.SIGTERM
    again = tunesmith.sweep(recipe, ["linear.C=0.1,1"], sweep_dir=tmp_path / "sweep").read("sweep.json")
    assert len(again["trials"]) == 2
    assert not again["failed"]


@pytest.mark.parametrize("code", [signal.SIGINT, signal.SIGTERM])
def test_the_exit_code_tells_stopped_from_failed(
    code: int, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = tmp_path / "stopped.sh"
    stopped.write_text(f"#!/bin/sh\nexit {128 + code}\n")
    stopped.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stopped))
    with pytest.raises(Interrupted, match=f"train --resume {tmp_path / 'run'}") as stop:
        training_process.train(recipes.load(recipe), tmp_path / "run")
    assert stop.value.signal == code


@pytest.mark.parametrize("sampler", ["random", "tpe"])
@pytest.mark.parametrize("words", [["linear.C=0.1,1", "linear.min_df=1,2"], ["linear.min_df=1..4"]])
@pytest.mark.usefixtures("trained_here")
def test_no_more_trials_than_settings(
    words: list[str], sampler: str, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tunesmith.sweep(recipe, words, sampler=sampler, sweep_dir=tmp_path / "sweep")
    assert len(folder.read("sweep.json")["trials"]) == 4
    assert "there are 4 different settings, so 4 trials and not 20" in capsys.readouterr().err


@pytest.mark.usefixtures("trained_here")
def test_a_sampler_that_repeats_itself_ends(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        sweeps.SearchAxis, "suggest", lambda axis, trial: str(trial.suggest_categorical(axis.name, ("1",)))
    )
    words = ["linear.min_df=1,2,3,4"]
    folder = tunesmith.sweep(recipe, words, sampler="random", trials=3, sweep_dir=tmp_path / "sweep")
    assert len(folder.read("sweep.json")["trials"]) == 1
    assert "1 of 3 trials: the sampler found no new settings" in capsys.readouterr().err


@pytest.mark.usefixtures("trained_here")
def test_the_winners_memory_is_that_of_its_training(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its test split is opened by the sweep's own process, whose memory is another matter."""
    measured = iter(range(1, 100))
    monkeypatch.setattr(hardware, "peak_memory_mb", lambda: float(next(measured)))
    folder = tunesmith.sweep(recipe, ["linear.C=0.1,1"], sweep_dir=tmp_path / "sweep")
    assert sorted(trial["costs"]["peak_memory_mb"] for trial in folder.read("sweep.json")["trials"]) == [1, 2]
    assert sorted(run.finished.costs.peak_memory_mb for run in runs.listing(folder.path)) == [1, 2]
    assert next(measured) == 3, "the trainings are measured, and nothing else"


@pytest.mark.usefixtures("trained_here")
def test_trials_with_different_seeds_share_one_split(recipe: Path, tmp_path: Path) -> None:
    folder = tunesmith.sweep(recipe, ["seed=1,2,3"], sweep_dir=tmp_path / "sweep")
    found = [run.manifest for run in runs.listing(folder.path)]
    assert sorted(manifest.seed for manifest in found) == [1, 2, 3]
    assert len({manifest.data.fingerprint for manifest in found}) == 1


@pytest.mark.usefixtures("trained_here")
@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_ranges_are_drawn_repeatably(sampler: str, recipe: Path, tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        folder = tunesmith.sweep(recipe, ["linear.C=0.01..100"], sampler=sampler, trials=3, sweep_dir=tmp_path / name)
        found.append([trial["values"] for trial in folder.read("sweep.json")["trials"]])
    assert found[0] == found[1]
    assert len(found[0]) == 3


def test_what_cannot_be_swept_is_said_before_training(recipe: Path, tmp_path: Path) -> None:
    for words, options in (
        (["linear.C=0.1..1"], {}),
        (["linear.C=1,nonsense"], {}),
        (["linear.D=1,2"], {}),
        (["split.seed=1,2"], {}),
        (["split.validation_size=20,40"], {}),
        (["data.encoding=utf-8,cp1252"], {}),
        (["max_samples=100..200"], {"sampler": "random"}),
        (["linear.C=1,2", "split.validation_size=0"], {}),
    ):
        with pytest.raises(RecipeError):
            tunesmith.sweep(recipe, words, sweep_dir=tmp_path / "sweep", **options)
    assert runs.listing(tmp_path / "sweep") == []


def test_a_trial_that_fails_is_named_and_left_out(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tunesmith.sweep(recipe, ["linear.min_df=1,100000"], sweep_dir=tmp_path / "sweep")
    content = folder.read("sweep.json")
    assert [trial["values"] for trial in content["trials"]] == [{"linear.min_df": "1"}]
    assert content["failed"] == ["min_df-100000"]
    assert "1 trial(s) failed" in capsys.readouterr().err


def test_seeds_share_one_split_and_show_the_spread(recipe: Path, tmp_path: Path) -> None:
    folder = seeds.repeat(recipe, [], [1, 2], run_dir=tmp_path / "seeds")
    finished = [Run(folder.path / f"seed-{seed}") for seed in (1, 2)]
    assert len({run.manifest.data.fingerprint for run in finished}) == 1
    assert [run.manifest.seed for run in finished] == [1, 2]
    found = folder.read("seeds.json")["scores"]["accuracy"]
    values = [run.read("scores.json")["headline"]["accuracy"]["value"] for run in finished]
    assert found["values"] == values
    assert found["mean"] == pytest.approx(sum(values) / 2)
    assert "| accuracy |" in folder.read_text("report.md")
    with pytest.raises(RecipeError, match="two seeds"):
        seeds.repeat(recipe, [], [1], run_dir=tmp_path / "one")
    with pytest.raises(RecipeError, match="needs a test split"):
        seeds.repeat(recipe, ["split.test_size=0"], [1, 2], run_dir=tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "no data"),
        (["--resume", "run"], "--seeds does not go with --resume"),
        (["r.yaml", "--worker", "--skip-test"], "--seeds does not go with --worker, --skip-test"),
    ],
)
def test_seeds_on_the_command_line(words: list[str], problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", *words, "--seeds", "1,2"]) == 2
    assert problem in capsys.readouterr().err


@pytest.mark.usefixtures("trained_here")
def test_a_comparison_over_seeds(recipe: Path, reviews: Path, capsys: pytest.CaptureFixture[str]) -> None:
    comparison = tunesmith.compare([recipe], methods=["linear"], seeds=[1, 2])
    spread = json.loads((comparison.path / "seeds.json").read_text())["scores"]
    assert len(spread["linear"]["accuracy"]["values"]) == 2
    assert "over 2 seeds" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("storage", "found"),
    [
        ("nope://me:hunter2@host/x", "plugin"),
        ("no url", "URL"),
        ("sqlite:////no/such/folder/x.db", "unable to open database file"),
        ("sqlite:///broken.db", "not a database"),
        ("journal:/dev/null/sweep.journal", "Not a directory|exists"),
        ("journal:broken.journal", "Expecting value"),
        ("redis://me:hunter2@localhost:1/1", "redis|refused"),
    ],
)
def test_a_storage_that_does_not_work_is_named_without_its_password(recipe: Path, storage: str, found: str) -> None:
    Path("broken.db").write_bytes(b"x" * 5000)
    Path("broken.journal").write_bytes(b"x" * 5000 + b"\n")
    with pytest.raises(FileError, match=rf"cannot use the Optuna storage .*[\s\S]*found: .*{found}") as caught:
        tunesmith.sweep(recipe, ["linear.C=1,2"], storage=storage)
    assert "hunter2" not in str(caught.value)


def test_a_grid_of_billions_is_refused_at_once(recipe: Path) -> None:
    values = ",".join(map(str, range(1, 2000)))
    with pytest.raises(RecipeError, match="a sweep of 7,988,005,999 trials"):
        tunesmith.sweep(recipe, [f"linear.C={values}", f"linear.min_df={values}", f"linear.max_iter={values}"])
