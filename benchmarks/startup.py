"""What whole processes cost: `--help`, `doctor`, predictions beside their peers, and what surrounds a training.

    python benchmarks/startup.py                          # `--help` and `doctor`
    python benchmarks/startup.py runs/RUN                 # one text; beside an encoder's run, the pipeline on its model
    python benchmarks/startup.py runs/RUN --data D/test.csv --rows 2000    # a file, also by ONNX Runtime with an export
    python benchmarks/startup.py --train recipe.yaml max_steps=10          # a whole job without its training steps

CPU and wall-clock seconds, one thread, in turns, of short processes after one that warms up: medians, and of the ratios
to the peers also the range. The peers read and write CSV, and label batches of 32 texts, sorted by length.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from tunesmith import runs
from tunesmith.pipeline import new_data
from tunesmith.training.callbacks import Callback

TEXT = "Stocks fell sharply after the announcement."
STEP_TIMES = "STEP_TIMES"
"""Environment variable: the file of `Clock`."""
PIPELINE = """
import sys
from transformers import pipeline
print(pipeline("text-classification", model=sys.argv[1], device="cpu")(sys.argv[2]))
"""
SORTED = """
import csv, sys
_, run, source, target, most = sys.argv
with open(source, newline="") as file:
    texts = [text for text, in list(csv.reader(file))[1:]]
order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
found = {}
def write():
    with open(target, "w", newline="") as file:
        csv.writer(file).writerows([["label", "score"], *(found[place] for place in range(len(texts)))])
"""
PIPELINE_FILE = f"""{SORTED}
from transformers import pipeline
classify = pipeline("text-classification", model=f"{{run}}/model", device="cpu")
rows = classify([texts[place] for place in order], batch_size=32, truncation=True, max_length=int(most))
found = {{place: (row["label"], row["score"]) for place, row in zip(order, rows)}}
write()
"""
ONNX_FILE = f"""{SORTED}
import json, numpy, onnxruntime
from tokenizers import Tokenizer
folder = f"{{run}}/export/onnx"
tokenizer = Tokenizer.from_file(f"{{folder}}/tokenizer.json")
labels = json.load(open(f"{{folder}}/config.json"))["id2label"]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(f"{{folder}}/model.onnx", options)
for start in range(0, len(order), 32):
    places = order[start : start + 32]
    rows = tokenizer.encode_batch([texts[place] for place in places])
    known = {{"input_ids": [row.ids for row in rows], "attention_mask": [row.attention_mask for row in rows],
             "token_type_ids": [row.type_ids for row in rows]}}
    logits = session.run(None, {{node.name: numpy.array(known[node.name]) for node in session.get_inputs()}})[0]
    odds = numpy.exp(logits - logits.max(1, keepdims=True))
    for place, row in zip(places, odds / odds.sum(1, keepdims=True)):
        found[place] = labels[str(row.argmax())], row.max()
write()
"""
PEERS = ("transformers.pipeline", "ONNX Runtime")


class Clock(Callback):
    """Writes the CPU time of the process after every step of a training."""

    def on_step(self, step: Any, state: Any) -> None:
        with open(os.environ[STEP_TIMES], "a") as file:
            file.write(f"{time.process_time()}\n")


def seconds(command: Sequence[str], **variables: str) -> tuple[float, float]:
    """Return the CPU and wall-clock seconds of one process and its children."""
    start, before = time.perf_counter(), psutil.Process().cpu_times()
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | variables
    subprocess.run(command, check=True, capture_output=True, env=environment)  # noqa: S603
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
    return {PEERS[0]: [sys.executable, "-c", PIPELINE, str(run / "model"), TEXT]} | predict


def of_file(run: Path, source: str, rows: int, folder: Path) -> dict[str, list[str]]:
    """Return the processes that label the rows of a file, by name. folder: for the rows and what is written."""
    recipe = runs.find(run).recipe
    examples = new_data.read(new_data.settings(recipe, source))
    texts = folder / "rows.csv"
    with texts.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([[recipe.data.text], *([example.text] for example in examples[:rows])])
    made = {}
    for name, script in zip(PEERS, (PIPELINE_FILE, ONNX_FILE), strict=True):
        most = str(recipe.model.max_length)
        made[name] = [sys.executable, "-c", script, str(run), str(texts), str(folder / f"{name}.csv"), most]
    if not (run / "export" / "onnx").is_dir():
        del made[PEERS[1]]
    ours = [sys.executable, "-m", "tunesmith", "predict", str(run), "--data", str(texts), "--overwrite"]
    for engine in ("torch", "auto"):
        made[f"predict, {engine}"] = [*ours, "--engine", engine, "--output", str(folder / f"{engine}.csv")]
    return made


def job(words: Sequence[str]) -> tuple[int, float, float]:
    """Return the number of steps of a training, their CPU seconds, and those of the rest of its process.

    All steps count as much as the mean of those between the first and the last, which is followed by an evaluation.
    """
    with tempfile.TemporaryDirectory() as folder:
        times = Path(folder) / "times"
        command = [sys.executable, "-m", "tunesmith", "train", *words, "train.callbacks=startup:Clock"]
        path = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
        named = {STEP_TIMES: str(times), "PYTHONPATH": path}
        whole, _ = seconds([*command, "--run-dir", f"{folder}/run"], **named)
        stamps = [float(line) for line in times.read_text().split()]
    steps = len(stamps) * (stamps[-2] - stamps[0]) / (len(stamps) - 2)
    return len(stamps), steps, whole - steps


def show(times: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    for name, rounds in times.items():
        cpu, wall = (statistics.median(column) for column in zip(*rounds, strict=True))
        line = f"{name:22} {cpu:6.2f} s of CPU {wall:6.2f} s by the clock"
        for peer in PEERS if name not in PEERS else ():
            for number, clock in enumerate(("CPU", "clock")) if peer in times else ():
                ratios = [ours[number] / theirs[number] for ours, theirs in zip(rounds, times[peer], strict=True)]
                line += f"; {clock} {statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}] of {peer}'s"
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path, help="a finished run of a classifier")
    parser.add_argument("--data", help="a file whose rows are labelled, instead of one text")
    parser.add_argument("--rows", type=int, default=2000, help="of the file, at most")
    parser.add_argument("--train", nargs="+", metavar="WORD", help="what follows `tunesmith train`")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    if args.train:
        for _ in range(args.rounds):
            number, steps, rest = job(args.train)
            print(f"{number} steps {steps:.1f} s of CPU, the rest of the process {rest:.1f} s", flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        started = of_file(args.run, args.data, args.rows, Path(folder)) if args.data else commands(args.run)
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in started}
        for number in range(args.rounds + (not args.data)):
            for name, command in started.items():
                measured = seconds(command)
                if number or args.data:
                    times[name].append(measured)
    show(times)


if __name__ == "__main__":
    main()
