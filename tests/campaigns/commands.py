"""Commands that write, with the runs and files that they start from, for campaigns that disturb them."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

from tests import conftest, tiny
from tests.campaigns.campaign import execute

ROWS = 30
"""Rows of the data that commands read."""


@dataclass(frozen=True)
class Writer:
    """A command that writes. words: with `OUT` where the name of its output stands."""

    words: tuple[str, ...]
    run: str = ""
    """The method of the run that it uses, which lies in `run`."""
    suffix: str = ""
    """Of its output's name."""

    def with_output(self, output: str) -> tuple[str, ...]:
        """Return the words with the name of an output."""
        return tuple(output if word == "OUT" else word for word in self.words)


TRAINING = threading.Lock()
STEPS = ("max_steps=2", "model.max_length=32", "logging_steps=1", "save_strategy=steps", "save_steps=1")
INSTRUCT = ("answers.json", "task=instruction", "adapter.kind=lora", "model.name_or_path=llama", "max_new_tokens=4")
WRITERS = {
    "train-linear": Writer(("train", "reviews.csv", "method=linear", "--run-dir", "OUT")),
    "train-probe": Writer(("train", "reviews.csv", "method=probe", "model.name_or_path=bert", "--run-dir", "OUT")),
    "train-encoder": Writer(("train", "reviews.csv", "model.name_or_path=bert", *STEPS, "--run-dir", "OUT")),
    "train-generator": Writer(("train", *INSTRUCT, *STEPS[:1], "model.max_length=256", "--run-dir", "OUT")),
    "judge": Writer(
        ("judge", "answers.json", "--api", "local", "--model", "llama", "max_answers=2", "--output", "OUT")
    ),
    "predict-jsonl": Writer(("predict", "run", "--data", "reviews.csv", "--output", "OUT"), "encoder", ".jsonl"),
    "explain": Writer(("explain", "run", "--data", "reviews.csv", "--output", "OUT"), "linear", ".jsonl"),
    "pseudo-label": Writer(
        ("pseudo-label", "run", "--data", "reviews.csv", "--threshold", "0", "--output", "OUT"), "linear", ".jsonl"
    ),
    "evaluate": Writer(("evaluate", "run"), "linear"),
    "evaluate-report": Writer(("evaluate", "answers.json", "--report", "OUT"), "", ".html"),
    "predict-csv": Writer(("predict", "run", "--data", "reviews.csv", "--output", "OUT"), "linear", ".csv"),
    "compare": Writer(("compare", "run", "run"), "linear"),
    "merge": Writer(("merge", "run", "--output", "OUT"), "generator"),
    "export-onnx": Writer(("export", "run", "--to", "onnx", "--output", "OUT", "--rows", "3"), "encoder"),
    "export-torchscript": Writer(("export", "run", "--to", "torchscript", "--output", "OUT", "--rows", "3"), "encoder"),
    "export-torch-export": Writer(
        ("export", "run", "--to", "torch-export", "--output", "OUT", "--rows", "3"), "encoder"
    ),
    "export-pth": Writer(("export", "run", "--to", "pth", "--output", "OUT", "--rows", "3"), "encoder"),
    "export-safetensors": Writer(("export", "run", "--to", "safetensors", "--output", "OUT", "--rows", "3"), "encoder"),
    "export-adapter": Writer(("export", "run", "--to", "adapter", "--output", "OUT", "--rows", "3"), "generator"),
    "sweep": Writer(("sweep", "reviews.csv", "method=linear", "C=1,10", "--sweep-dir", "OUT")),
}


def prepare(folder: Path) -> None:
    """Write the data and the models that commands start from."""
    conftest.write_csv(folder / "reviews.csv", tiny.texts(ROWS))
    rows = [{"instruction": text, "output": label, "model_response": label} for text, label in tiny.texts(ROWS)]
    (folder / "answers.json").write_text(json.dumps(rows))
    tiny.model("bert", folder / "bert")
    tiny.generator("llama", folder / "llama")


def begin(shared: Path, folder: Path, writer: Writer) -> None:
    """Copy into a folder what a command starts from; a run is trained where it is the first to need it."""
    for name in ("reviews.csv", "answers.json"):
        shutil.copy(shared / name, folder)
    for name in ("bert", "llama"):
        (folder / name).symlink_to(shared / name)
    if writer.run:
        with TRAINING:
            if not (shared / writer.run).exists():
                result = execute(*WRITERS[f"train-{writer.run}"].with_output(writer.run), folder=shared, seconds=120)
                assert result.exit_code == 0, result.stderr
        shutil.copytree(shared / writer.run, folder / "run")


def damage(folder: Path) -> str:
    """Return a file that is not as a list of hashes in the folder says, read without the project."""
    for listed in (*folder.rglob("hashes.json"), *folder.rglob("manifest.json")):
        content = json.loads(listed.read_text(encoding="utf-8"))
        hashes: dict[str, str] = content if listed.name == "hashes.json" else content.get("hashes", {})
        for name, expected in hashes.items():
            file = listed.parent / name
            if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != expected:
                return f"{file.relative_to(folder)} is not as it was written"
    return ""


def rows(file: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV or JSON Lines file, read without the project."""
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines)) if file.suffix == ".csv" else [json.loads(line) for line in lines]
