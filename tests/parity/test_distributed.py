"""Two processes learn what one does; the readable twin of the loop gives the same losses."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import patch_environment
from torch import nn

import tunesmith
from tests import forked, tiny
from tests.conftest import write_csv
from tunesmith import integrity, processes
from tunesmith.errors import TrainingError
from tunesmith.recipe import Train
from tunesmith.runs import Run
from tunesmith.training import loop

Models = Callable[[str], Path]
ROOT = Path(__file__).parents[2]
SETTINGS = [
    "num_train_epochs=2",
    "bootstrap_samples=100",
    "logging_steps=1",
    "learning_rate=1e-3",
    "eval_steps=3",
    "eval_strategy=steps",
]


TELLS = {
    "whole": {},
    "fsdp2": {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"},
    "zero1": {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "1"},
    "zero2": {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"},
}
"""What `accelerate launch --config_file examples/accelerate/fsdp2.yaml` and `deepspeed.yaml` tell their processes."""
WITH_DEEPSPEED = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="needs deepspeed")
WAYS = ["whole", "fsdp2", pytest.param("zero1", marks=WITH_DEEPSPEED), pytest.param("zero2", marks=WITH_DEEPSPEED)]


def ranks(way: str) -> list[dict[str, str]]:
    return forked.ranks(2, ACCELERATE_USE_CPU="true", **TELLS[way])


def launch(*words: object, way: str) -> None:
    """`tunesmith` with these words in two processes, as `torchrun --nproc_per_node 2` starts them."""
    forked.run(forked.command, *map(str, words), environments=ranks(way))


def torchrun(*words: object) -> None:
    """The same by the launcher itself, which is what `accelerate launch` starts on GPUs.

    (`accelerate launch --cpu --num_processes 2` of 1.15 starts a single process unless there is an mpirun.)
    """
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    command = [*launcher, "-m", "tunesmith", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-9000:]


@pytest.fixture
def recipe(tmp_path: Path, tiny_models: Models) -> Path:
    """61 training rows: the last step of an epoch has 1 row for 2 processes with batches of 2 x 5."""
    texts = write_csv(tmp_path / "reviews.csv", tiny.texts(80))
    folder = tiny.model("bert", tmp_path / "model", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    content = {
        "data": {"path": str(texts)},
        "model": {"name_or_path": str(folder)},
        "split": {"test_size": 10, "validation_size": 9},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def losses(run: Run) -> list[float]:
    return [line.loss for line in run.metrics() if line.loss is not None]


@pytest.mark.parametrize("way", [*WAYS, "torchrun"])
def test_two_processes_give_the_losses_of_one(way: str, recipe: Path, tmp_path: Path) -> None:
    """10 examples a step: by one process, or 5 each by two; the curve agrees within 1e-5, and one process writes.

    Sharded (FSDP2) the second process of an epoch's last step, with 1 row, runs as often as the first all the same.
    """
    alone = tunesmith.train(recipe, [*SETTINGS, "per_device_train_batch_size=10"], run_dir=tmp_path / "one")
    words = ["per_device_train_batch_size=5", "max_tokens_per_micro_batch=40", "gradient_checkpointing=true"]
    two = ["train", recipe, *SETTINGS, *words, "--run-dir", tmp_path / "two"]
    torchrun(*two) if way == "torchrun" else launch(*two, way=way)
    both = Run(tmp_path / "two")
    assert len(losses(alone)) == len(losses(both)) == 14
    np.testing.assert_allclose(losses(both), losses(alone), rtol=1e-5)
    assert both.finished.notes.processes == 2
    assert both.finished.notes.sharded is (way not in ("whole", "torchrun"))
    assert alone.finished.validation == pytest.approx(both.finished.validation, rel=1e-4)
    assert json.loads((alone.path / "scores.json").read_text())["confusion"] == both.read("scores.json")["confusion"]


@pytest.mark.parametrize("way", ["whole", "fsdp2"])
def test_two_processes_compare_the_texts_that_one_compares(way: str, recipe: Path, tmp_path: Path) -> None:
    """Each has all texts of a step, in one micro-batch or in many."""
    settings = [*SETTINGS, "method=encoder:contrastive", "layout=padded"]
    alone = tunesmith.train(recipe, [*settings, "per_device_train_batch_size=20"], run_dir=tmp_path / "one")
    words = ["per_device_train_batch_size=10", "max_tokens_per_micro_batch=40"]
    launch("train", recipe, *settings, *words, "--run-dir", tmp_path / "two", way=way)
    both = Run(tmp_path / "two")
    assert len(losses(alone)) == len(losses(both)) == 8
    np.testing.assert_allclose(losses(both), losses(alone), rtol=1e-5)
    assert alone.finished.validation == pytest.approx(both.finished.validation, rel=1e-4)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["none", "lora"])
def test_two_processes_pack_what_one_packs(kind: str, way: str, tmp_path: Path) -> None:
    """Instruction tuning, 10 conversations a step: packed by one process, or dealt to two; the last step has 1 row."""
    rows = [{"instruction": "Topic?", "input": text, "output": label} for text, label in tiny.texts(80)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    content = {
        "task": "instruction",
        "data": {"path": str(tmp_path / "rows.json")},
        "adapter": {"kind": kind},
        "model": {"name_or_path": str(tiny.generator("llama", tmp_path / "model"))},
        "split": {"test_size": 10, "validation_size": 9},
    }
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(content))
    words = [*SETTINGS, "max_new_tokens=2", "num_samples=1", "max_responses=1", "lora_dropout=0"]
    alone = tunesmith.train(recipe, [*words, "per_device_train_batch_size=10"], run_dir=tmp_path / "one")
    launch("train", recipe, *words, "per_device_train_batch_size=5", "--run-dir", tmp_path / "two", way=way)
    both = Run(tmp_path / "two")
    assert len(losses(alone)) == len(losses(both)) == 14
    np.testing.assert_allclose(losses(both), losses(alone), rtol=1e-5)
    assert both.finished.notes.layout == "packed"
    assert alone.finished.validation == pytest.approx(both.finished.validation, rel=1e-4)


@pytest.mark.parametrize("way", WAYS)
def test_a_run_of_two_processes_is_finished_by_any_number(way: str, recipe: Path, tmp_path: Path) -> None:
    """From its checkpoint of step 12: the last losses are those of the whole run, and so is the model."""
    words = [*SETTINGS, "per_device_train_batch_size=5", "save_strategy=steps", "save_steps=4"]
    launch("train", recipe, *words, "--run-dir", tmp_path / "whole", way=way)
    whole = Run(tmp_path / "whole")
    whole.save_manifest(replace(whole.manifest, status="running"))
    for number in (1, 2):
        run = Run(shutil.copytree(whole.path, tmp_path / f"by-{number}"))
        if number == 2:
            launch("train", "--resume", run.path, way=way)
        else:
            tunesmith.train(resume=run.path)
        np.testing.assert_allclose(losses(run), losses(whole), rtol=1e-5)
        assert losses(run)[:12] == losses(whole)[:12]
        assert run.read("scores.json")["confusion"] == whole.read("scores.json")["confusion"]


def test_a_signal_to_one_process_stops_both_after_one_step(recipe: Path, tmp_path: Path) -> None:
    """Launchers do not signal all at once; the checkpoint is whole, and the run goes on from it."""
    words = ["train", str(recipe), "max_steps=4000", "save_strategy=no", "per_device_train_batch_size=5"]
    started = [
        forked.start(tmp_path / f"rank-{rank}", forked.command, *words, "--run-dir", "run", environment=environment)
        for rank, environment in enumerate(ranks("whole"))
    ]
    while not Path("run/metrics.jsonl").exists() and all(process.exitcode is None for process in started):
        time.sleep(0.02)
    assert started[1].pid
    os.kill(started[1].pid, signal.SIGTERM)
    for process in started:
        process.join(60)
    assert [process.exitcode for process in started] == [128 + signal.SIGTERM] * 2
    run = Run(Path("run"))
    assert run.manifest.status == "interrupted"
    (newest,) = (run.path / "checkpoints").glob("step-*")
    assert integrity.damage(newest) is None


class Batch:
    """Rows of a half."""

    ids = ("row",)

    def __init__(self, rows: int, power: float) -> None:
        self.inputs, self.power = torch.full((rows, 3), 0.5), power

    def to(self, device: torch.device) -> Batch:
        return self


class Loss:
    """Zero, with a gradient of zero or, as that of a root at 0, infinite."""

    def count(self, batch: Batch) -> int:
        return len(batch.inputs)

    def total(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        return (model(batch.inputs) * 0.0).abs().pow(batch.power).sum()


def infinite() -> None:
    """Step 2 has nothing to learn, step 3 an infinite gradient on the second process; print how it ended."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    with patch_environment(**processes.WITHOUT_DEEPSPEED):
        accelerator = Accelerator(cpu=True)
    plan, train = loop.TrainingPlan(3, None, "", False, None), Train(learning_rate=0.01, warmup_ratio=0)
    state = loop.begin(model, train, plan, accelerator)

    def batches(step: int) -> list[Batch]:
        return [Batch(0 if step == 1 else 2, 0.5 if step == 2 and accelerator.process_index else 1.0)]

    try:
        for step in loop.steps(state, batches, Loss(), train, accelerator, plan, dict):  # type: ignore[arg-type]
            before, last = [p.clone() for p in model.parameters()], step
    except TrainingError as error:
        same = all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
        reason = str(error).splitlines()[0]
        print(f"stopped {last.number} {last.skipped} {same} {reason}")


@pytest.mark.parametrize("way", ["whole", *WAYS[2:]])
def test_no_process_steps_where_the_gradient_of_one_is_infinite(way: str) -> None:
    """The loss is finite, so only the gradient tells; all of them stop, with the weights of the step before."""
    lines = forked.run(infinite, environments=ranks(way)).splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.startswith("stopped 2 True True step 3: loss 0.0, gradient norm")


def test_the_readable_loop_gives_the_same_losses(tmp_path: Path, tiny_models: Models) -> None:
    """examples/loop.py, which pads, dropout included, to the last digit that float32 sums keep."""
    spec = importlib.util.spec_from_file_location("loop", ROOT / "examples" / "loop.py")
    assert spec
    assert spec.loader
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    rows = tiny.texts(100)
    table = write_csv(tmp_path / "reviews.csv", rows)
    settings = [
        "num_train_epochs=1",
        "learning_rate=5e-5",
        "max_length=128",
        "validation_size=0",
        "test_size=0",
        "layout=padded",
    ]
    source = {"data": {"path": str(table)}, "model": {"name_or_path": str(tiny_models("bert"))}}
    run = tunesmith.train(source, [*settings, "logging_steps=1", "layout=padded"])
    theirs = example.train([text for text, _ in rows], [label for _, label in rows], str(tiny_models("bert")))
    np.testing.assert_allclose(losses(run), theirs, rtol=1e-6)
