"""Shard optimizer state (ZeRO 1) and gradients (ZeRO 2) among processes with DeepSpeed, as accelerate's settings ask.

DeepSpeed keeps the shards, exchanges gradients and steps; the loop decides when, after checking loss and gradient.
Every process has all weights, in float32.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DeepSpeedPlugin
from torch import nn
from torch.optim.optimizer import StateDict

from tunesmith import processes
from tunesmith.errors import MissingExtra, TrainingError

MOMENTS = ("exp_avg", "exp_avg_sq")
"""AdamW's state for every weight, besides the number of steps."""


def asked_for() -> bool:
    """Return whether accelerate's settings ask for DeepSpeed, and there are several processes."""
    asked = os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() in ("1", "true", "yes")
    return asked and processes.count() > 1


def check(accelerator: Accelerator) -> None:
    """Raise TrainingError for settings that are not supported, and MissingExtra without DeepSpeed."""
    if importlib.util.find_spec("deepspeed") is None:
        raise MissingExtra("cannot train with DeepSpeed: it is not installed", do="pip install tunesmith[deepspeed]")
    settings = _settings()
    if settings["stage"] not in (1, 2):
        raise TrainingError(
            f"cannot train with ZeRO {settings['stage']}",
            expected="zero_stage: 1 or 2",
            do="launch with examples/accelerate/fsdp2.yaml, which shards the same state as ZeRO 3",
        )
    offloads = {name: value for name, value in settings.items() if "offload" in name and isinstance(value, dict)}
    if odd := [name for name, value in offloads.items() if value.get("device") not in ("none", None)]:
        raise TrainingError(
            f"cannot train with {', '.join(odd)}",
            expected="optimizer state and weights on the device",
            do="leave it out; to save memory, set adapter.kind=lora, engine.gradient_checkpointing=true",
        )
    if accelerator.scaler is not None:
        raise TrainingError(
            "cannot scale the loss with DeepSpeed",
            found="engine.mixed_precision=fp16",
            do="set engine.mixed_precision=bf16 or no",
        )


class ZeroAdamW(torch.optim.Optimizer):
    """AdamW over the model's weights for the loop and for checkpoints; DeepSpeed steps, and keeps its state.

    The state dict is that of torch's AdamW, without shards: a run can be resumed by any number of processes.
    """

    def __init__(
        self, model: nn.Module, adamw: torch.optim.Optimizer, max_norm: float, autocast: Callable[[], Any]
    ) -> None:
        """Start DeepSpeed's engine. max_norm: where to clip gradients, 0 for never; autocast: context for losses."""
        super().__init__([{**group, "params": [*group["params"]]} for group in adamw.param_groups], adamw.defaults)
        # DeepSpeed replaces the weights in these groups by its shards, and removes groups without weights
        self._owned = [*adamw.param_groups]
        self._adamw = adamw
        if processes.on_cpu():
            os.environ.setdefault("DS_ACCELERATOR", "cpu")
        import deepspeed

        config = {
            "train_micro_batch_size_per_gpu": 1,  # used by DeepSpeed's own statistics only
            "gradient_accumulation_steps": 1,
            "gradient_clipping": max_norm,
            "zero_allow_untested_optimizer": True,
            "zero_optimization": _settings(),
        }
        module = _ModelWithLoss(model, autocast)
        self.engine, *_ = deepspeed.initialize(model=module, optimizer=adamw, config=config)
        self._initialize_state()

    def norm(self) -> float:
        """Return the gradient's norm over all processes, after a backward pass; infinite if it is not finite."""
        return float(self.engine.optimizer.scaled_global_norm())

    def step(self, closure: Any = None) -> Any:
        """Clip, step and send the new weights to all processes."""
        for group, own in zip(self.param_groups, self._owned, strict=True):
            own["lr"] = group["lr"]
        self.engine.step()

    def state_dict(self) -> StateDict:
        """Return AdamW's state dict. All processes must call this."""
        from deepspeed.utils import safe_get_full_optimizer_state

        slots = {
            index: {name: safe_get_full_optimizer_state(parameter, name) for name in MOMENTS}
            | {"step": self._adamw.state[shard]["step"].clone()}
            for index, (shard, parameter) in enumerate(self._sharded())
        }
        return {**super().state_dict(), "state": slots}

    @torch.no_grad()
    def load_state_dict(self, state_dict: StateDict) -> None:
        """Restore what AdamW's `state_dict` returned, and take over the model's current weights."""
        from deepspeed.utils import safe_set_full_optimizer_state

        super().load_state_dict({**state_dict, "state": {}})
        self.engine.optimizer.refresh_fp32_params()
        for index, (shard, parameter) in enumerate(self._sharded()):
            if slot := state_dict["state"].get(index):  # missing for a weight that never had a gradient
                self._adamw.state[shard]["step"].copy_(slot["step"])
                for name in MOMENTS:
                    safe_set_full_optimizer_state(parameter, slot[name].to(parameter.device), name)

    def _initialize_state(self) -> None:
        """Set the state to zeros. DeepSpeed itself would initialize the state of the first group only."""
        from deepspeed.utils import lazy_init_hp_params_optimizer_state

        zero = self.engine.optimizer
        for shard, parameters in zip(zero.single_partition_of_fp32_groups, zero.bit16_groups, strict=True):
            moments = {name: torch.zeros_like(shard) for name in MOMENTS}
            self._adamw.state[shard] = {"step": torch.zeros((), device=shard.device), **moments}
            lazy_init_hp_params_optimizer_state(parameters, shard, self._adamw.state)

    def _sharded(self) -> list[tuple[torch.Tensor, nn.Parameter]]:
        """Return DeepSpeed's shard of a group with each of the group's weights, in the order of the state dict."""
        groups = zip(self.param_groups, self._owned, strict=True)
        return [(own["params"][0], parameter) for group, own in groups for parameter in group["params"]]


def is_engine(model: nn.Module) -> bool:
    """Return whether this is DeepSpeed's engine around a model."""
    return isinstance(getattr(model, "module", None), _ModelWithLoss)


def release(model: nn.Module) -> None:
    """Remove DeepSpeed's hooks from the weights, and free its shards, after training."""
    if is_engine(model):
        model.destroy()  # type: ignore[operator]


def backward(engine: Any, loss: Any, batch: Any, scale: float, last: bool) -> float:
    """Add the gradient of `scale` times a batch's loss; returns the loss. last: whether gradients are exchanged."""
    engine.set_gradient_accumulation_boundary(last)
    total = engine(loss, batch)
    engine.backward(scale * total, scale_wrt_gas=False)
    return float(total.item())


class _ModelWithLoss(nn.Module):
    """Model and loss in one module: DeepSpeed's backward pass starts at the output of its engine's module."""

    def __init__(self, model: nn.Module, autocast: Callable[[], Any]) -> None:
        super().__init__()
        self.model, self.autocast = model, autocast

    def forward(self, loss: Any, batch: Any) -> torch.Tensor:
        with self.autocast():  # the engine disables an autocast around it
            total: torch.Tensor = loss.total(self.model, batch)
        return total


def _settings() -> dict[str, Any]:
    """Return DeepSpeed's `zero_optimization`, from accelerate's settings or the file that they name."""
    settings = DeepSpeedPlugin().deepspeed_config["zero_optimization"]
    return {name: value for name, value in settings.items() if value != "auto"}
