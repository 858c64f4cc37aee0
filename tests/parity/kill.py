"""Kill training at random moments, go on, and compare with the run that was left alone. Run by test_resume.py.

    python -m tests.parity.kill KIND KILLS SEED FOLDER

Children are forked after the imports, so that a training takes a second; each is killed with SIGKILL after a random
delay (in a step, an evaluation, a save; half of it if the training had ended by then), some of them twice, then resumed
to its end. Prints one JSON line per kill.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

import tunesmith.pipeline.fitting.contrastive
import tunesmith.pipeline.fitting.generators  # noqa: F401 - so that the children need not
from tests import tiny
from tunesmith.pipeline.commands.train import train

SETTINGS = [
    "num_train_epochs=3",
    "per_device_train_batch_size=8",
    "gradient_accumulation_steps=2",
    "learning_rate=3e-3",
    "eval_strategy=steps",
    "eval_steps=5",
    "save_strategy=steps",
    "save_steps=3",
    "logging_steps=4",
    "save_total_limit=3",
    "bootstrap_samples=100",
    "lr_scheduler_type=cosine",
]
LORA = ["method=generator", "template=plain", "adapter.kind=lora", "adapter.r=4", "lora_dropout=0.2"]
ANSWERS = ["task=instruction", "num_samples=1", "max_responses=2", "max_new_tokens=4", "template=plain"]
STREAM = ["data.streaming=true", "shuffle_buffer=30", "max_steps=18", "test_size=20", "validation_size=13"]
KINDS = {
    "encoder": ("bert", ["method=encoder", "max_tokens_per_micro_batch=60"]),
    "contrastive": ("bert", ["method=encoder:contrastive", "max_tokens_per_micro_batch=40"]),
    "lora": ("llama", [*LORA, "max_tokens_per_micro_batch=400"]),
    "causal": ("gpt2", [*ANSWERS, "max_tokens_per_micro_batch=400"]),
    "stream": ("gpt2", [*ANSWERS, *STREAM, "max_tokens_per_micro_batch=400"]),
}
"""What is trained: model family (each with dropout) and settings. A step of 16 rows is several micro-batches."""


def in_child(work: Callable[[], object]) -> int:
    """Run in a fork whose output goes nowhere; gives its process id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(os.open("errors.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        work()
        code = 0
    finally:
        os._exit(code)


def finish(work: Callable[[], object]) -> None:
    assert os.waitpid(in_child(work), 0)[1] == 0, Path("errors.log").read_text()


def killed(work: Callable[[], object], delay: float) -> bool:
    """Whether the kill came before the end."""
    child = in_child(work)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def digest(run: Path) -> dict[str, str]:
    """Hashes of all that must be equal: weights, optimizer, metrics, predictions, scores."""
    files = [*run.glob("model/**/*"), *run.glob("checkpoints/*/*.safetensors"), *run.glob("predictions/*.jsonl")]
    files += [run / "metrics.jsonl", run / "scores.json"]
    return {str(f.relative_to(run)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files if f.is_file()}


def write(folder: Path, kind: str) -> dict[str, object]:
    """Data and a model; the recipe's part that names them."""
    rows, family = tiny.texts(130), KINDS[kind][0]
    make = tiny.model if family == "bert" else tiny.generator
    model = make(family, folder / "model")
    path = folder / "rows.json"
    path.write_text(
        json.dumps(
            [
                {"instruction": "What is this about?", "input": text, "output": label, "text": text, "label": label}
                for text, label in rows
            ]
        )
    )
    return {"data": {"path": str(path)}, "model": {"name_or_path": str(model)}}


def main(kind: str, kills: int, seed: int, folder: Path) -> None:
    torch.set_num_threads(1)
    os.chdir(folder)
    source, settings = write(folder, kind), [*SETTINGS, *KINDS[kind][1]]
    start = time.monotonic()
    finish(lambda: train(source, settings, run_dir="whole", quiet=True))
    length = time.monotonic() - start
    expected = digest(Path("whole"))
    assert sum("optimizer" in name for name in expected) == 3
    draw = random.Random(seed)
    for number in range(kills):
        run = f"run-{number}"
        begin, resume = partial(train, source, settings, run_dir=run, quiet=True), partial(train, resume=run)
        delays = [draw.uniform(0.02, 0.9) * length for _ in range(draw.choice([1, 1, 2]))]
        while not killed(begin, delays[0]):  # it ended before: this time the machine was faster
            shutil.rmtree(run)
            delays[0] /= 2
        hits = 1 + sum(killed(resume, delay) for delay in delays[1:] if begun(run))
        done = len(list(Path(run, "checkpoints").glob("step-*")))
        if begun(run):
            finish(resume)
        else:  # killed before there was a run: begin again
            finish(begin)
        found = digest(Path(run))
        differs = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
        print(json.dumps({"hits": hits, "checkpoints": done, "delays": delays, "differs": differs}), flush=True)


def begun(run: str) -> bool:
    return Path(run, "manifest.json").exists()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
