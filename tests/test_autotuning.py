"""Choices that follow from a measurement are the same in every process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tunesmith import autotuning

TWENTY = """
import os, random, time
from tunesmith import autotuning

def measure():
    time.sleep(0.1)
    return random.SystemRandom().random()

for _ in range(20):
    if not os.fork():
        os.write(1, f"{autotuning.choose('speed', measure)}\\n".encode())
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
    assert autotuning.choose("speed", lambda: next(results), threads=1) is True
    assert autotuning.choose("speed", lambda: next(results), threads=2) is False
    assert autotuning.choose("speed", lambda: next(results), threads=1) is True


def test_instruction_sets_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    assert autotuning.choose("speed", lambda: "fast") == "fast"
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert autotuning.choose("speed", lambda: "slow") == "slow"


def test_a_damaged_file_is_replaced(cache: Path) -> None:
    autotuning.choose("speed", lambda: 1)
    (file,) = cache.iterdir()
    file.write_text('{"value"')
    assert autotuning.choose("speed", lambda: 2) == 2
    assert autotuning.choose("speed", lambda: 3) == 2


def test_without_a_cache_every_call_measures(cache: Path) -> None:
    cache.parent.write_text("a file where the folder should be")
    assert [autotuning.choose("speed", lambda: 1), autotuning.choose("speed", lambda: 2)] == [1, 2]
