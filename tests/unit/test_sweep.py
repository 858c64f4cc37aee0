"""Sweeps: what is searched, ranked on validation, gone on with, shared by workers; and repetition with seeds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import tunesmith
from tunesmith import runs
from tunesmith.errors import RecipeError, RunError
from tunesmith.pipeline import seeds, sweep as sweeps
from tunesmith.runs import Run

SPLIT = {"test_size": 40, "validation_size": 40}


@pytest.fixture
def recipe(reviews: Path, tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    content = {"method": "linear", "data": {"path": str(reviews)}, "split": SPLIT,
               "evaluate": {"bootstrap_samples": 100}}  # fmt: skip
    path.write_text(yaml.safe_dump(content))
    return path


def test_settings_are_axes_or_fixed() -> None:
    axes, fixed = sweeps.parse(["linear.C=1,10", "lr=1e-5..1e-3", "adapter.r=4..64", "min_df=1", "word_ngrams=[1, 1]"])
    assert [axis.name for axis in axes] == ["linear.C", "lr", "adapter.r"]
    assert axes[0].choices == ("1", "10")
    assert (axes[1].log, axes[1].whole, axes[2].log, axes[2].whole) == (True, False, True, True)
    assert fixed == ["min_df=1", "word_ngrams=[1, 1]"]
    for wrong in (["min_df=1"], ["C=3..1"], ["C=a..b"]):
        with pytest.raises(RecipeError):
            sweeps.parse(wrong)


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


def test_two_workers_share_one_sweep(recipe: Path, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    command = [sys.executable, "-m", "tunesmith", "sweep", str(recipe), "linear.C=0.1,1,10,100", "--storage", storage,
               "--sweep-dir", str(tmp_path / "sweep")]  # fmt: skip
    tunesmith.sweep(recipe, ["linear.C=0.1,1,10,100"], trials=1, storage=storage, sweep_dir=tmp_path / "sweep")
    workers = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(2)]
    for worker in workers:
        _, said = worker.communicate(timeout=250)
        assert worker.returncode == 0, said.decode()[-2000:]
    content = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert sorted(trial["values"]["linear.C"] for trial in content["trials"]) == ["0.1", "1", "10", "100"]


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
    folder = seeds.repeat(recipe, [], [1, 2, 3], run_dir=tmp_path / "seeds")
    finished = [Run(folder.path / f"seed-{seed}") for seed in (1, 2, 3)]
    assert len({run.manifest["data"]["fingerprint"] for run in finished}) == 1
    assert [run.manifest["seed"] for run in finished] == [1, 2, 3]
    found = folder.read("seeds.json")["scores"]["accuracy"]
    values = [run.read("scores.json")["headline"]["accuracy"]["value"] for run in finished]
    assert found["values"] == values
    assert found["mean"] == pytest.approx(sum(values) / 3)
    assert "| accuracy |" in folder.read_text("report.md")
    with pytest.raises(RecipeError, match="two seeds"):
        seeds.repeat(recipe, [], [1], run_dir=tmp_path / "one")


def test_a_comparison_over_seeds(recipe: Path, reviews: Path, capsys: pytest.CaptureFixture[str]) -> None:
    comparison = tunesmith.compare([recipe], methods=["linear"], seeds=[1, 2])
    spread = json.loads((comparison.path / "seeds.json").read_text())["scores"]
    assert len(spread["linear"]["accuracy"]["values"]) == 2
    assert "over 2 seeds" in capsys.readouterr().err
