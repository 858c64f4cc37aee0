"""The machine that a run is made on, and what a piece of work costs there."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from tunesmith.console import logger

SIDE_BY_SIDE = "TUNESMITH_SIDE_BY_SIDE"
"""Environment variable: how many trainings have the machine to themselves, this one included."""
PACKAGES = ("torch", "transformers", "accelerate", "datasets", "scikit-learn", "numpy", "tokenizers", "safetensors")


class Stopwatch:
    """Wall-clock seconds by the name of the work."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - start
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds
            logger.debug("%s took %.2f s", name, seconds)


def threads() -> int:
    """Return how many threads the environment allows: OMP_NUM_THREADS, or the cores of this machine."""
    allowed = os.environ.get("OMP_NUM_THREADS", "")
    return int(allowed) if allowed.isdigit() and int(allowed) > 0 else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Environment:
    """The versions and the hardware that a run was made with, as the manifest holds them."""

    python: str
    platform: str
    cpu: str
    cores: int | None
    memory_gb: float
    device: str
    packages: dict[str, str]
    """Versions of the packages that decide the result."""
    git: str | None
    """Revision of the working folder, to find a recipe that is kept in git; None outside a repository."""


def environment(device: str) -> Environment:
    """Return the versions and the hardware of this process. device: where its model runs."""
    import psutil

    try:
        command = ["git", "rev-parse", "HEAD"]
        revision = subprocess.run(command, capture_output=True, text=True, timeout=5).stdout.strip()  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        revision = ""
    return Environment(
        python=platform.python_version(),
        platform=platform.platform(),
        cpu=device_name("cpu"),
        cores=os.cpu_count(),
        memory_gb=round(psutil.virtual_memory().total / 2**30, 1),
        device=device,
        packages=versions(PACKAGES),
        git=revision or None,
    )


def device_name(device: str) -> str:
    """Return what the device is sold as: the GPU's name, or the processor's."""
    if device.startswith("cuda"):
        import torch

        return str(torch.cuda.get_device_name(device))
    names = []
    if (info := Path("/proc/cpuinfo")).exists():
        names = re.findall(r"^model name\s*:\s*(.*\S)", info.read_text(), re.MULTILINE)
    return names[0] if names else platform.processor() or platform.machine()


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of the packages that are installed, without importing them."""
    installed = {}
    for name in packages:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


def side_by_side() -> int | None:
    """Return how many trainings run on this machine at once, by what started this one; None for it alone."""
    text = os.environ.get(SIDE_BY_SIDE, "")
    return int(text) if text.isdigit() and int(text) > 1 else None


def peak_memory_mb() -> float:
    """Return the peak memory of this process so far in MB; on CUDA device memory is added."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the parent's memory before exec as well
        peak = int(re.findall(r"^VmHWM:\s*(\d+)", status.read_text(), re.MULTILINE)[0]) / 1024
    elif sys.platform == "win32":
        import psutil

        peak = psutil.Process().memory_info().peak_wset / 2**20
    else:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        peak += torch.cuda.max_memory_allocated() / 2**20
    return float(peak)
