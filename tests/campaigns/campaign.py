"""What every campaign shares: seeded attempts, commands in processes of their own, and what counts as a finding."""

from __future__ import annotations

import os
import random
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import ClassVar, Literal

from tests import forked

SECONDS = 20
"""An attempt that computes longer is a hang."""
PATIENCE = 6
"""So many times longer may an attempt take that computes less: on a busy machine, it waits for its turn."""
BYTES = 2 * 2**30
"""An attempt that holds more memory is a finding."""

Kind = Literal["works", "refused", "traceback", "hang", "memory", "silent", "unclear", "leftover"]
CLEAN: tuple[Kind, ...] = ("works", "refused")
"""All other kinds are findings: `silent` is a wrong result without a word, `unclear` an error that does not name the
file or what to do, `leftover` a scratch file that stays behind."""


@dataclass(frozen=True)
class Outcome:
    """What came of an attempt. detail: for a finding, what was done and what happened."""

    kind: Kind
    detail: str = ""


@dataclass(frozen=True)
class Result:
    """A command that has run. exit_code: None where it was killed for `seconds` or `peak_bytes`."""

    words: tuple[str, ...]
    exit_code: int | None
    stdout: str
    stderr: str
    seconds: float
    peak_bytes: int

    @property
    def outcome(self) -> Outcome:
        """Judge the command by itself: it has to work (exit code 0) or to be refused with an error (2)."""
        shown = (
            f"tunesmith {' '.join(self.words)}: exit code {self.exit_code}, {self.seconds:.1f} s\n{self.stderr[-1500:]}"
        )
        if self.peak_bytes > BYTES:
            return Outcome("memory", f"{self.peak_bytes / 2**20:.0f} MB: {shown}")
        if self.exit_code is None:
            return Outcome("hang", shown)
        if self.exit_code == 0:
            return Outcome("works")
        if self.exit_code == 2 and "Traceback (most recent call last)" not in self.stderr:
            return Outcome("refused")
        return Outcome("traceback", shown)


class Campaign(ABC):
    """Attempts that differ by their number alone: the same number prepares the same files in every process."""

    name: ClassVar[str]
    size: ClassVar[int]
    """How many attempts the whole campaign makes."""
    sample: ClassVar[int]
    """How many of them, evenly spread, the test suite makes."""

    def prepare(self, folder: Path) -> None:  # noqa: B027
        """Make what all attempts start from, such as trained runs. Called once, with a folder that stays."""

    def close(self) -> None:  # noqa: B027
        """End what `prepare` began, such as a server. Called once."""

    @abstractmethod
    def attempt(self, number: int, folder: Path) -> Outcome:
        """Make an attempt in an empty folder and judge it."""

    def random(self, number: int) -> random.Random:
        """Return the source of everything random in an attempt."""
        return random.Random(f"{self.name} {number}")

    def sampled(self) -> list[int]:
        """Return the numbers of the attempts that the test suite makes."""
        return [index * self.size // self.sample for index in range(self.sample)]


def command(folder: str, words: tuple[str, ...]) -> None:
    import ctypes
    import os
    import signal
    import traceback

    if sys.platform == "linux":  # nobody would stop an attempt that outlives the campaign
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    os.chdir(folder)
    try:
        forked.command(*words)
    except Exception:
        traceback.print_exc()
        os._exit(1)


def execute(
    *words: str,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    work: Callable[[str, tuple[str, ...]], None] = command,
    seconds: float = SECONDS,
) -> Result:
    """Run `tunesmith WORDS` in a process of its own with `folder` as working directory; kill it beyond the limits.

    work: is called in the process with folder and words. seconds: of its own processor time, after which it hangs.
    """
    output = folder / ".process"
    process = forked.start(output, work, str(folder), words, environment=environment)
    start = time.monotonic()  # of the command: the first fork waits for the server to have imported everything
    peak = 0
    while process.exitcode is None:
        connection.wait([process.sentinel], timeout=0.05)
        peak = max(peak, _peak_bytes(process.pid))
        hangs = _cpu_seconds(process.pid) > seconds or time.monotonic() - start > PATIENCE * seconds
        if process.exitcode is None and (hangs or peak > BYTES):
            process.kill()
            process.join()
            return _result(words, None, output, start, peak)
    return _result(words, process.exitcode, output, start, peak)


def prepare(*words: str, folder: Path) -> None:
    """Run `tunesmith WORDS` in `folder`, which has to work but may take its time: attempts start from it."""
    result = execute(*words, folder=folder, seconds=300)
    assert result.exit_code == 0, result.stderr


def _peak_bytes(pid: int | None) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)


def _cpu_seconds(pid: int | None) -> float:
    """Return the processor time of a process, of its threads, and of those of its children that have ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _result(words: tuple[str, ...], exit_code: int | None, output: Path, start: float, peak: int) -> Result:
    files = [output.with_suffix(suffix) for suffix in (".out", ".err")]
    stdout, stderr = (file.read_text(errors="replace") if file.exists() else "" for file in files)
    for file in files:
        file.unlink(missing_ok=True)
    return Result(words, exit_code, stdout, stderr, time.monotonic() - start, peak)
