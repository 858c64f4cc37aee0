"""Choices that follow from a measurement are the same in every process."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import forked
from tunesmith import autotuning
from tunesmith.autotuning import Choice

TWENTY = """
import os, random, time
from tunesmith import autotuning

def measure():
    time.sleep(0.1)
    return random.SystemRandom().random()

for _ in range(20):
    if not os.fork():
        os.write(1, f"{autotuning.choose('speed', measure).value}\\n".encode())
        os._exit(0)
for _ in range(20):
    assert os.wait()[1] == 0
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "measured"


def test_twenty_processes_at_once_choose_the_same(cache: Path) -> None:
    done = subprocess.run([sys.executable, "-c", TWENTY], capture_output=True, text=True, check=True)
    chosen = [float(line) for line in done.stdout.split()]
    assert (len(chosen), len(set(chosen))) == (20, 1)
    assert [file.name.startswith("speed-") for file in cache.iterdir()] == [True], "no scratch file is left"


def test_each_condition_is_measured_once() -> None:
    results = iter([True, False])
    assert autotuning.choose("speed", lambda: next(results), threads=1) == Choice(True, "measured")
    assert autotuning.choose("speed", lambda: next(results), threads=2) == Choice(False, "measured")
    assert autotuning.choose("speed", lambda: next(results), threads=1) == Choice(True, "cache")
    autotuning.forget()
    assert autotuning.choose("speed", lambda: "again", threads=1) == Choice("again", "measured")


def test_instruction_sets_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    assert autotuning.choose("speed", lambda: "fast").value == "fast"
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert autotuning.choose("speed", lambda: "slow").value == "slow"


def test_a_damaged_file_is_replaced(cache: Path) -> None:
    autotuning.choose("speed", lambda: 1)
    (file,) = cache.iterdir()
    file.write_text('{"value"')
    assert autotuning.choose("speed", lambda: 2) == Choice(2, "measured")
    assert autotuning.choose("speed", lambda: 3) == Choice(2, "cache")


def test_without_a_cache_every_call_measures(cache: Path) -> None:
    cache.parent.write_text("a file where the folder should be")
    assert [autotuning.choose("speed", lambda: 1).value, autotuning.choose("speed", lambda: 2).value] == [1, 2]


def test_the_median_of_rounds_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven of fifteen rounds that something else disturbs, and the first of all, change nothing."""
    seconds = 0.0
    disturbed = {0, 1, 3, 5, 7, 9, 11, 13}
    monkeypatch.setattr("time.perf_counter", lambda: seconds)

    def take(usual: float, disturbance: float) -> Callable[[], None]:
        rounds = itertools.count()

        def work() -> None:
            nonlocal seconds
            seconds += disturbance if next(rounds) in disturbed else usual

        return work

    assert autotuning.speedup(take(3.0, 50.0), take(2.0, 2.0)) == 1.5
    assert autotuning.speedup(take(3.0, 3.0), take(2.0, 50.0)) == 1.5


def bits(backend: str = "auto") -> None:
    """Print a digest of weights that were trained with a backend; by `auto`, the faster is a matter of chance."""
    import torch

    from tunesmith.models import onednn_linear

    onednn_linear.autotuning.speedup = lambda plain, other: random.SystemRandom().choice([0.5, 5.0])  # type: ignore[assignment]
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(256, 512), torch.nn.Tanh(), torch.nn.Linear(512, 256))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with onednn_linear.enabled({"onednn": True, "mkl": False}.get(backend)):
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(32, 256)).square().mean().backward()
            optimizer.step()
    weights = b"".join(parameter.detach().numpy().tobytes() for parameter in model.parameters())
    os.write(1, f"{hashlib.sha256(weights).hexdigest()}\n".encode())


def twenty_at_once() -> None:
    for _ in range(20):
        if not os.fork():
            bits()
            os._exit(0)
    for _ in range(20):
        assert os.wait()[1] == 0


def test_twenty_processes_at_once_compute_the_same_bits(tmp_path: Path) -> None:
    """With an empty cache, and measurements that come out by chance: both backends are possible, and differ in bits."""
    possible = {*forked.run(bits, "mkl").split(), *forked.run(bits, "onednn").split()}
    assert len(possible) == 2
    environment = {"TUNESMITH_CACHE": str(tmp_path / "empty")}
    chosen = forked.run(twenty_at_once, environments=[environment]).split()
    assert (len(chosen), len(set(chosen))) == (20, 1)
    assert set(chosen) < possible
