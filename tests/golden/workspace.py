"""The folder that golden tests work in: tiny models, rows, recipes; and the command line."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml

from tests import tiny
from tunesmith.cli import main

DATA = Path(os.environ.get("TUNESMITH_DATA") or Path(__file__).parents[3] / "shared" / "data")
"""Real rows, where they are at hand."""
WIDE = 0.2
"""Spread of random weights: wide enough for texts to get labels and answers that differ."""
FEW = {"bootstrap_samples": 100, "logging_steps": 1}
CLASSIFICATION = {
    "data": {"path": "reviews.csv"},
    "split": {"test_size": 15, "validation_size": 6},
    "model": {"name_or_path": "bert", "generator": "words", "max_length": 64},
    "prompt": {"label_texts": {"sport": "goal", "tech": "chip", "world": "vote"}},
    "train": {"max_steps": 4, "learning_rate": 1e-3},
    "evaluate": FEW,
}
INSTRUCTION = {
    "task": "instruction",
    "data": {"path": "beginnings.json"},
    "split": {"test_size": 6, "validation_size": 3},
    "model": {"name_or_path": "words", "max_length": 120},
    "train": {"max_steps": 3, "learning_rate": 1e-3, "per_device_train_batch_size": 4},
    "generate": {"max_new_tokens": 5},
    "evaluate": {**FEW, "num_samples": 1},
}


@dataclass
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    def __str__(self) -> str:
        parts = {"stdout": self.out, "stderr": self.err, "exit code": str(self.code or "")}
        return "\n".join(f"-- {name}\n{text.rstrip()}" for name, text in parts.items() if text)


def tunesmith(*words: str) -> Said:
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    given = patch.object(sys, "argv", ["tunesmith", *words])
    with given, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    return Said(code, out.getvalue(), err.getvalue())


@dataclass
class Workspace:
    """A folder with everything, and the runs trained in it, each once."""

    folder: Path
    said: dict[str, Said] = field(default_factory=dict)

    def train(self, name: str, words: Sequence[str]) -> Path:
        """The run of this name, which these words behind `train` make."""
        run = self.folder / "runs" / name
        if name not in self.said:
            self.said[name] = said = tunesmith("train", *words, "--run-dir", f"runs/{name}")
            assert said.code == 0, said.err
        return run


def build(folder: Path) -> Workspace:
    """Models, rows and recipes in an empty folder."""
    tiny.model("bert", folder / "bert", initializer_range=WIDE)
    tiny.generator("llama", folder / "bytes", initializer_range=WIDE)
    words = tiny.tokenizer("llama")
    tiny.causal("llama", vocab_size=len(words), initializer_range=WIDE).save_pretrained(folder / "words")
    words.save_pretrained(folder / "words")
    write_csv(folder / "reviews.csv", ("text", "label"), tiny.texts(90))
    write_csv(folder / "new.csv", ("text", "label"), tiny.texts(12, seed=3))
    write_csv(folder / "pairs.csv", ("first", "second", "relation"), pairs(80))
    write_csv(folder / "dirty.csv", ("text", "label"), dirty())
    for name, rows in conversations().items():
        (folder / f"{name}.json").write_text(json.dumps(rows))
    for name, recipe in {"classification": CLASSIFICATION, "instruction": INSTRUCTION}.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
    return Workspace(folder)


def pairs(rows: int) -> list[tuple[str, ...]]:
    """Two texts and whether they have one topic, as three of four have."""
    first, second = tiny.texts(rows), tiny.texts(rows, seed=1)
    found = []
    for number, (text, label) in enumerate(first):
        partner, other = second[(number + (number % 4 == 3)) % rows]
        found.append((text, partner, "same" if label == other else "different"))
    return found


def dirty() -> list[tuple[str, ...]]:
    """Rows of which some are empty, repeated or without a label."""
    rows = tiny.texts(60)
    return [*rows, ("", "sport"), ("the goal", ""), *rows[:3], ("  the   match ", "sport"), (rows[4][0], "world")]


def conversations() -> dict[str, list[dict[str, Any]]]:
    """The same questions in every format, and some of several turns."""
    rows = tiny.texts(30)
    turns = [[f"Topic of: {text}?", label, f"And of {n}?", "a number"] for n, (text, label) in enumerate(rows)]
    brief = {"role": "system", "content": "Be brief."}
    return {
        "beginnings": [
            {"instruction": "Repeat the beginning.", "input": text, "output": " ".join(text.split()[:4])}
            for text, _ in rows
        ],
        "few": [{"instruction": f"Name the topic of {text}.", "output": label} for text, label in rows[:6]],
        "messages": [{"messages": [brief, *said(each, "role", "user", "assistant", "content")]} for each in turns],
        "sharegpt": [{"conversations": said(each, "from", "human", "gpt", "value")} for each in turns],
        "completions": [{"prompt": f"Topic of: {text}?", "completion": label} for text, label in rows],
        "human": [
            {"text": f"### Human: {a}### Assistant: {b}### Human: {c}### Assistant: {d}"} for a, b, c, d in turns
        ],
        "answers": [
            {
                "instruction": f"What is {n} and {n}?",
                "output": f"The sum is {2 * n}.",
                "right_response": f"It is {2 * n}.",
                "often_response": f"It is {2 * n}." if n % 3 else "Nothing at all",
            }
            for n in range(12)
        ],
    }


def said(turns: Sequence[str], by: str, asking: str, answering: str, content: str) -> list[dict[str, str]]:
    """Turns under the names that a format has for them."""
    return [{by: answering if number % 2 else asking, content: text} for number, text in enumerate(turns)]


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def real_rows(source: str, path: Path, rows: int) -> Path:
    """A file with the first rows of a real one: texts with labels, or short instructions, as bytes are tokens here."""
    file = DATA / source
    opened = gzip.open if file.suffix == ".gz" else open
    with opened(file, "rt", encoding="utf-8", newline="") as content:
        if ".csv" in source:
            found = [(row["text"], row["label"]) for row, _ in zip(csv.DictReader(content), range(rows), strict=False)]
            write_csv(path := path.with_suffix(".csv"), ("text", "label"), found)
            return path
        read = json.load(content) if file.suffix == ".json" else [json.loads(line) for line in content]
    path = path.with_suffix(".json")
    path.write_text(json.dumps([row for row in read if len(json.dumps(row)) < 360][:rows]))
    return path
