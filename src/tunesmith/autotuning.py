"""Choices that follow from a measurement on this machine: measured once, then remembered.

Two runs of one recipe give the same bits only if both choose alike, and two timings near a threshold do not.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from typing import Any

from tunesmith import assets, hardware

VARIABLES = ("ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "ATEN_CPU_CAPABILITY")
"""Environment variables that change what a processor does."""


def choose(name: str, measure: Callable[[], Any], **conditions: str | int) -> Any:
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
    file = assets.user_cache() / "measured" / f"{name}-{digest[:16]}.json"
    with contextlib.suppress(OSError, ValueError, KeyError):
        return json.loads(file.read_text(encoding="utf-8"))["value"]
    value = measure()
    scratch = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(json.dumps(key | {"value": value}, indent=2), encoding="utf-8")
        os.link(scratch, file)  # unlike a rename, leaves an earlier file alone
    except FileExistsError:
        try:
            value = json.loads(file.read_text(encoding="utf-8"))["value"]
        except (OSError, ValueError, KeyError):  # damaged: replace it
            scratch.replace(file)
    except OSError:
        pass
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)
    return value
