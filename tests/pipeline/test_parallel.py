"""Methods that are trained side by side: the same results, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

import tunesmith
from tunesmith import console
from tunesmith.errors import RecipeError, TunesmithError
from tunesmith.pipeline.commands.compare import Comparison
from tunesmith.pipeline.fitting import parallel
from tunesmith.runs import Run

Models = Callable[[str], Path]
TWO_CORES = """
import sys
from tunesmith import cli
from tunesmith.pipeline.fitting import parallel

parallel._cores = lambda: 2
sys.exit(cli.main(sys.argv[1:]))
"""
"""The command line on a machine with two cores."""


@pytest.fixture
def linear(reviews: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "method": "linear",
        "data": {"path": str(reviews)},
        "output_dir": str(tmp_path / "runs"),
        "evaluate": {"bootstrap_samples": 100},
    }


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_cores", lambda: 2)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def without_costs(comparison: Comparison) -> Any:
    """What a comparison found, but for times, the caveat on them, and the folder."""
    content = json.loads((comparison.path / "comparison.json").read_text())
    for method in content["methods"]:
        del method["costs"], method["run"]
    return content


def test_side_by_side_is_one_after_the_other_but_for_times(
    two_cores: None, linear: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    sources = [linear, linear | {"linear": {"C": 0.1}}, linear | {"linear": {"C": 0.01}}]
    whole = tunesmith.compare(sources)
    capfd.readouterr()
    both = tunesmith.compare(sources, parallel=2)
    said = capfd.readouterr().err
    assert "training 3 runs, 2 side by side with 1 thread each" in said
    for place in ("1-linear", "2-linear", "3-linear"):
        assert f"[{place}] linear: TF-IDF" in said
    found, expected = without_costs(both), without_costs(whole)
    assert found["methods"] == expected["methods"]
    assert {**found, "verdict": 0} == {**expected, "verdict": 0}  # which may name the faster one
    for run in (Run(both.path / name) for name in ("1-linear", "2-linear", "3-linear")):
        assert run.finished.costs.side_by_side == 2
        assert "side by side" in run.read_text("README.md")
    for page in ("report.md", "report.html"):
        assert "measured with up to 2 trainings side by side" in (both.path / page).read_text()
        assert "side by side, each" not in (whole.path / page).read_text()


def test_one_that_fails_ends_the_others_and_can_be_resumed(
    two_cores: None, linear: dict[str, Any], tiny_models: Models, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The error is that of one after the other; what was stopped goes on from its checkpoint."""
    model = {"name_or_path": str(tiny_models("bert"))}
    slow = linear | {"method": "encoder", "model": model, "train": {"max_steps": 100_000}}
    lost = linear | {"method": "encoder", "model": {"name_or_path": str(tmp_path / "none")}}
    with pytest.raises(TunesmithError, match=r"training encoder failed \(exit code 2\)"):
        tunesmith.compare([slow, lost, linear], parallel=2)
    (folder,) = (tmp_path / "runs").iterdir()
    assert f"tunesmith compare --resume {folder} --parallel 2" in capfd.readouterr().err
    assert not (folder / "3-linear" / "manifest.json").exists()
    assert not [child for child in psutil.Process().children(recursive=True) if "train" in child.cmdline()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_with_checkpoints(
    number: signal.Signals, linear: dict[str, Any], tiny_models: Models, tmp_path: Path
) -> None:
    """It is sent to the parent alone, as `kill` or a scheduler does."""
    content = linear | {
        "method": "encoder",
        "model": {"name_or_path": str(tiny_models("bert"))},
        "train": {"max_steps": 100_000},
    }
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
    words = [sys.executable, "-c", TWO_CORES, "compare", "a.yaml", "b.yaml", "--parallel", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    runs = tmp_path / "runs"
    while len([*runs.glob("*/*/metrics.jsonl")]) < 2 and process.poll() is None:
        time.sleep(0.05)
    children = psutil.Process(process.pid).children()
    assert len(children) == 2
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number, said.decode()
    assert not any(child.is_running() for child in children)
    (folder,) = runs.iterdir()
    assert f"tunesmith compare --resume {folder} --parallel 2" in said.decode()
    for place in ("1-encoder", "2-encoder"):
        assert Run(folder / place).manifest.status == "interrupted"
        assert [*(folder / place / "checkpoints").glob("step-*")]


def test_the_machine_is_divided(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Threads by cores, GPUs one each, and no more trainings than there are of them."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(parallel, "_cores", lambda: 7)
    monkeypatch.setattr(parallel, "_gpus", tuple)
    assert parallel.MachineShares.of(3).environment(0, 3)["OMP_NUM_THREADS"] == "2"
    with pytest.raises(RecipeError, match=r"cannot train 8 methods side by side[\s\S]*7 cores"):
        parallel.check(8)
    with pytest.raises(RecipeError, match="cannot train 0 methods"):
        parallel.check(0)
    monkeypatch.setattr(parallel, "_gpus", lambda: ("GPU-3", "GPU-5"))
    shares = parallel.MachineShares.of(2)
    assert [shares.environment(place, 2)["CUDA_VISIBLE_DEVICES"] for place in (0, 1)] == ["GPU-3", "GPU-5"]
    with pytest.raises(RecipeError, match=r"cannot train 3 methods side by side[\s\S]*2 GPUs"):
        parallel.check(3)
    monkeypatch.setattr(parallel, "ENOUGH_MEMORY", 2**60)
    parallel.MachineShares.of(2)
    assert "2 trainings share" in capsys.readouterr().err


def test_lines_name_their_training(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """In text and in JSON; control characters of the other process do nothing here."""
    console.relay("loss 3\x1b[2J", "probe")
    assert capsys.readouterr().err == "[probe] loss 3\\u001b[2J\n"
    monkeypatch.setenv("TUNESMITH_LOG", "json")
    console.relay('{"message": "loss 3"}', "probe")
    assert json.loads(capsys.readouterr().err) == {"message": "loss 3", "name": "probe"}
    for line in ("Traceback", "3"):
        console.relay(line, "probe")
        assert capsys.readouterr().err == f"[probe] {line}\n"
