"""How `make bench-quick` compares ratios; nothing is measured here."""

from __future__ import annotations

import importlib.util
import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch

from tunesmith.errors import TunesmithError

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
CAPABILITY = torch.backends.cpu.get_cpu_capability()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("quick", BENCHMARKS / "quick.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    for name in ("harness", "measure"):
        sys.modules.pop(name, None)


def run(quick: Any, monkeypatch: pytest.MonkeyPatch, path: Path, ratio: float, *, record: bool = False) -> int:
    """As the command, where every comparison gives the same ratio."""
    monkeypatch.setattr(quick, "measure", lambda name, args: ratio)
    return int(quick.run(Namespace(record=record, recorded=path)))


def test_a_ratio_may_fall_by_15_percent_and_no_more(quick: Any) -> None:
    assert quick.compare({"a": 1.701, "b": 5.0}, {"a": 2.0, "b": 1.0})[1] == []
    rows, failures = quick.compare({"a": 1.69, "b": 5.0}, {"a": 2.0, "b": 1.0})
    assert rows[1:] == [["a", "2.00", "1.69", "1.70"], ["b", "1.00", "5.00", "0.85"]]
    assert failures == ["a: the ratio is too low: recorded 2.00, measured 1.69, allowed 1.70"]
    assert len(quick.compare({"a": float("nan")}, {"a": 2.0})[1]) == 1


def test_recorded_ratios_are_compared_and_others_stay(
    quick: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recorded.json"
    path.write_text('{"ANOTHER": {"ratios": {"linear, lbfgs": 99}}}')
    assert run(quick, monkeypatch, path, 0.1) == 0  # an unknown instruction set
    assert f"nothing is recorded of {CAPABILITY}" in capsys.readouterr().out
    assert run(quick, monkeypatch, path, 2.0, record=True) == 0
    recorded = json.loads(path.read_text())
    assert recorded["ANOTHER"]["ratios"] == {"linear, lbfgs": 99}
    assert recorded[CAPABILITY]["ratios"] == dict.fromkeys(quick.COMPARISONS, 2.0)
    assert run(quick, monkeypatch, path, 1.8) == 0
    capsys.readouterr()
    assert run(quick, monkeypatch, path, 1.5) == 1
    assert capsys.readouterr().err.count("error: ") == len(quick.COMPARISONS)


def test_a_damaged_file_is_an_error(quick: Any, tmp_path: Path) -> None:
    path = tmp_path / "recorded.json"
    path.write_text("{")
    with pytest.raises(TunesmithError, match="write it with --record"):
        quick.read(path)


def test_ratios_are_theirs_over_ours(quick: Any) -> None:
    times = {"fit, tunesmith": [1.0, 1.0, 2.0], "fit, lbfgs": [3.0, 4.0, 10.0]}
    assert quick.ratio("linear, lbfgs", times) == 4.0
    result = {"ratio": {"examples": {"median": 2.5}, "tokens": {"of_sums": 1.1}}}
    assert quick.ratio("instruction tuning, TRL padded", result) == 2.5
    assert quick.ratio("encoder, Trainer length-grouped", result) == 1.1


def test_what_the_repository_records_names_every_comparison(quick: Any) -> None:
    for entry in quick.read(quick.RECORDED).values():
        assert set(entry["ratios"]) == set(quick.COMPARISONS)
