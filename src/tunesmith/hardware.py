"""The machine that a run is made on: what it is, and what a piece of work cost there."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from tunesmith.console import logger

PACKAGES = ("torch", "transformers", "accelerate", "datasets", "scikit-learn", "numpy", "tokenizers", "safetensors")


class Stopwatch:
    """Wall-clock seconds by name of the work."""

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
    """Revision of the working folder, where it is a repository."""


def environment(device: str) -> Environment:
    """Return the versions and the hardware of this process. device: where its model runs."""
    import psutil

    return Environment(
        python=platform.python_version(),
        platform=platform.platform(),
        cpu=_cpu_name(),
        cores=os.cpu_count(),
        memory_gb=round(psutil.virtual_memory().total / 2**30, 1),
        device=device,
        packages=versions(PACKAGES),
        git=_git_revision(),
    )


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Return the installed versions, without importing anything; packages that are not installed are left out."""
    installed = {}
    for name in packages:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


def peak_memory_mb() -> float:
    """Return the peak memory of this process so far in MB; on CUDA device memory is added."""
    peak = _peak_resident_mb()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        peak += torch.cuda.max_memory_allocated() / 2**20
    return peak


def _peak_resident_mb() -> float:
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the parent's memory before exec as well
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    if sys.platform == "win32":
        import psutil

        return float(psutil.Process().memory_info().peak_wset) / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git_revision() -> str | None:
    """The revision of the working folder, so that a recipe kept in git can be found again."""
    try:
        result = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5)  # noqa: S607
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None
