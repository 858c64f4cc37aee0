"""Optimizer state (ZeRO 1), and gradients (ZeRO 2), in pieces, one a process: DeepSpeed, by accelerate's settings.

DeepSpeed keeps the pieces, exchanges gradients and steps; the loop says when, after it has seen loss and gradient. The
weights stay whole in every process, in float32.
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

from tunesmith import processes
from tunesmith.errors import MissingExtra, TrainingError

MOMENTS = ("exp_avg", "exp_avg_sq")
"""What AdamW keeps of every weight, besides the number of steps."""


def asked_for() -> bool:
    """Whether accelerate's settings say DeepSpeed, and there are processes to share anything among."""
    asked = os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() in ("1", "true", "yes")
    return asked and processes.count() > 1


def check(accelerator: Accelerator) -> None:
    """Raises TrainingError for settings that are not trained with here, MissingExtra without DeepSpeed."""
    if importlib.util.find_spec("deepspeed") is None:
        raise MissingExtra("accelerate is set to DeepSpeed", do="pip install tunesmith[deepspeed]")
    settings = _settings()
    if settings["stage"] not in (1, 2):
        raise TrainingError(
            f"accelerate is set to ZeRO {settings['stage']}",
            expected="zero_stage: 1 or 2",
            do="launch with examples/accelerate/fsdp2.yaml, which shards what ZeRO 3 shards",
        )
    if odd := [name for name, value in settings.items() if "offload" in name and _device(value) not in ("none", None)]:
        raise TrainingError(
            f"accelerate is set to {', '.join(odd)}",
            expected="optimizer state and weights on the device",
            do="leave it out; where memory is short: adapter.kind=lora, engine.gradient_checkpointing=true",
        )
    if accelerator.scaler is not None:
        raise TrainingError(
            "DeepSpeed's pieces are trained without a loss scale",
            found="engine.mixed_precision=fp16",
            do="set engine.mixed_precision=bf16 or no",
        )


class ZeroAdamW(torch.optim.Optimizer):
    """AdamW over the model's weights, as far as the loop and checkpoints see: its step and state are DeepSpeed's.

    The state dict is that of torch's AdamW, with whole tensors: a run goes on with any number of processes.
    """

    def __init__(
        self, model: nn.Module, adamw: torch.optim.AdamW, max_norm: float, autocast: Callable[[], Any]
    ) -> None:
        """max_norm: to clip gradients to, 0 for never; autocast: the context to compute losses in."""
        super().__init__([{**group, "params": [*group["params"]]} for group in adamw.param_groups], adamw.defaults)
        # DeepSpeed puts its pieces of the weights into these, and takes groups without weights off the list
        self._owned = [*adamw.param_groups]
        self._adamw = adamw
        self.engine = _engine(_Learner(model, autocast), adamw, max_norm)
        self._begin()

    def norm(self) -> float:
        """The gradient's norm, over all processes; infinite where it is not finite. After a backward pass."""
        return float(self.engine.optimizer.scaled_global_norm())

    def step(self, closure: Any = None) -> Any:
        """Clip and step, and give every process the new weights."""
        for group, own in zip(self.param_groups, self._owned, strict=True):
            own["lr"] = group["lr"]
        self.engine.step()

    def state_dict(self) -> dict[str, Any]:
        """As of AdamW. To be called by all processes."""
        from deepspeed.utils import safe_get_full_optimizer_state

        slots = {
            index: {name: safe_get_full_optimizer_state(parameter, name) for name in MOMENTS}
            | {"step": self._adamw.state[piece]["step"].clone()}
            for index, (piece, parameter) in enumerate(self._learned())
        }
        return {**super().state_dict(), "state": slots}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what AdamW's `state_dict` gave, and the model's weights as they are now."""
        from deepspeed.utils import safe_set_full_optimizer_state

        super().load_state_dict({**state_dict, "state": {}})
        self.engine.optimizer.refresh_fp32_params()
        for index, (piece, parameter) in enumerate(self._learned()):
            if slot := state_dict["state"].get(index):  # none, where a weight never had a gradient
                self._adamw.state[piece]["step"].copy_(slot["step"])
                for name in MOMENTS:
                    safe_set_full_optimizer_state(parameter, slot[name].to(parameter.device), name)

    def _begin(self) -> None:
        """A state of zeros. DeepSpeed would find the state of the first group only: it looks after that one's step."""
        from deepspeed.utils import lazy_init_hp_params_optimizer_state

        sharer = self.engine.optimizer
        for piece, parameters in zip(sharer.single_partition_of_fp32_groups, sharer.bit16_groups, strict=True):
            moments = {name: torch.zeros_like(piece) for name in MOMENTS}
            self._adamw.state[piece] = {"step": torch.zeros((), device=piece.device), **moments}
            lazy_init_hp_params_optimizer_state(parameters, piece, self._adamw.state)

    def _learned(self) -> list[tuple[torch.Tensor, nn.Parameter]]:
        """DeepSpeed's piece of a group with each of the group's weights, in the order of the state dict."""
        groups = zip(self.param_groups, self._owned, strict=True)
        return [(own["params"][0], parameter) for group, own in groups for parameter in group["params"]]


def is_engine(model: nn.Module) -> bool:
    """Whether this is a model within DeepSpeed's engine."""
    return isinstance(getattr(model, "module", None), _Learner)


def release(model: nn.Module) -> None:
    """Where training ends: take DeepSpeed's hooks off the weights, and its pieces out of memory."""
    if is_engine(model):
        model.destroy()  # type: ignore[operator]


def backward(engine: Any, loss: Any, batch: Any, scale: float, last: bool) -> float:
    """Add the gradient of `scale` times a batch's loss; gives the loss. last: of the step, by all processes."""
    engine.set_gradient_accumulation_boundary(last)
    total = engine(loss, batch)
    engine.backward(scale * total, scale_wrt_gas=False)
    return float(total.item())


class _Learner(nn.Module):
    """Model and loss in one: DeepSpeed's backward pass begins at what its engine gives, and losses run the head."""

    def __init__(self, model: nn.Module, autocast: Callable[[], Any]) -> None:
        super().__init__()
        self.model, self.autocast = model, autocast

    def forward(self, loss: Any, batch: Any) -> torch.Tensor:
        with self.autocast():  # the engine turns off what is on outside of it
            total: torch.Tensor = loss.total(self.model, batch)
        return total


def _engine(model: nn.Module, adamw: torch.optim.AdamW, max_norm: float) -> Any:
    if processes.on_cpu():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed

    config = {
        "train_micro_batch_size_per_gpu": 1,  # only DeepSpeed's own statistics want to know
        "gradient_accumulation_steps": 1,
        "gradient_clipping": max_norm,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": _settings(),
    }
    engine, *_ = deepspeed.initialize(model=model, optimizer=adamw, config=config)
    return engine


def _settings() -> dict[str, Any]:
    """DeepSpeed's `zero_optimization`, from accelerate's settings or the file they name."""
    settings = DeepSpeedPlugin().deepspeed_config["zero_optimization"]
    return {name: value for name, value in settings.items() if value != "auto"}


def _device(setting: Any) -> str | None:
    return setting.get("device") if isinstance(setting, dict) else None
