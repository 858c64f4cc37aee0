"""Runs of tiny models, trained in a second or two, to export and to compute."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import tunesmith
from tests import tiny
from tunesmith.pipeline.task_table import read_splits
from tunesmith.runs import Run
from tunesmith.types import Example

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
