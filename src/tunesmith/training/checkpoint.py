"""Save and restore everything that changes in training: safetensors and JSON, written atomically, never pickle.

There is no random state to save: order and dropout are functions of (seed, step), see `loop`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tunesmith import integrity, records, runs
from tunesmith.console import warn
from tunesmith.data.shuffled_stream import StreamPosition
from tunesmith.errors import RunError
from tunesmith.training import sharding
from tunesmith.training.loop import TrainState

MODEL, OPTIMIZER, PROGRESS = "model.safetensors", "optimizer.safetensors", "progress.json"


@dataclass(frozen=True, slots=True)
class SessionNotes:
    """What the consumer of the loop needs to resume."""

    losses: list[float]
    """Losses of the steps since the last line in metrics.jsonl."""
    best_step: int | None
    seconds: float
    """Training time so far."""
    metrics: int
    """Lines in metrics.jsonl."""
    threads: int
    stream: StreamPosition | None = None
    """Where the stream is that is learned from."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Everything in a checkpoint that is not a tensor: progress.json."""

    step: int
    best: float | None
    age: int
    """Evaluations without improvement."""
    skipped: int
    schedule: int
    """Steps of the learning rate schedule."""
    scaler: dict[str, int | float] | None
    """State of the gradient scaler, for fp16."""
    groups: list[dict[str, Any]]
    """The optimizer's parameter groups, as torch has them."""
    numbers: dict[str, int | float] = field(default_factory=dict)
    """The part of the optimizer's state that is not tensors."""
    notes: SessionNotes | None = None


@dataclass(frozen=True)
class Snapshot:
    """A training state without shards; valid until the next step."""

    model: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor]
    progress: Progress


def snapshot(state: TrainState) -> Snapshot:
    """Return what to save. All processes must call this."""
    content = state.optimizer.state_dict()
    slots: dict[str, torch.Tensor | int | float] = {}
    for index, values in content["state"].items():
        for name, slot in values.items():
            nested = slot if isinstance(slot, dict) else {name: slot}  # bitsandbytes hides its tensors from FSDP
            slots |= {f"{index}.{key}": value for key, value in nested.items()}
    tensors = {key: slot for key, slot in slots.items() if isinstance(slot, torch.Tensor)}
    optimizer = {key: sharding.whole(tensor.detach()) for key, tensor in tensors.items()}
    progress = Progress(
        state.step,
        state.best,
        state.evals_without_improvement,
        state.skipped,
        state.scheduler.last_epoch,
        state.scaler.state_dict() if state.scaler is not None else None,
        content["param_groups"],
        {key: slot for key, slot in slots.items() if not isinstance(slot, torch.Tensor)},
    )
    model = {name: sharding.whole(tensor.detach()) for name, tensor in _model_tensors(state).items()}
    return Snapshot(model, optimizer, progress)


def save(folder: Path, content: Snapshot, notes: SessionNotes, keep: int) -> Path:
    """Write `folder/step-NNNNNNNN`, then delete all but the newest `keep` checkpoints. Only one process may call this.

    Raises RunError if the disk fails.
    """
    progress = replace(content.progress, notes=notes)

    def write(scratch: Path) -> None:
        save_file(_on_cpu(content.model), scratch / MODEL)
        save_file(_on_cpu(content.optimizer), scratch / OPTIMIZER)
        (scratch / PROGRESS).write_text(json.dumps(records.dump(progress), indent=2), encoding="utf-8")

    target = folder / f"step-{progress.step:08d}"
    runs.write_folder(target, write)
    for old in _listing(folder)[keep:]:
        _remove(old)
    remove_leftovers(folder)
    return target


def remove_leftovers(folder: Path) -> None:
    """Delete what interrupted writes and deletions left behind."""
    for path in folder.glob(".*"):
        shutil.rmtree(path, ignore_errors=True)


def _remove(folder: Path) -> None:
    """Delete a folder; what is left if that is interrupted does not look like one that is whole."""
    gone = folder.with_name(f".{folder.name}.gone")
    folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def newest(folder: Path) -> Path | None:
    """Return the newest checkpoint that is undamaged; warns about damaged ones and skips them."""
    for path in _listing(folder):
        problem = integrity.damage(path)
        if problem is None:
            return path
        warn(f"checkpoint {path.name} is damaged ({problem}); trying the one before")
    return None


def load(path: Path, state: TrainState) -> SessionNotes | None:
    """Restore a checkpoint into `state`; returns the notes that were saved with it."""
    progress = records.read(Progress, path / PROGRESS)
    stored, expected = load_file(path / MODEL), _model_tensors(state)
    if odd := sorted(expected.keys() ^ stored.keys()):
        raise RunError(
            f"cannot resume: {path} belongs to another model",
            found=f"{len(odd)} names differ, such as {odd[0]}",
            do="start a new run",
        )
    with torch.no_grad():
        for name, tensor in stored.items():
            expected[name].copy_(sharding.like(tensor, expected[name]))
    parameters = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
    slots: dict[int, dict[str, torch.Tensor | int | float]] = {}
    for key, value in (load_file(path / OPTIMIZER) | progress.numbers).items():
        index, name = key.split(".", 1)
        is_tensor = isinstance(value, torch.Tensor)
        slots.setdefault(int(index), {})[name] = sharding.like(value, parameters[int(index)]) if is_tensor else value
    state.optimizer.load_state_dict({"state": slots, "param_groups": progress.groups})
    state.step, state.best, state.evals_without_improvement = progress.step, progress.best, progress.age
    state.skipped = progress.skipped
    state.scheduler.last_epoch = progress.schedule
    if state.scaler is not None and progress.scaler:
        state.scaler.load_state_dict(progress.scaler)
    return progress.notes


def _listing(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), reverse=True)


def _on_cpu(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return copies that share no memory, as safetensors requires."""
    return {name: tensor.contiguous().cpu().clone() for name, tensor in tensors.items()}


def _model_tensors(state: TrainState) -> dict[str, torch.Tensor]:
    """Return what training can change: trainable parameters, and buffers."""
    trainable: dict[str, torch.Tensor] = {name: p for name, p in state.model.named_parameters() if p.requires_grad}
    return trainable | dict(state.model.named_buffers())
