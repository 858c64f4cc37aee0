"""The launch configurations in examples/accelerate are read by accelerate itself; what they cannot do is refused."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, patch_environment
from torch import nn

from tunesmith import processes
from tunesmith.errors import MissingExtra, TrainingError
from tunesmith.recipe import Train
from tunesmith.training import loop

FOLDER = Path(__file__).parents[2] / "examples" / "accelerate"


KINDS = {
    "ddp": DistributedType.MULTI_GPU,
    "fsdp2": DistributedType.FSDP,
    "deepspeed": DistributedType.DEEPSPEED,
    "cpu": DistributedType.NO,
}


@pytest.mark.parametrize(("name", "kind"), KINDS.items())
def test_accelerate_reads_them(name: str, kind: DistributedType) -> None:
    """Unknown keys are errors there."""
    config: Any = load_config_from_file(str(FOLDER / f"{name}.yaml"))
    assert config.distributed_type == kind
    assert config.use_cpu is (name == "cpu")


def test_every_configuration_is_tested() -> None:
    assert sorted(path.stem for path in FOLDER.iterdir()) == sorted(KINDS)


def test_the_cpu_configuration_launches(tmp_path: Path) -> None:
    script = tmp_path / "show.py"
    script.write_text("from tunesmith import processes; print(processes.count(), processes.on_cpu())")
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(FOLDER / "cpu.yaml")]
    done = subprocess.run([*command, str(script)], capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["1", "True"]


def begin(model: nn.Module, kind: DistributedType = DistributedType.NO) -> None:
    accelerator: Any = SimpleNamespace(distributed_type=kind, scaler=None)
    loop.begin(model, Train(), loop.TrainingPlan(1, None, "", False, None), accelerator)


def test_megatron_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"MEGATRON_LM[\s\S]*examples/accelerate/fsdp2\.yaml"):
        begin(nn.Linear(2, 2), DistributedType.MEGATRON_LM)


@pytest.fixture
def zero(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """What `accelerate launch` with deepspeed.yaml tells two processes, with or without DeepSpeed installed."""
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name == "deepspeed" else found(name))
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("WORLD_SIZE", "2")
    return monkeypatch


@pytest.mark.parametrize(
    ("settings", "dtype", "found"),
    [
        ({"ZERO_STAGE": "3"}, torch.float32, r"ZeRO 3[\s\S]*fsdp2\.yaml"),
        ({"ZERO_STAGE": "2", "OFFLOAD_OPTIMIZER_DEVICE": "cpu"}, torch.float32, "offload_optimizer"),
        ({"ZERO_STAGE": "2"}, torch.bfloat16, r"torch.bfloat16[\s\S]*model.dtype=float32"),
    ],
)
def test_what_zero_cannot_do_is_refused(
    settings: dict[str, str], dtype: torch.dtype, found: str, zero: pytest.MonkeyPatch
) -> None:
    for name, value in settings.items():
        zero.setenv(f"ACCELERATE_DEEPSPEED_{name}", value)
    with pytest.raises(TrainingError, match=found):
        begin(nn.Linear(2, 2, dtype=dtype))


def test_zero_without_deepspeed_says_what_to_install(zero: pytest.MonkeyPatch) -> None:
    zero.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"tunesmith\[deepspeed\]"):
        begin(nn.Linear(2, 2))


def test_accelerate_leaves_deepspeed_to_the_loop(zero: pytest.MonkeyPatch) -> None:
    """Its own objects are made without: they would step within the backward pass."""
    AcceleratorState._reset_state(reset_partial_state=True)
    with patch_environment(**processes.WITHOUT_DEEPSPEED):
        assert Accelerator(cpu=False).distributed_type == DistributedType.NO
    assert os.environ["ACCELERATE_USE_DEEPSPEED"] == "true"


@pytest.mark.parametrize(
    ("settings", "dtype", "found"),
    [
        ({}, torch.float32, "FSDP 1"),
        ({"FSDP_VERSION": "2", "FSDP_OFFLOAD_PARAMS": "true"}, torch.float32, "fsdp_offload_params"),
        ({"FSDP_VERSION": "2"}, torch.bfloat16, r"torch.bfloat16[\s\S]*model.dtype=float32"),
    ],
)
def test_what_shards_cannot_do_is_refused(
    settings: dict[str, str], dtype: torch.dtype, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"ACCELERATE_USE_FSDP": "true", **settings}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TrainingError, match=found):
        begin(nn.Linear(2, 2, dtype=dtype))


def test_accelerate_tells_its_processes_what_is_read_here(tmp_path: Path) -> None:
    """The variables that `accelerate launch` sets for fsdp2.yaml."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    words = ["--config_file", str(FOLDER / "fsdp2.yaml"), "train.py"]
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    told = prepare_multi_gpu_env(args)
    names = ("ACCELERATE_USE_FSDP", "FSDP_VERSION", "FSDP_RESHARD_AFTER_FORWARD", "FSDP_OFFLOAD_PARAMS")
    assert [told[name] for name in names] == ["true", "2", "true", "false"]


def test_accelerate_tells_its_processes_the_stage() -> None:
    """The variables that `accelerate launch` sets for deepspeed.yaml."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_deepspeed_cmd_env

    words = ["--config_file", str(FOLDER / "deepspeed.yaml"), "train.py"]
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    args.deepspeed_fields_from_accelerate_config = ""
    args.main_process_port = 0
    _, told = prepare_deepspeed_cmd_env(args)
    assert (told["ACCELERATE_USE_DEEPSPEED"], told["ACCELERATE_DEEPSPEED_ZERO_STAGE"]) == ("true", "2")
