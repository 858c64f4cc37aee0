"""Shard weights, gradients and optimizer state among processes with torch's FSDP2, as accelerate's settings ask.

Layers are gathered one by one while they run, and all at once (`gathered`) when a model is evaluated or written. The
embeddings and the head stay gathered from forward to backward, because causal losses use the head after the forward.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator, DistributedType
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from tunesmith.errors import TrainingError
from tunesmith.models import architectures
from tunesmith.training import zero


def asked_for() -> bool:
    """Return whether accelerate's settings ask for FSDP (accelerate itself ignores them on a CPU)."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true", "yes")


def check(model: nn.Module, optimizer: str, accelerator: Accelerator) -> None:
    """Raise TrainingError for settings of accelerate that this loop does not support."""
    if accelerator.distributed_type == DistributedType.MEGATRON_LM:
        raise TrainingError(
            "cannot train with accelerate's MEGATRON_LM, which steps the optimizer itself",
            expected="FSDP2, DeepSpeed or data parallelism: the loop checks loss and gradient before a step",
            do="launch with examples/accelerate/fsdp2.yaml, which shards the same state",
        )
    if zero.asked_for():
        zero.check(accelerator)
    elif asked_for():
        if os.environ.get("FSDP_VERSION", "1") != "2":
            raise TrainingError("cannot train with FSDP 1", expected="fsdp_version: 2", do="see examples/accelerate")
        if os.environ.get("FSDP_OFFLOAD_PARAMS", "false").lower() == "true":
            raise TrainingError(
                "cannot train with fsdp_offload_params",
                expected="weights on the device",
                do="leave it out; to save memory, set adapter.kind=lora, engine.gradient_checkpointing=true",
            )
    else:
        return
    if optimizer != "adamw":
        raise TrainingError(f"cannot shard the state of train.optim={optimizer}", do="set train.optim=adamw")
    if odd := sorted({str(p.dtype) for p in model.parameters() if p.dtype != torch.float32}):
        raise TrainingError(
            "cannot train sharded weights in 16 or 4 bits",
            expected="weights in float32",
            found=", ".join(odd),
            do="set model.dtype=float32 and engine.mixed_precision=bf16, without adapter.kind=qlora",
        )


def shard(model: nn.Module, device: torch.device) -> None:
    """Shard every weight among the processes, in place. All processes must have the same weights before."""
    world = torch.distributed.get_world_size()
    mesh = init_device_mesh(device.type, (world,))
    for layer in architectures.repeated_layers(model):
        fully_shard(layer, mesh=mesh, reshard_after_forward=_reshards())
    fully_shard(model, mesh=mesh, reshard_after_forward=False)
    # By default the backward pass gathers in the order of the forwards before it, including those of the evaluation,
    # which only the first process may have run.
    root, *parts = _parts(model)
    for part, before in zip([root, *reversed(parts)], [*reversed(parts), *parts[:1]], strict=True):
        part.set_modules_to_backward_prefetch([before])


def is_sharded(model: nn.Module) -> bool:
    """Return whether `shard` has been applied."""
    return isinstance(model, FSDPModule)


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Within this, every process has all weights, for reading. All processes must enter it."""
    if not is_sharded(model):
        yield
        return
    gather(model)
    try:
        yield
    finally:
        for part in _parts(model):
            part.set_reshard_after_forward(part is not model and _reshards(), recurse=False)
            part.reshard()


def gather(model: nn.Module) -> None:
    """Gather all weights in every process for good."""
    for part in _parts(model):
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    for module in model.modules():
        module._state_dict_pre_hooks.clear()  # they would shard the weights again


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor with all its shards. All processes must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: torch.Tensor, model: torch.Tensor) -> torch.Tensor:
    """Return a tensor, which every process has, sharded like `model`."""
    if not isinstance(model, DTensor) or tensor.shape != model.shape:
        return tensor
    return distribute_tensor(tensor.to(model.device), model.device_mesh, model.placements, src_data_rank=None)


def _parts(model: nn.Module) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def _reshards() -> bool:
    """Return whether layers are gathered again for the backward pass (ZeRO 3), or stay gathered (ZeRO 2)."""
    return os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() != "false"
