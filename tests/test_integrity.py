"""Damage to the files of a run is noticed before they are used, and an edit on purpose can be accepted."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import tunesmith
from tests import conftest, tiny
from tunesmith import cli, integrity, runs
from tunesmith.errors import ModelError, RecipeError, RunError
from tunesmith.pipeline.commands.accept import accept

SCORES = ("evaluate.bootstrap_samples=100",)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the linear method."""
    folder = tmp_path_factory.mktemp("trained")
    data = conftest.write_csv(folder / "reviews.csv", tiny.texts(60))
    return tunesmith.train({"data": {"path": str(data)}, "method": "linear"}, SCORES, run_dir=folder / "run").path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


DAMAGE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a label": ("model/linear.json", lambda file: replace(file, '"sport"', '"spirt"')),
    "a cut file": ("model/linear.json", lambda file: file.write_bytes(file.read_bytes()[:-9])),
    "a bit": ("model/linear.safetensors", lambda file: file.write_bytes(file.read_bytes()[:-1] + b"\x00")),
    "a missing file": ("model/linear.safetensors", Path.unlink),
    "a hash": ("model/hashes.json", lambda file: replace(file, "a", "b")),
    "no hashes": ("model/hashes.json", Path.unlink),
    "another model": ("model/hashes.json", lambda file: _other_model(file.parent)),
    "an added file": ("model/config.json", lambda file: file.write_text("{}")),
    "no recipe": ("recipe.yaml", lambda file: file.write_text("")),
    "a setting": ("recipe.yaml", lambda file: replace(file, "seed: 42", "seed: 43")),
    "a key of the manifest": ("manifest.json", lambda file: replace(file, '"seed"', '"sead"')),
    "a space in the manifest": ("manifest.json", lambda file: replace(file, ": ", ":  ")),
    "not JSON": ("manifest.json", lambda file: file.write_bytes(b"\xff" + file.read_bytes())),
    "nesting": ("manifest.json", lambda file: file.write_text("[" * 10**5)),
}


def _other_model(folder: Path) -> None:
    """A whole model, with hashes, of another run."""
    replace(folder / "linear.json", '"sport"', '"spurt"')
    (folder / "hashes.json").write_text(json.dumps(integrity.hashes(folder)))


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_run_predicts_nothing(damage: str, run: Path) -> None:
    name, make = DAMAGE[damage]
    make(run / name)
    with pytest.raises(RunError) as error:
        tunesmith.predict(run, "the goal of the team")
    assert str(error.value).startswith(f"{run} is damaged: {name} ")


STORED = {
    "half": lambda lines: lines[: len(lines) // 2],
    "twice": lambda lines: lines * 2,
    "another order": lambda lines: lines[::-1],
    "a type": lambda lines: [json.dumps(json.loads(lines[0]) | {"gold": 1}) + "\n", *lines[1:]],
    "a cut end": lambda lines: [*lines[:-1], lines[-1][:-9]],
}


@pytest.mark.parametrize(
    ("damage", "hashed"),
    [(name, hashed) for name in STORED for hashed in (True, False) if hashed or name != "another order"],
)
def test_damaged_predictions_are_not_scored(damage: str, hashed: bool, run: Path) -> None:
    """A run from before there were hashes is known by its number of rows, not by their order."""
    if not hashed:
        content = runs.find(run).read("manifest.json")
        (run / "manifest.json").write_text(json.dumps({key: content[key] for key in content if key not in REMOVED}))
    file = run / "predictions" / "test.jsonl"
    file.write_text("".join(STORED[damage](file.read_text().splitlines(keepends=True))))
    with pytest.raises(
        RunError, match=r"damaged[\s\S]*" if not hashed else r"damaged: predictions/test\.jsonl has changed"
    ):
        tunesmith.evaluate(run)


REMOVED = ("hashes", "sha256")


def test_scores_that_changed_are_computed_again(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "scores.json").read_bytes()
    replace(run / "scores.json", '"rows": ', '"rows": 1')
    assert cli.main(["runs", "show", str(run)]) == 2
    assert f"score the predictions again (tunesmith evaluate {run})" in capsys.readouterr().err
    tunesmith.evaluate(run)
    assert (run / "scores.json").read_bytes() == before
    assert cli.main(["runs", "show", str(run)]) == 0


def test_a_list_of_runs_names_the_damaged_ones(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, file in (("other", "scores.json"), ("third", "manifest.json")):
        shutil.copytree(run, run.with_name(name))
        (run.with_name(name) / file).unlink()
    assert cli.main(["runs", "list", str(run.parent)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [str(run.with_name(name)) for name in ("other", "run", "third")]
    assert lines[0].endswith("is damaged: scores.json is missing")
    assert "accuracy" in lines[1]
    assert lines[2].endswith("is damaged: manifest.json is missing")


def test_a_run_without_its_manifest_is_compared_with_nothing(run: Path) -> None:
    other = run.with_name("other")
    shutil.copytree(run, other)
    with pytest.raises(RecipeError, match=r"found: 1 of 2 are runs\n  do: train the others first"):
        tunesmith.compare([run, {"data": {"path": "reviews.csv"}}])
    (other / "manifest.json").unlink()
    with pytest.raises(RunError, match=r"other is damaged: manifest\.json is missing"):
        tunesmith.compare([run, other])


def test_the_error_names_what_is_whole(run: Path) -> None:
    runs.write_folder(run / "export" / "safetensors", lambda folder: (folder / "x").write_text("x") and None)
    runs.write_folder(run / "checkpoints" / "step-00000001", lambda folder: (folder / "x").write_text("x") and None)
    (run / "checkpoints" / "step-00000001" / "x").write_text("y")
    (run / "model" / "linear.json").unlink()
    with pytest.raises(RunError, match=r"still whole: export/safetensors$"):
        tunesmith.predict(run, "the goal of the team")


def test_unverified_files_are_used_with_a_warning(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    replace(run / "model" / "linear.json", '"sport"', '"Sport"')
    words = ["predict", str(run), "--text", "the goal of the team and the coach"]
    assert cli.main(words) == 2
    capsys.readouterr()
    assert cli.main([*words, "--no-verify"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["label"] == "Sport"
    assert "--no-verify" in err
    (run / "model" / "linear.safetensors").write_bytes(b"cut")
    assert cli.main([*words, "--no-verify"]) == 2
    assert "error: cannot use the files as they are" in capsys.readouterr().err
    assert cli.main(words) == 2  # the next command verifies again
    assert "is damaged" in capsys.readouterr().err


def test_an_edit_on_purpose_is_accepted_and_noted(run: Path) -> None:
    assert accept(run) == {}
    replace(run / "model" / "linear.json", '"sport"', '"games"')
    replace(run / "manifest.json", '"description": "', '"description": "my ')
    expected = {"manifest.json": "has changed", "model/linear.json": "has changed"}
    changed = accept(run)
    assert {name: how.partition(" since")[0] for name, how in changed.items()} == expected
    assert tunesmith.predict(run, "the goal of the team and the coach")[0]["label"] == "games"
    manifest = runs.find(run).finished
    assert manifest.description.startswith("my ")
    note = f"{time.strftime('%Y-%m-%d')}: manifest.json, model/linear.json"
    assert manifest.notes.accepted == note
    assert note in (run / "report.html").read_text()
    for name in ("report.html", "README.md"):  # as if it had been killed before it wrote them
        (run / name).unlink()
    assert accept(run) == {}
    assert note in (run / "report.html").read_text()
    assert (run / "README.md").exists()


def test_what_cannot_be_used_is_not_accepted(run: Path) -> None:
    file = run / "model" / "linear.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(RunError, match=r"cannot accept .*: it cannot be used as it is\n  found: SafetensorError"):
        accept(run)
    with pytest.raises(RunError, match=r"is damaged: model/linear\.safetensors has changed"):
        tunesmith.predict(run, "the goal of the team")


def test_a_run_from_before_the_hashes_gets_some(run: Path) -> None:
    content = runs.find(run).read("manifest.json")
    (run / "manifest.json").write_text(json.dumps({key: content[key] for key in content if key not in REMOVED}))
    (run / "model" / "hashes.json").unlink()
    with pytest.raises(RunError, match=r"model/hashes\.json is missing[\s\S]*tunesmith runs accept"):
        tunesmith.predict(run, "the goal of the team")
    assert accept(run) == {"model/hashes.json": "is missing"}
    assert runs.find(run).read("manifest.json")["hashes"].keys() == content["hashes"].keys()
    tunesmith.predict(run, "the goal of the team")


def test_weights_that_are_not_finite_are_refused(run: Path) -> None:
    file = run / "model" / "linear.safetensors"
    tensors = load_file(file)
    tensors["weight"][0, 0] = np.nan
    save_file(tensors, file)
    with integrity.disabled(), pytest.raises(ModelError, match=r"run/model/linear.safetensors: weights are not finite"):
        tunesmith.predict(run, "the goal of the team")


def test_a_number_that_is_not_finite_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot write .*scores\.json"):
        runs.use(tmp_path / "new").write("scores.json", {"accuracy": float("nan")})
    assert not (tmp_path / "new" / "scores.json").exists()


def test_a_large_file_is_hashed_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of one byte that leaves size and time of modification as they were included."""
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(integrity, "LARGE", 100)
    runs.write_folder(tmp_path / "model", lambda folder: (folder / "weights").write_bytes(b"a" * 1000) and None)
    file, hashed = tmp_path / "model" / "weights", []
    digest = integrity.digest
    monkeypatch.setattr(integrity, "digest", lambda path: hashed.append(path) or digest(path))
    assert integrity.damage(file.parent) is None
    assert integrity.damage(file.parent) is None
    assert hashed == [file, file]  # it was written a moment ago
    monkeypatch.setattr(integrity, "SETTLED", -1)
    assert [integrity.damage(file.parent) for _ in range(3)] == [None] * 3
    assert len(hashed) == 3
    before = file.stat()
    file.write_bytes(b"a" * 999 + b"b")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert integrity.damage(file.parent) == f"weights {integrity.CHANGED}"
    file.write_bytes(b"a" * 1000)
    assert integrity.damage(file.parent) is None
    assert len(hashed) == 5
