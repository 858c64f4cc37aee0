"""Runs of tiny models, trained in a second or two, to export and to compute; and rows of every task."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import tunesmith
from tests import tiny
from tests.conftest import write_csv
from tunesmith.pipeline.fitting.methods import variants
from tunesmith.pipeline.task_table import read_splits
from tunesmith.runs import Run
from tunesmith.types import Example

TOPICS = tuple(tiny.WORDS)
QUICK = ["bootstrap_samples=100", "max_steps=4", "learning_rate=1e-2", "max_new_tokens=6", "num_samples=1"]


def classify(folder: Path, reviews: Path, run_dir: Path, *more: str, method: str = "encoder") -> Run:
    source = {"method": method, "data": {"path": str(reviews)}, "model": {"name_or_path": str(folder)}}
    return tunesmith.train(source, [*QUICK, *more], run_dir=run_dir, quiet=True)


def instruct(folder: Path, run_dir: Path, *more: str) -> Run:
    rows = [{"instruction": "Name the topic.", "input": text, "output": label} for text, label in tiny.texts(40)]
    path = run_dir.parent / f"{run_dir.name}.json"
    path.write_text(json.dumps(rows))
    source = {"task": "instruction", "data": {"path": str(path)}, "model": {"name_or_path": str(folder)}}
    return tunesmith.train(source, [*QUICK, *more], run_dir=run_dir, quiet=True)


def tagged(path: Path) -> Path:
    """300 texts with `labels`: two topics, one, or none."""
    one, other = tiny.texts(300), tiny.texts(300, seed=1, labels=TOPICS[::-1])
    rows: list[dict[str, Any]] = []
    for n in range(300):
        if n % 5 == 0:
            rows.append({"text": f"nothing of note {n}", "labels": []})
        elif n % 2:
            rows.append({"text": one[n][0], "labels": [one[n][1]]})
        else:
            labels = list(dict.fromkeys([one[n][1], other[n][1]]))
            rows.append({"text": f"{one[n][0]} {other[n][0]}", "labels": labels})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def prices(path: Path) -> Path:
    """300 texts whose topic decides their number, around 1,000."""
    draw = np.random.default_rng(0)
    rows = [(text, f"{1000 + 100 * TOPICS.index(label) + draw.normal(0, 10):.2f}") for text, label in tiny.texts(300)]
    return write_csv(path, rows)


def learn(task: str, method: str, folder: Path, model: Path, *more: str, path: Path | None = None) -> Run:
    """A run of task `multilabel` or `regression` in `folder`, on such rows or `path`; `encoder:lora` is an adapter."""
    rows, label = {"multilabel": (tagged, "labels"), "regression": (prices, "label")}[task]
    path = path or rows(folder.with_suffix(".jsonl" if task == "multilabel" else ".csv"))
    source = {
        "task": task,
        "data": {"path": str(path), "label": label},
        "model": {"name_or_path": str(model)},
    }
    chosen = [f"{key}={value}" for key, value in variants(method).items()]
    steps = [*chosen, "max_steps=30", "learning_rate=5e-3", "per_device_train_batch_size=16"]
    return tunesmith.train(source, ["bootstrap_samples=100", *steps, *more], run_dir=folder, quiet=True)


def held_out(run: Run) -> tuple[Example, ...]:
    recipe = run.recipe
    return read_splits(recipe).test


def merge_tokens(folder: Path, tokens: Sequence[str]) -> None:
    """Add tokens to a tokenizer, each an earlier one and a byte; llama.cpp reads none without any."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["merges"] += [[token[:-1], token[-1]] for token in tokens]
    content["model"]["vocab"] |= {token: len(content["model"]["vocab"]) + i for i, token in enumerate(tokens)}
    path.write_text(json.dumps(content))
