"""Processes that start at once: forks of a server that has imported torch, transformers and peft, but not tunesmith.

For tests that need processes of their own, such as two that train one model. What `python -m tunesmith` and `torchrun`
add is proved by the few tests that start them.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import connection
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "datasets",
        "nltk",
        "peft",
        "pydantic.main",
        "scipy.stats",
        "transformers.models.bert.modeling_bert",
        "transformers.models.gpt2.modeling_gpt2",
        "transformers.models.llama.modeling_llama",
    ]
)


def command(*words: str) -> None:
    """`python -m tunesmith` with these words."""
    from tunesmith import cli

    sys.exit(cli.main(words))


def script(code: str, folder: Path) -> None:
    """`python -W ignore -c` in this folder: until the code imports tunesmith, nothing has."""
    warnings.simplefilter("ignore")
    os.chdir(folder)
    exec(code, {"__name__": "__main__"})


def start(
    output: Path, work: Callable[..., object], *args: object, environment: Mapping[str, str] | None = None
) -> multiprocessing.process.BaseProcess:
    """Begin `work(*args)` in a fork, in this folder. Its stdout and stderr are appended to `output`.out and .err."""
    process = CONTEXT.Process(target=_work, args=(output, dict(environment or {}), work, args))
    process.start()
    return process


def run(work: Callable[..., object], *args: object, environments: Sequence[Mapping[str, str]] = ({},)) -> str:
    """Return what `work(*args)` prints in forks, one after the other for each environment; all have to succeed."""
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder) / f"process-{number}" for number in range(len(environments))]
        running = {
            start(output, work, *args, environment=environment): output
            for output, environment in zip(outputs, environments, strict=True)
        }
        while running:
            connection.wait([process.sentinel for process in running])
            for process in [process for process in running if process.exitcode is not None]:
                output = running.pop(process)
                if process.exitcode:
                    for other in running:  # they may wait for the one that failed
                        other.kill()
                    raise AssertionError(output.with_suffix(".err").read_text()[-9000:])
        return "".join(output.with_suffix(".out").read_text() for output in outputs)


def ranks(processes: int, **more: str) -> list[dict[str, str]]:
    """Return the environments in which `torchrun --standalone --nproc_per_node` starts its processes."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    world = {"WORLD_SIZE": f"{processes}", "LOCAL_WORLD_SIZE": f"{processes}", "OMP_NUM_THREADS": "1"}
    world |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}", **more}
    return [world | {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}"} for rank in range(processes)]


def _work(output: Path, environment: dict[str, str], work: Callable[..., object], args: tuple[object, ...]) -> None:
    for number, suffix in ((1, ".out"), (2, ".err")):
        os.dup2(os.open(output.with_suffix(suffix), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), number)
    os.environ.update(environment)
    import torch

    torch.set_num_threads(1)
    work(*args)
