"""A few rows of each label: linear, probe and `encoder:contrastive` beside SetFit, in an environment of its own.

Each training is a process of one thread; its seconds are those of the CPU, and the methods take turns with each seed. A
line is appended to `--output` after each, and trainings that it holds are not repeated. `--show` makes the table of it.
How to run it: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

MODEL = "pypi:all-minilm-l6-v2"
DATA = {
    "SST-2": ("sst2/train.csv.gz", "sst2/dev.csv.gz"),
    "AG News": ("ag_news/train.csv.gz", "ag_news/test_even.csv.gz"),
    "CLINC150, 20 intents": ("clinc150/train.csv.gz", "clinc150/test.csv.gz"),
}
"""Training and test rows, in the folder `--data`."""
INTENTS = 20
"""Of CLINC150: the first ones of the alphabet."""
MOST_TEST_ROWS = 1000
T_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""Student's t by degrees of freedom."""
Rows = list[tuple[str, str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument("--setfit", help="Python of an environment that has setfit")
    parser.add_argument("--sets", default=",".join(name.split(",")[0] for name in DATA))
    parser.add_argument("--rows", default="8,32", help="rows of each label")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", default="linear,probe,encoder:contrastive,setfit")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--output", type=Path, default=Path("few_labels.jsonl"))
    parser.add_argument("--show", action="store_true", help="only show what `--output` holds")
    parser.add_argument("--train", nargs=2, metavar=("METHOD", "FOLDER"), help=argparse.SUPPRESS)
    parser.add_argument("settings", nargs="*", help="of tunesmith's methods")
    args = parser.parse_args()
    if args.train:
        method, folder = args.train
        work = train_setfit if method.startswith("setfit") else train
        print(json.dumps(work(method, Path(folder), args.model, args.settings)))
        return
    if not args.show:
        measure(args)
    show([json.loads(line) for line in args.output.read_text().splitlines()])


# --- data


def read(path: Path) -> Rows:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return [(row["text"], row["label"]) for row in csv.DictReader(file)]


def draw(name: str, folder: Path, rows: int, seed: int) -> tuple[Rows, Rows]:
    """Return so many training rows of each label, drawn with the seed, and test rows, which are always the same."""
    train, test = (read(folder / path) for path in DATA[name])
    if name.startswith("CLINC150"):
        kept = sorted({label for _, label in train} - {"oos"})[:INTENTS]
        train, test = ([row for row in part if row[1] in kept] for part in (train, test))
    if len(test) > MOST_TEST_ROWS:
        test = random.Random(0).sample(test, MOST_TEST_ROWS)  # noqa: S311
    random.Random(seed).shuffle(train)  # noqa: S311
    by_label: dict[str, Rows] = {}
    for row in train:
        by_label.setdefault(row[1], []).append(row)
    return [row for label in sorted(by_label) for row in by_label[label][:rows]], test


# --- one training, in a process of its own


def train(method: str, folder: Path, model: str, settings: Sequence[str]) -> dict[str, Any]:
    """Train one of tunesmith's methods; returns the accuracy, and the CPU seconds, loading the model included."""
    import torch

    torch.set_num_threads(1)
    from tunesmith import recipe as recipes
    from tunesmith.console import silence
    from tunesmith.pipeline.fitting import methods
    from tunesmith.pipeline.task_table import job_of, read_splits
    from tunesmith.runs import Run

    words = [f"data.train={folder / 'train.csv'}", f"data.test={folder / 'test.csv'}", "split.validation_size=0"]
    words += [f"{key}={value}" for key, value in methods.variants(method).items()]
    recipe = recipes.load({"model": {"name_or_path": model}}, [*words, "engine.save_strategy=no", *settings])
    chosen = methods.find(recipe)
    with silence():
        splits = read_splits(recipe)
        chosen.prepare(recipe)
        start = time.process_time()
        result = chosen.fit(job_of(recipe, splits, Run(folder)))
        seconds = time.process_time() - start
        predicted = result.text_predictor.predict(splits.test)
    right = [row.label == example.label for row, example in zip(predicted, splits.test, strict=True)]
    return {"accuracy": mean(right), "seconds": seconds, "steps": result.notes.steps}


def train_setfit(method: str, folder: Path, model: str, settings: Sequence[str]) -> dict[str, Any]:
    """Train SetFit with its defaults, or `setfit:N` with `num_iterations` N; loading the model is not counted."""
    import torch

    torch.set_num_threads(1)
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments

    parts = []
    for name in ("train", "test"):
        with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            parts.append(list(csv.DictReader(file)))
    learned, test = parts
    labels = sorted({row["label"] for row in learned})
    more = {"num_iterations": int(method.partition(":")[2])} if ":" in method else {}
    arguments = TrainingArguments(
        output_dir=str(folder / "setfit"), seed=json.loads((folder / "seed.json").read_text()), report_to="none", **more
    )
    columns = {"text": [row["text"] for row in learned], "label": [labels.index(row["label"]) for row in learned]}
    trainer = Trainer(SetFitModel.from_pretrained(model), arguments, train_dataset=Dataset.from_dict(columns))
    start = time.process_time()
    trainer.train()
    seconds = time.process_time() - start
    predicted = [labels[int(place)] for place in trainer.model.predict([row["text"] for row in test])]
    right = [label == row["label"] for label, row in zip(predicted, test, strict=True)]
    return {"accuracy": mean(right), "seconds": seconds, "steps": trainer.st_trainer.state.global_step}


# --- all of them


def measure(args: Any) -> None:
    done = set()
    if args.output.exists():
        done = {key(json.loads(line)) for line in args.output.read_text().splitlines()}
    names = [name for name in DATA if name.split(",")[0] in args.sets.split(",")]
    for rows in map(int, args.rows.split(",")):
        for seed in range(args.seeds):
            for name in names:
                for method in args.methods.split(","):
                    cell = {"data": name, "rows": rows, "seed": seed, "method": method}
                    if key(cell) in done:
                        continue
                    cell |= in_process(cell, args)
                    with args.output.open("a") as file:
                        file.write(json.dumps(cell) + "\n")
                    print(json.dumps(cell), file=sys.stderr, flush=True)


def key(cell: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(cell[name] for name in ("data", "rows", "seed", "method"))


def in_process(cell: dict[str, Any], args: Any) -> dict[str, Any]:
    """Train in a new process."""
    from tunesmith.models import pretrained
    from tunesmith.recipe import Model

    name, rows, seed, method = key(cell)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for part, content in zip(("train", "test"), draw(name, args.data, rows, seed), strict=True):
            with (folder / f"{part}.csv").open("w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows([("text", "label"), *content])
        (folder / "seed.json").write_text(str(seed))
        python = args.setfit if method.startswith("setfit") else sys.executable
        command = [python, __file__, "--train", method, scratch]
        command += ["--model", pretrained.location(Model(name_or_path=args.model)), *args.settings]
        if not method.startswith("setfit"):
            command.append(f"seed={seed}")
        finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)  # noqa: S603
    return dict(json.loads(finished.stdout.splitlines()[-1]))


def show(cells: Sequence[dict[str, Any]]) -> None:
    """Print the table: means over the seeds with 95% intervals (Student), differences seed by seed."""
    methods = list(dict.fromkeys(cell["method"] for cell in cells))
    print("| data | rows a label | seeds |", " | ".join(methods), "| accuracy − SetFit's | seconds / SetFit's |")
    print("|---|---|---|" + "---|" * (len(methods) + 2))
    for name, rows in dict.fromkeys((cell["data"], cell["rows"]) for cell in cells):
        by_method: dict[str, dict[int, dict[str, Any]]] = {
            method: {c["seed"]: c for c in cells if (c["data"], c["rows"], c["method"]) == (name, rows, method)}
            for method in methods
        }
        shown = []
        for found in by_method.values():
            accuracies, seconds = ([cell[what] for cell in found.values()] for what in ("accuracy", "seconds"))
            shown.append(f"{interval(accuracies)}, {mean(seconds):.1f} s" if found else "")
        ours = by_method.get("encoder:contrastive", {})
        peer = next((by_method[method] for method in methods if method.startswith("setfit") and by_method[method]), {})
        both = sorted(ours.keys() & peer.keys())
        differences = [ours[seed]["accuracy"] - peer[seed]["accuracy"] for seed in both]
        ratios = [ours[seed]["seconds"] / peer[seed]["seconds"] for seed in both]
        last = f"{interval(differences, '+')} | {median(ratios):.2f}" if both else " | "
        print(f"| {name} | {rows} | {len(both)} |", " | ".join(shown), f"| {last} |")


def interval(values: Sequence[float], sign: str = "") -> str:
    """Return mean and half the width of its interval, in percent."""
    half = f" ± {100 * T_95[len(values) - 1] * stdev(values) / len(values) ** 0.5:.1f}" if len(values) > 1 else ""
    return f"{100 * mean(values):{sign}.1f}{half}"


if __name__ == "__main__":
    main()
