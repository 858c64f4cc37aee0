"""Which of several training processes this is, and on which device it runs. Accelerate does the rest."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


WITHOUT_DEEPSPEED = {"ACCELERATE_USE_DEEPSPEED": "false"}
"""Environment to make accelerate's objects in: its own way with DeepSpeed would step in the backward pass."""


def is_main() -> bool:
    """False for all but the first of the processes that a launcher started; only that one writes."""
    return os.environ.get("RANK", "0") == "0"


def count() -> int:
    """How many processes a launcher started; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def on_cpu() -> bool:
    """Whether to train on the CPU: where nothing else is there, or where accelerate's --cpu asks for it."""
    import torch

    asked = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    return asked or not torch.accelerator.is_available()


def device() -> torch.device:
    """Where models of this process run. Joins the other processes, if there are any."""
    from accelerate import PartialState
    from accelerate.utils import patch_environment

    with patch_environment(**WITHOUT_DEEPSPEED):
        found: torch.device = PartialState(cpu=on_cpu()).device
    return found


def agree(text: str) -> str:
    """The first process's text, in all of them."""
    if count() == 1:
        return text
    from accelerate.utils import broadcast_object_list

    device()
    (shared,) = broadcast_object_list([text])
    return str(shared)
