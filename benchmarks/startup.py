"""How long whole processes take to start: `--help`, `doctor`, and one prediction beside transformers' pipeline.

    python benchmarks/startup.py                    # `--help` and `doctor`
    python benchmarks/startup.py runs/RUN           # a finished run; beside an encoder's, the pipeline on its model

CPU and wall-clock seconds, one thread, in turns after one that warms up: medians, and of the ratios to the pipeline
also the range.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

TEXT = "Stocks fell sharply after the announcement."
PIPELINE = """
import sys
from transformers import pipeline
print(pipeline("text-classification", model=sys.argv[1], device="cpu")(sys.argv[2]))
"""
PEER = "transformers.pipeline"


def seconds(command: Sequence[str]) -> tuple[float, float]:
    """Return the CPU and wall-clock seconds of one process and its children."""
    start, before = time.perf_counter(), psutil.Process().cpu_times()
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})  # noqa: S603
    wall, after = time.perf_counter() - start, psutil.Process().cpu_times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return used, wall


def commands(run: Path | None) -> dict[str, list[str]]:
    """Return the processes to start, by name."""
    ours = [sys.executable, "-m", "tunesmith"]
    if run is None:
        return {"--help": [*ours, "--help"], "doctor": [*ours, "doctor"]}
    predict = {"predict": [*ours, "predict", str(run), "--text", TEXT]}
    if not (run / "model" / "model.safetensors").is_file() or not (run / "model" / "config.json").is_file():
        return predict
    return {PEER: [sys.executable, "-c", PIPELINE, str(run / "model"), TEXT]} | predict


def show(times: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    for name, rounds in times.items():
        cpu, wall = (statistics.median(column) for column in zip(*rounds, strict=True))
        line = f"{name:22} {cpu:6.2f} s of CPU {wall:6.2f} s by the clock"
        if PEER in times and name != PEER:
            for number, clock in enumerate(("CPU", "clock")):
                ratios = [ours[number] / peer[number] for ours, peer in zip(rounds, times[PEER], strict=True)]
                line += (
                    f"; {clock} {statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}] of the peer's"
                )
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path, help="a finished run of a classifier")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    started = commands(args.run)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in started}
    for number in range(args.rounds + 1):
        for name, command in started.items():
            measured = seconds(command)
            if number:
                times[name].append(measured)
    show(times)


if __name__ == "__main__":
    main()
