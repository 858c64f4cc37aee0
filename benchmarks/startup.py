"""How long the command line takes to start: `--help`, and one prediction of a linear run.

    python benchmarks/startup.py runs/RUN          # a finished linear run; without one, --help alone

Seconds by the clock of whole processes: minimum and median. On a quiet machine `--help` takes under 0.3 s, a
prediction under 1 s.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time


def seconds(*words: str) -> float:
    """Wall-clock seconds of one `tunesmith` process."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "tunesmith", *words], check=True, capture_output=True)  # noqa: S603
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", help="a finished linear run")
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    commands = [["--help"]] + ([["predict", args.run, "--text", "a text"]] if args.run else [])
    for words in commands:
        times = [seconds(*words) for _ in range(args.rounds)]
        print(f"{words[0]:10} min {min(times):.2f} s  median {statistics.median(times):.2f} s")


if __name__ == "__main__":
    main()
