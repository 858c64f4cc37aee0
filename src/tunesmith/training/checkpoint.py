"""Everything that changes while training, to disk and back: safetensors and JSON, whole or not at all, never pickle.

There is no random state to save: order and dropout are functions of (seed, step), see `loop`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tunesmith import runs
from tunesmith.console import warn
from tunesmith.errors import RunError
from tunesmith.training import sharding
from tunesmith.training.loop import TrainState

MODEL, OPTIMIZER, PROGRESS = "model.safetensors", "optimizer.safetensors", "progress.json"


@dataclass(frozen=True)
class Snapshot:
    """A training state as it is now, all pieces together; good until the next step."""

    model: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor]
    progress: dict[str, Any]


def snapshot(state: TrainState) -> Snapshot:
    """What is to be saved. To be called by all processes."""
    optimizer, groups = _optimizer_tensors(state.optimizer)
    progress = {
        "step": state.step,
        "best": state.best,
        "age": state.evals_without_improvement,
        "skipped": state.skipped,
        "schedule": state.scheduler.last_epoch,
        "scaler": state.scaler.state_dict() if state.scaler is not None else None,
        "groups": groups,
    }
    model = {name: sharding.whole(tensor.detach()) for name, tensor in _model_tensors(state).items()}
    return Snapshot(model, optimizer, progress)


def save(folder: Path, content: Snapshot, notes: Mapping[str, Any], keep: int) -> Path:
    """Write `folder/step-NNNNNNNN`, then delete all but the newest `keep` checkpoints. For one process.

    notes: what the loop's consumer needs to go on, ready for JSON. Raises RunError where the disk fails.
    """
    target = folder / f"step-{content.progress['step']:08d}"
    runs.write_folder(target, lambda scratch: _write(scratch, content, notes))
    for old in _listing(folder)[keep:]:
        runs.remove_folder(old)
    runs.remove_leftovers(folder)
    return target


def newest(folder: Path) -> Path | None:
    """The newest checkpoint that is as it was written; damaged ones are named and passed over."""
    for path in _listing(folder):
        problem = runs.damage(path)
        if problem is None:
            return path
        warn(f"checkpoint {path.name} is damaged ({problem}); trying the one before")
    return None


def load(path: Path, state: TrainState) -> dict[str, Any]:
    """Put a checkpoint into `state`; gives the consumer's notes."""
    progress: dict[str, Any] = json.loads((path / PROGRESS).read_text(encoding="utf-8"))
    _load_model(path, state)
    _load_optimizer(path, state, progress["groups"])
    state.step, state.best, state.evals_without_improvement = progress["step"], progress["best"], progress["age"]
    state.skipped = progress["skipped"]
    state.scheduler.last_epoch = progress["schedule"]
    if state.scaler is not None and progress["scaler"]:
        state.scaler.load_state_dict(progress["scaler"])
    notes: dict[str, Any] = progress["notes"]
    return notes


def _listing(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), reverse=True)


def _write(folder: Path, content: Snapshot, notes: Mapping[str, Any]) -> None:
    save_file(_on_cpu(content.model), folder / MODEL)
    save_file(_on_cpu(content.optimizer), folder / OPTIMIZER)
    (folder / PROGRESS).write_text(json.dumps(content.progress | {"notes": dict(notes)}, indent=2), encoding="utf-8")


def _on_cpu(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies that share no memory, as safetensors wants them."""
    return {name: tensor.contiguous().cpu().clone() for name, tensor in tensors.items()}


def _model_tensors(state: TrainState) -> dict[str, torch.Tensor]:
    """What training can change: parameters that learn, and buffers."""
    found: dict[str, torch.Tensor] = {name: p for name, p in state.model.named_parameters() if p.requires_grad}
    return found | dict(state.model.named_buffers())


def _load_model(path: Path, state: TrainState) -> None:
    stored = load_file(path / MODEL)
    expected = set(_model_tensors(state))
    if expected != set(stored):
        odd = sorted(expected ^ set(stored))
        raise RunError(
            f"{path} is of another model", found=f"{len(odd)} names differ, such as {odd[0]}", do="start anew"
        )
    own: dict[str, torch.Tensor] = {**dict(state.model.named_parameters()), **dict(state.model.named_buffers())}
    with torch.no_grad():
        for name, tensor in stored.items():
            own[name].copy_(sharding.like(tensor, own[name]))


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    content = optimizer.state_dict()
    tensors = {
        f"{index}.{name}": sharding.whole(tensor.detach())
        for index, slots in content["state"].items()
        for name, tensor in slots.items()
    }
    return tensors, content["param_groups"]


def _load_optimizer(path: Path, state: TrainState, groups: list[dict[str, Any]]) -> None:
    parameters = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
    slots: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in load_file(path / OPTIMIZER).items():
        index, name = key.split(".", 1)
        slots.setdefault(int(index), {})[name] = sharding.like(tensor, parameters[int(index)])
    state.optimizer.load_state_dict({"state": slots, "param_groups": groups})
