"""Rows a second and memory of `tunesmith predict --output FOLDER`, over rows and processes. See benchmarks/README.md.

Each figure is a whole process, or all processes of `torchrun`. Rows a second are without the time that predicting the
first 1,000 rows takes, which is mostly imports.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

FEW = 1000


@dataclass(frozen=True)
class Usage:
    """What a command and its children took."""

    seconds: float
    cpu_seconds: float
    megabytes: float
    """Resident memory of the largest process at its peak."""


def measure(*words: str) -> Usage:
    """Run a command and watch it."""
    start, cpu, most = time.monotonic(), children_cpu(), 0
    process = psutil.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    while process.poll() is None:
        for member in tree(process):
            try:
                most = max(most, member.memory_info().rss)
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"failed: {' '.join(words)}")
    return Usage(time.monotonic() - start, children_cpu() - cpu, most / 1e6)


def tree(process: psutil.Popen) -> Iterator[psutil.Process]:
    try:
        yield from [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return


def children_cpu() -> float:
    times = os.times()
    return times.children_user + times.children_system


def first_rows(source: Path, rows: int, folder: Path) -> Path:
    """Return a file with the first rows of a CSV file without line breaks in its cells."""
    path = folder / f"{rows}{source.suffix}"
    with source.open("rb") as given, path.open("wb") as file:
        file.writelines(itertools.islice(given, rows + 1))
    return path


def main() -> None:
    args = options().parse_args()
    with tempfile.TemporaryDirectory(dir=args.scratch) as name:
        folder = Path(name)

        def predict(rows: int, processes: int) -> Usage:
            launcher = [sys.executable] if processes == 1 else ["torchrun", "--nproc_per_node", str(processes)]
            data = str(first_rows(args.data, rows, folder))
            output = str(folder / f"out-{rows}-{processes}")
            words = [
                "-m",
                "tunesmith",
                "predict",
                args.run,
                "--data",
                data,
                "--output",
                output,
                "--format",
                args.format,
            ]
            return measure(*launcher, *words, "--quiet")

        for processes in args.processes:
            few = predict(FEW, processes)
            for rows in args.rows:
                usage = predict(rows, processes)
                seconds, cpu = usage.seconds - few.seconds, usage.cpu_seconds - few.cpu_seconds
                print(
                    f"{rows:>9,} rows, {processes} process(es): {(rows - FEW) / seconds:>9,.0f} rows/s, "
                    f"{(rows - FEW) / cpu:>9,.0f} rows per CPU second, {usage.megabytes:,.0f} MB "
                    f"(start: {few.seconds:.1f} s, {few.megabytes:,.0f} MB)"
                )


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="run directory")
    parser.add_argument("data", type=Path, help="CSV file, such as reviews.py makes")
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--format", default="parquet")
    parser.add_argument("--scratch", help="folder for the files")
    return parser


if __name__ == "__main__":
    main()
