"""The launch configurations in examples/accelerate are read by accelerate itself; what they cannot do is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType
from torch import nn

from tunesmith.errors import TrainingError
from tunesmith.recipe import Train
from tunesmith.training import loop

FOLDER = Path(__file__).parents[2] / "examples" / "accelerate"


KINDS = {"ddp": DistributedType.MULTI_GPU, "fsdp2": DistributedType.FSDP, "cpu": DistributedType.NO}


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
    loop.begin(model, Train(), loop.Course(1, None, "", False, None), accelerator)


@pytest.mark.parametrize("kind", [DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM])
def test_engines_that_step_themselves_are_refused(kind: DistributedType) -> None:
    with pytest.raises(TrainingError, match=rf"{kind.name}[\s\S]*examples/accelerate/fsdp2\.yaml"):
        begin(nn.Linear(2, 2), kind)


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
