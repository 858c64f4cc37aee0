"""The launch configurations in examples/accelerate are read by accelerate itself; what they cannot do is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType
from torch import nn

from tunesmith.errors import TrainingError
from tunesmith.recipe import Train
from tunesmith.training import loop

FOLDER = Path(__file__).parents[2] / "examples" / "accelerate"


@pytest.mark.parametrize(("name", "kind"), [("ddp", DistributedType.MULTI_GPU), ("cpu", DistributedType.NO)])
def test_accelerate_reads_them(name: str, kind: DistributedType) -> None:
    """Unknown keys are errors there."""
    config: Any = load_config_from_file(str(FOLDER / f"{name}.yaml"))
    assert config.distributed_type == kind
    assert config.use_cpu is (name == "cpu")


def test_every_configuration_is_tested() -> None:
    assert sorted(path.stem for path in FOLDER.iterdir()) == ["cpu", "ddp"]


def test_the_cpu_configuration_launches(tmp_path: Path) -> None:
    script = tmp_path / "show.py"
    script.write_text("from tunesmith import processes; print(processes.count(), processes.on_cpu())")
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(FOLDER / "cpu.yaml")]
    done = subprocess.run([*command, str(script)], capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["1", "True"]


@pytest.mark.parametrize("kind", [DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM])
def test_sharded_training_is_refused(kind: DistributedType) -> None:
    accelerator: Any = SimpleNamespace(distributed_type=kind, scaler=None)
    with pytest.raises(TrainingError, match=rf"{kind.name}[\s\S]*examples/accelerate/ddp\.yaml"):
        loop.begin(nn.Linear(2, 2), Train(), loop.Course(1, None, "", False, None), accelerator)
