"""Choices that follow from a measurement on this machine: measured once, then remembered.

Two runs of one recipe give the same bits only if both choose alike, and two timings near a threshold do not.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tunesmith import assets, hardware

VARIABLES = ("ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "ATEN_CPU_CAPABILITY")
"""Environment variables that change what a processor does."""
ROUNDS = 15
"""Rounds of `speedup`, after one that warms up."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A choice, and where it comes from: the recipe, a measurement just now, or an earlier one."""

    value: Any
    source: Literal["recipe", "measured", "cache"]


def choose(name: str, measure: Callable[[], Any], **conditions: str | int) -> Choice:
    """Return what `measure` found when it was first called under these conditions on this machine.

    The result, anything that JSON can hold, lies in the user's cache, in a file for each processor, version of torch
    and set of `conditions`. Of processes that measure at the same time, all take the result of the first to write it.
    Where nothing can be written, each process keeps its own.
    """
    key = {
        "name": name,
        "processor": hardware.device_name("cpu"),
        "torch": hardware.versions(("torch",)).get("torch"),
        **{variable: os.environ.get(variable) for variable in VARIABLES},
        **conditions,
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    file = folder() / f"{name}-{digest[:16]}.json"
    with contextlib.suppress(OSError, ValueError, KeyError):
        return Choice(json.loads(file.read_text(encoding="utf-8"))["value"], "cache")
    chosen = Choice(measure(), "measured")
    scratch = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(json.dumps(key | {"value": chosen.value}, indent=2), encoding="utf-8")
        os.link(scratch, file)  # unlike a rename, leaves an earlier file alone
    except FileExistsError:
        try:
            chosen = Choice(json.loads(file.read_text(encoding="utf-8"))["value"], "cache")
        except (OSError, ValueError, KeyError):  # damaged: replace it
            scratch.replace(file)
    except OSError:
        pass
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)
    return chosen


def speedup(plain: Callable[[], object], other: Callable[[], object]) -> float:
    """Return how many times as fast `other` is as `plain`: the median of ROUNDS rounds that time both in turn.

    Whatever else runs slows both of a round alike, or few rounds.
    """
    ratios = []
    for _ in range(1 + ROUNDS):
        times = []
        for work in (plain, other):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        ratios.append(times[0] / times[1])
    return statistics.median(ratios[1:])


def folder() -> Path:
    """Return the folder with what was measured."""
    return assets.user_cache() / "measured"


def forget() -> None:
    """Delete what was measured, so that it is measured again."""
    shutil.rmtree(folder(), ignore_errors=True)
