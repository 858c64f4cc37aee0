"""Killed and resumed is the same, to the last bit; damaged checkpoints are seen; a full disk costs nothing."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

import tunesmith
from tests import forked, power_cut
from tests.parity import kill
from tunesmith import integrity, runs
from tunesmith.errors import FileError, RecipeError, RunError
from tunesmith.runs import Run
from tunesmith.training import checkpoint

Models = Callable[[str], Path]
KILLS = int(os.environ.get("TUNESMITH_KILLS", "4"))
"""How many trainings of each kind to kill: a few by default; docs/benchmarks.md has what more of them showed."""


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["encoder", "contrastive", "lora", "causal", "stream"])
def test_killed_at_random_moments_and_resumed_is_bit_identical(kind: str, tmp_path: Path) -> None:
    said = forked.run(kill.main, kind, KILLS, 1, tmp_path)
    found = [json.loads(line) for line in said.splitlines()]
    assert len(found) == KILLS
    assert [one for one in found if one["differs"]] == []
    assert any(one["checkpoints"] for one in found)


def settings(reviews: Path, models: Models, *more: str) -> tuple[dict[str, object], list[str]]:
    source = {"method": "encoder", "data": {"path": str(reviews)}, "model": {"name_or_path": str(models("bert"))}}
    return source, ["bootstrap_samples=100", "max_steps=12", "save_strategy=steps", "save_steps=3", *more]


@pytest.fixture
def half_done(reviews: Path, tiny_models: Models, tmp_path: Path) -> Iterator[Path]:
    """A run that died at step 11, with checkpoints of steps 6 and 9; and the whole run's scores beside it."""
    source, overrides = settings(reviews, tiny_models)
    whole = tunesmith.train(source, overrides, run_dir=tmp_path / "whole")
    with power_cut.at_step(11):
        tunesmith.train(source, overrides, run_dir=tmp_path / "half")
    yield tmp_path / "half"
    shutil.rmtree(whole.path)


def same(one: Path, other: Path) -> bool:
    names = ("scores.json", "metrics.jsonl", "model/model.safetensors")
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def test_resume_goes_on_from_the_newest(half_done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sorted(path.name for path in (half_done / "checkpoints").iterdir()) == ["step-00000006", "step-00000009"]
    assert Run(half_done).manifest.status == "failed"
    gone = half_done / "checkpoints" / ".step-00000003.gone"  # as if it had been killed while it deleted a checkpoint
    gone.mkdir()
    tunesmith.train(resume=half_done)
    assert not gone.exists()
    assert "resuming at step 9 of 12" in capsys.readouterr().err
    assert same(half_done, tmp_path / "whole")
    for name in ("README.md", "report.html"):  # as if it had been killed before it wrote them
        (half_done / name).unlink()
    assert "finished already" in (tunesmith.train(resume=half_done), capsys.readouterr().err)[1]
    assert all((half_done / name).exists() for name in ("README.md", "report.html"))


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "progress.json", "hashes.json"])
@pytest.mark.parametrize("harm", [truncate, flip, Path.unlink])
def test_a_damaged_newest_checkpoint_is_passed_over_aloud(
    name: str, harm: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (6, 9):
        runs.write_folder(tmp_path / f"step-{step:08d}", fill)
    assert checkpoint.newest(tmp_path) == tmp_path / "step-00000009"
    harm(tmp_path / "step-00000009" / name)
    assert checkpoint.newest(tmp_path) == tmp_path / "step-00000006"
    assert "checkpoint step-00000009 is damaged" in capsys.readouterr().err


def fill(folder: Path) -> None:
    for name in ("model.safetensors", "optimizer.safetensors", "progress.json"):
        (folder / name).write_bytes(os.urandom(500))


def test_all_checkpoints_damaged_starts_again(half_done: Path, tmp_path: Path) -> None:
    for path in (half_done / "checkpoints").glob("*/model.safetensors"):
        flip(path)
    tunesmith.train(resume=half_done)
    assert same(half_done, tmp_path / "whole")


@pytest.mark.parametrize(("call", "at"), [("fsync", 1), ("fsync", 4), ("write_text", 1), ("rename", 1), ("rename", 2)])
def test_a_full_disk_leaves_the_previous_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, at: int
) -> None:
    """Whichever call of a save fails: a clear error, the old folder whole, nothing half-written left behind."""
    target = tmp_path / "step-00000001"
    runs.write_folder(target, fill)
    before = (target / "model.safetensors").read_bytes()
    owner = os if call == "fsync" else Path
    whole = getattr(owner, call)
    count = 0

    def failing(*arguments: object, **options: object) -> object:
        nonlocal count
        count += 1
        if count == at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, call, failing)
        with pytest.raises(FileError, match=r"cannot save .*[\s\S]*No space left[\s\S]*MB free"):
            runs.write_folder(target, fill)
    assert integrity.damage(target) is None
    assert (target / "model.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    """On a file system of 4 MB; needs the right to mount one."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a small file system")
    try:
        runs.write_folder(place / "step-00000001", fill)
        with pytest.raises(FileError, match="No space left"):
            runs.write_folder(
                place / "step-00000002", lambda folder: (folder / "x").write_bytes(bytes(8 << 20)) and None
            )
        with pytest.raises(FileError, match="No space left"):
            runs.write_folder(place / "step-00000002", lambda folder: save_file({"x": np.zeros(1 << 20)}, folder / "x"))
        assert integrity.damage(place / "step-00000001") is None
        assert [path.name for path in place.iterdir()] == ["step-00000001"]
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_rotation_keeps_the_newest_and_never_the_count_of_names(reviews: Path, tiny_models: Models) -> None:
    """Steps 9, 99, 999 ... sort as numbers; of many checkpoints the newest two stay, and `model/` has the best."""
    source, overrides = settings(
        reviews, tiny_models, "save_steps=1", "save_total_limit=2", "eval_strategy=steps", "eval_steps=2"
    )
    run = tunesmith.train(source, overrides)
    assert sorted(path.name for path in (run.path / "checkpoints").iterdir()) == ["step-00000010", "step-00000011"]
    assert integrity.damage(run.model) is None


def test_a_resumed_run_keeps_its_settings_and_its_data(half_done: Path, reviews: Path) -> None:
    with pytest.raises(RecipeError, match=r"keeps its settings: train\.learning_rate=1"):
        tunesmith.train(resume=half_done, overrides=["train.learning_rate=1"])
    with pytest.raises(RecipeError, match="leave the recipe out"):
        tunesmith.train("r.yaml", resume=half_done)
    with reviews.open("a") as file:
        file.write("a new goal,sport\n")
    with pytest.raises(RunError, match=r"data of .* has changed"):
        tunesmith.train(resume=half_done)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_go_on(
    number: signal.Signals, reviews: Path, tiny_models: Models, tmp_path: Path
) -> None:
    source, overrides = settings(reviews, tiny_models, "max_steps=4000", "save_strategy=no")
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(source))
    process = forked.start(Path("said"), forked.command, "train", "r.yaml", *overrides, "--run-dir", "run")
    while not Path("run/metrics.jsonl").exists() and process.exitcode is None:
        time.sleep(0.02)
    assert process.pid
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == 128 + number
    shown = Path("said.err").read_text()
    assert "go on with: tunesmith train --resume" in shown
    assert "Traceback" not in shown
    assert checkpoint.newest(tmp_path / "run" / "checkpoints") is not None
