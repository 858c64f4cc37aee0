"""Disks that are full, broken or read-only, and outputs that cannot be written, under every command that writes."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar

from tests.campaigns import campaign, commands
from tests.campaigns.campaign import CLEAN, SECONDS, Campaign, Outcome, Result, execute
from tests.campaigns.commands import WRITERS, Writer

INJECTED = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES, errno.EDQUOT)
STORAGES = ("nope://x", "sqlite:///no/such/folder/x.db", "sqlite:///reviews.csv", "postgresql://localhost:1/x", "x", "")
"""Addresses of no Optuna storage."""
ODD_OUTPUTS = ("bert", "reviews.csv/out", "x" * 300, "/".join(["x" * 200] * 30), "loop/out", "", "out\0")
"""A folder, below a file, a long name, a long path, a loop of links, nothing, and a zero byte."""
FAULTS = ("limit", "space", "injected", "injected", "from then on", "descriptors", "output")


class DiskFaults(Campaign):
    """A command that writes, on a disk that fails."""

    name = "disk-faults"
    writers: ClassVar[Mapping[str, Writer]] = WRITERS
    rows: ClassVar[int] = commands.ROWS
    """Rows of the tables that they write."""
    size = 114
    sample = 4

    def prepare(self, folder: Path) -> None:
        self.shared = folder
        commands.prepare(folder)

    def begin(self, disk: Path, writer: Writer) -> None:
        """Copy onto the disk what a command starts from."""
        commands.begin(self.shared, disk, writer)

    def attempt(self, number: int, folder: Path) -> Outcome:
        draw = self.random(number)
        name = list(self.writers)[number % len(self.writers)]
        writer, disk, scratch = self.writers[name], folder / "disk", folder / "scratch"
        words, fault = writer.with_output(f"out{writer.suffix}"), draw.choice(FAULTS)
        if name == "sweep":  # trains in processes of its own, which take long to start
            fault = "storage"
        for made in (disk, scratch):
            made.mkdir()
        is_small = fault == "space" and _mount(disk)
        try:
            self.begin(disk, writer)
            (disk / "loop").symlink_to("loop")
            old = _tree(disk)
            before: Callable[[], None] | None = None
            if is_small:
                _fill(disk, draw.randint(0, 300) << 10)
            elif fault == "limit":
                before = partial(_limit, resource.RLIMIT_FSIZE, draw.choice([8, 16, 40, 100, 300]) << 10)
            elif fault == "descriptors":
                before = partial(_limit, resource.RLIMIT_NOFILE, draw.randint(0, 40))
            elif fault == "output" and "OUT" in writer.words:
                words = writer.with_output(draw.choice(ODD_OUTPUTS) + writer.suffix * draw.randint(0, 1))
            elif fault == "storage":
                words += ("--storage", draw.choice(STORAGES))
            else:
                lasts = fault != "injected"
                before = partial(_inject, disk, draw.choice(INJECTED), draw.choice([1, 2, 3, 5, 8, 13, 21]), lasts)
            environment = {"TMPDIR": str(scratch), "HOME": str(scratch)}
            seconds = 3 * SECONDS if name == "export-onnx" else SECONDS  # slow on a busy machine
            work = partial(_on_disk, disk, before)
            result = execute(*words, folder=folder, environment=environment, work=work, seconds=seconds)
            told = f"{name}, {fault} {before and before.args}"  # type: ignore[attr-defined]
            return _judged(result, disk, scratch, old, told, self.rows)
        finally:
            if is_small:
                subprocess.run(["umount", "-l", str(disk)], check=True)


def _on_disk(disk: Path, before: Callable[[], None] | None, _: str, words: tuple[str, ...]) -> None:
    if before is not None:
        before()
    campaign.command(str(disk), words)


def _judged(result: Result, disk: Path, scratch: Path, old: dict[str, int], attempt: str, rows: int) -> Outcome:
    outcome = result.outcome
    told = f"{attempt}: {outcome.detail or result.stderr[-1500:]}"
    if outcome.kind not in CLEAN:
        return Outcome(outcome.kind, told)
    if outcome.kind == "refused" and not ("error:" in result.stderr and "\n  do:" in result.stderr):
        return Outcome("unclear", told)
    new = _tree(disk)
    stays = [path for path in new.keys() - old if path.endswith((".partial", ".old", ".gone", ".part"))]
    stays += [name for name in os.listdir(scratch) if "tmp" in name]
    if stays:
        return Outcome("leftover", f"{stays[:5]}: {told}")
    lost = [path for path, size in old.items() if path not in new or (path[:3] != "run" and new[path] != size)]
    if lost:
        return Outcome("silent", f"{lost[:5]} are gone or changed: {told}")
    problem = commands.damage(disk) or _half(disk, outcome.kind == "works", rows)
    return Outcome("silent", f"{problem}: {told}") if problem else outcome


def _half(disk: Path, works: bool, rows: int) -> str:
    """Return what is wrong with an output that is there."""
    for file in (disk / "out.csv", disk / "out.jsonl"):
        if file.is_file() and len(commands.rows(file)) != rows:
            return f"{file.name} has {len(commands.rows(file))} rows"
    manifest = disk / "out" / "manifest.json"
    if manifest.exists() and works and json.loads(manifest.read_text())["status"] != "finished":
        return "exit code 0, but the run has not finished"
    return ""


def _tree(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.lstat().st_size for path in folder.rglob("*") if not path.is_dir()}


def _mount(folder: Path) -> bool:
    """Mount a small disk where that is allowed."""
    words = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    return sys.platform == "linux" and os.geteuid() == 0 and subprocess.run(words, capture_output=True).returncode == 0


def _fill(folder: Path, left: int) -> None:
    """Leave this many bytes on the disk of a folder."""
    (folder / "filler").write_bytes(bytes(max(0, shutil.disk_usage(folder).free - left)))


def _limit(kind: int, value: int) -> None:
    if kind == resource.RLIMIT_NOFILE:
        value += max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))


def _inject(folder: Path, number: int, nth: int, lasts: bool) -> None:
    """Let the nth call that changes something below a folder fail, and where it `lasts`, all after it."""
    count = 0

    def fail(path: object) -> None:
        nonlocal count
        count += 1
        if count == nth or (lasts and count > nth):
            raise OSError(number, os.strerror(number), path)

    def watch(event: str, args: tuple[object, ...]) -> None:
        if event == "open":
            path, _, flags = args
            changes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        elif event in ("os.mkdir", "os.rename", "os.link", "os.truncate"):
            path, changes = args[0], True
        else:
            return
        if changes and isinstance(path, (str, bytes, os.PathLike)):
            place = os.path.abspath(os.fsdecode(path))
            if place.startswith(f"{folder}{os.sep}"):
                fail(path)

    sync = os.fsync

    def fsync(handle: int) -> None:
        fail(None)
        sync(handle)

    os.fsync = fsync
    sys.addaudithook(watch)
