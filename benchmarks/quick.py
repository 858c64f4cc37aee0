"""Three short comparisons whose ratios must not fall more than 15% below the recorded ones: `make bench-quick`.

recorded.json has the ratios by instruction set, because the processor decides what oneDNN's products are worth. Each
comparison is a process of its own on one thread and counts CPU seconds, so that it bears a busy machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import harness
import torch

from tunesmith.errors import TunesmithError
from tunesmith.hardware import versions

FOLDER = Path(__file__).parent
RECORDED = FOLDER / "recorded.json"
ALLOWED = 0.85
"""The share of a recorded ratio that a new one must reach."""
COMPARISONS: dict[str, list[str]] = {
    "instruction tuning, TRL padded": ["sft.py", "--steps", "1", "--rounds", "5", "--held-out", "0"],
    "encoder, Trainer length-grouped": (
        ["encoder.py", "--peer", "grouped", "--batch", "16", "--rounds", "10", "--rows", "3200", "--test-rows", "0"]
    ),
    "linear, lbfgs": ["linear.py", "--rounds", "5", "--peers", "lbfgs"],
}
"""Scripts and their arguments. Length grouping sorts by fifties of steps, so that encoder.py runs 50 of them."""


def ratio(name: str, result: Mapping[str, Any]) -> float:
    """Return how many times as fast as the other side we were, from what a script wrote to `--output`."""
    if name == "linear, lbfgs":
        pairs = zip(result["fit, lbfgs"], result["fit, tunesmith"], strict=True)
        return float(statistics.median(theirs / ours for theirs, ours in pairs))
    if name == "encoder, Trainer length-grouped":  # its rounds have long texts alone, or short ones
        return float(result["ratio"]["tokens"]["of_sums"])
    return float(result["ratio"]["examples"]["median"])


def compare(measured: Mapping[str, float], recorded: Mapping[str, float] | None) -> tuple[list[list[Any]], list[str]]:
    """Return the rows of a table, and one sentence for each ratio that is too low.

    recorded: the ratios of this instruction set. Where there are none, or one is missing, nothing is too low.
    """
    rows: list[list[Any]] = [["ratio of speeds, ours / theirs", "recorded", "measured", "allowed"]]
    failures = []
    for name, value in measured.items():
        before = (recorded or {}).get(name)
        allowed = None if before is None else ALLOWED * before
        rows.append([name, *("" if x is None else f"{x:.2f}" for x in (before, value, allowed))])
        if before is not None and allowed is not None and not value >= allowed:
            failures.append(
                f"{name}: the ratio is too low: recorded {before:.2f}, measured {value:.2f}, allowed {allowed:.2f}"
            )
    return rows, failures


def read(path: Path) -> dict[str, Any]:
    """Return what is recorded, by instruction set."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise TunesmithError(
            f"cannot read {path}: expected a JSON object of instruction sets, found {error}; write it with --record"
        ) from error


def record(path: Path, instruction_set: str, measured: Mapping[str, float]) -> None:
    """Write the ratios of one instruction set; what is recorded of others stays."""
    ratios = {name: round(value, 3) for name, value in measured.items()}
    entry = {"processor": processor(), "versions": versions(harness.PACKAGES), "ratios": ratios}
    content = json.dumps({**read(path), instruction_set: entry}, indent=1, sort_keys=True)
    path.write_text(content + "\n", encoding="utf-8")


def processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def measure(name: str, args: argparse.Namespace) -> float:
    script, *options = COMPARISONS[name]
    data = {
        "sft.py": ["--data", str(args.data)],
        "encoder.py": ["--train", str(args.train), "--test", str(args.train)],
        "linear.py": ["--train", str(args.train)],
    }[script]
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "result.json"
        command = [sys.executable, str(FOLDER / script), *options, *data, "--clock", "cpu", "--output", str(output)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)  # noqa: S603
        if done.returncode:
            raise TunesmithError(f"{script} failed with exit code {done.returncode}; its error is above")
        return ratio(name, json.loads(output.read_text(encoding="utf-8")))


def run(args: argparse.Namespace) -> int:
    """Measure, show and compare, or record; return the exit code."""
    instruction_set = torch.backends.cpu.get_cpu_capability()
    recorded = read(args.recorded).get(instruction_set)
    start, measured = time.perf_counter(), {}
    for name in COMPARISONS:
        measured[name] = measure(name, args)
        print(f"{name}: {measured[name]:.2f}", file=sys.stderr, flush=True)
    rows, failures = compare(measured, recorded and recorded["ratios"])
    print(f"{instruction_set}, {processor()}, {time.perf_counter() - start:.0f} s\n\n{harness.table(rows)}")
    if args.record:
        record(args.recorded, instruction_set, measured)
        print(f"\nrecorded in {args.recorded}")
        return 0
    if recorded is None:
        print(f"\nnothing is recorded of {instruction_set}, so nothing was compared; --record writes these ratios")
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    return 1 if failures else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    harness.add_path(parser, "--data", "BENCH_INSTRUCTIONS", "a JSON list of instruction, input and output")
    harness.add_path(parser, "--train", "BENCH_AG_NEWS_TRAIN", "AG News for training, a CSV with text and label")
    parser.add_argument("--record", action="store_true", help="write the ratios as those of this instruction set")
    parser.add_argument("--recorded", type=Path, default=RECORDED, help=f"recorded ratios ({RECORDED.name})")
    try:
        sys.exit(run(parser.parse_args()))
    except TunesmithError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
