"""How fast a fine-tuned encoder labels texts: transformers' pipeline, the run itself, and its ONNX exports.

    python benchmarks/export.py RUN --data D/test.csv

All sides take turns in one process: a chunk of texts each, round by round. Labels are held against the run's own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tunesmith
from tunesmith import runs
from tunesmith.exporting import onnx
from tunesmith.pipeline import new_data
from tunesmith.pipeline.fitting.methods import load_text_predictor
from tunesmith.types import Example

Side = Callable[[Sequence[Example]], list[str]]


def main() -> None:
    """Export, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run")
    parser.add_argument("--data", required=True)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--chunk", type=int, default=50, help="texts of one turn")
    parser.add_argument(
        "--batch-size", type=int, default=32, help="of the pipeline's second side, which sorts texts by length"
    )
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    args = parser.parse_args()
    clock = time.perf_counter if args.clock == "wall" else time.process_time
    rows = new_data.read(new_data.settings(runs.find(args.run).recipe, args.data))[: args.rows]
    with tempfile.TemporaryDirectory() as folder:
        made = sides(args.run, Path(folder), args.batch_size)
        print(json.dumps(measure(made, rows, args.chunk, clock), indent=2))


def sides(run: str, folder: Path, batch_size: int) -> dict[str, Side]:
    """Name -> texts in, labels out."""
    from transformers import pipeline

    torch_side = load_text_predictor(runs.find(run))
    for target in ("onnx", "onnx-int8"):
        tunesmith.export(run, target, folder / target)
    classify = pipeline("text-classification", model=f"{run}/model")
    more = {"truncation": True, "max_length": torch_side.max_length}

    def piped(rows: Sequence[Example], **batch: Any) -> list[str]:
        order = sorted(range(len(rows)), key=lambda place: len(rows[place].text)) if batch else range(len(rows))
        found = classify([rows[place].text for place in order], **more, **batch)
        labels = dict(zip(order, (one["label"] for one in found), strict=True))
        return [labels[place] for place in range(len(rows))]

    return {
        "run (torch)": lambda rows: [one.label for one in torch_side.predict(rows)],
        "pipeline": piped,
        f"pipeline, sorted by length, batch_size={batch_size}": lambda rows: piped(rows, batch_size=batch_size),
        **{target: _onnx(folder / target) for target in ("onnx", "onnx-int8")},
    }


def _onnx(folder: Path) -> Side:
    loaded = onnx.load(folder)
    return lambda rows: [one.label for one in loaded.predict(rows)]


def measure(
    made: dict[str, Side], rows: Sequence[Example], chunk: int, clock: Callable[[], float]
) -> dict[str, dict[str, float]]:
    """Texts a second (medians over the turns), the median ratio to the pipeline, and agreement with the run."""
    for side in made.values():
        side(rows[:8])
    labels: dict[str, list[str]] = {name: [] for name in made}
    rates: dict[str, list[float]] = {name: [] for name in made}
    for start in range(0, len(rows), chunk):
        some = rows[start : start + chunk]
        for name, side in made.items():
            begun = clock()
            labels[name] += side(some)
            rates[name].append(len(some) / (clock() - begun))
    reference, slow = labels["run (torch)"], rates["pipeline"]
    return {
        name: {
            "texts_per_second": round(statistics.median(rates[name]), 1),
            "of_pipeline": round(statistics.median(a / b for a, b in zip(rates[name], slow, strict=True)), 2),
            "same_labels": sum(a == b for a, b in zip(labels[name], reference, strict=True)) / len(reference),
        }
        for name in made
    }


if __name__ == "__main__":
    main()
