"""Trainings side by side: each a process with its share of the cores, or a GPU of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import IO

import psutil

from tunesmith.console import relay, say, warn
from tunesmith.errors import Interrupted, RecipeError
from tunesmith.hardware import SIDE_BY_SIDE
from tunesmith.pipeline.fitting import interruption, subprocess as trainings
from tunesmith.recipe import Recipe

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
"""Environment variables that limit the threads of torch, NumPy and tokenizers."""
GPU_VARIABLE = "CUDA_VISIBLE_DEVICES"
SECONDS_BETWEEN_LOOKS = 0.1
ENOUGH_MEMORY = 2 * 2**30
"""Free memory for each training below which a warning is due: libraries and a small model take half of it."""


@dataclass(frozen=True, slots=True)
class PlannedTraining:
    """A recipe to train into a folder. name: what its lines begin with."""

    name: str
    recipe: Recipe
    folder: Path


@dataclass(frozen=True, slots=True)
class MachineShares:
    """The parts of this machine that trainings side by side have, one each."""

    threads: int
    gpus: tuple[str, ...] = ()
    """As CUDA names them, one for each training at a time; none without GPUs."""

    @classmethod
    def of(cls, parallel: int) -> MachineShares:
        """Divide the machine among so many trainings; OMP_NUM_THREADS limits the threads of each."""
        cores, limit = _cores(), os.environ.get("OMP_NUM_THREADS", "")
        threads = max(1, cores // parallel)
        free = psutil.virtual_memory().available
        if parallel > 1 and free / parallel < ENOUGH_MEMORY:
            warn(
                f"{parallel} trainings share {free / 2**30:.1f} GB of free memory; "
                "if one is killed for lack of it, give a lower --parallel"
            )
        return cls(min(threads, int(limit)) if limit.isdigit() and int(limit) else threads, _gpus()[:parallel])

    def environment(self, place: int, parallel: int) -> dict[str, str]:
        """Return the environment of the training at one of the places, from 0."""
        shared = os.environ | dict.fromkeys(THREAD_VARIABLES, str(self.threads)) | {SIDE_BY_SIDE: str(parallel)}
        return shared | ({GPU_VARIABLE: self.gpus[place]} if self.gpus else {})


@dataclass(frozen=True)
class _Training:
    """A training under way."""

    planned: PlannedTraining
    process: subprocess.Popen[bytes]
    reader: Thread
    place: int

    @classmethod
    def start(cls, planned: PlannedTraining, place: int, environment: dict[str, str]) -> _Training:
        command = trainings.command(planned.recipe, planned.folder)
        # a process group of its own: Ctrl-C reaches this process alone, which passes it on once
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, process_group=0)  # noqa: S603
        assert process.stderr is not None
        reader = Thread(target=_relay, args=(process.stderr, planned.name), daemon=True)
        reader.start()
        return cls(planned, process, reader, place)

    def wait(self) -> int:
        """Return the exit code, after the last line was shown."""
        code = self.process.wait()
        self.reader.join()
        return code


def check(parallel: int) -> None:
    """Raise RecipeError where the machine does not suffice for so many trainings at a time."""
    if parallel == 1:
        return
    gpus, cores = _gpus(), _cores()
    most = len(gpus) or cores
    if not 1 <= parallel <= most:
        raise RecipeError(
            f"cannot train {parallel} methods side by side",
            expected=f"1 to {most}: {'a GPU' if gpus else 'a core'} for each",
            found=f"{len(gpus)} GPUs ({GPU_VARIABLE})" if gpus else f"{cores} cores",
            do=f"give --parallel {most} or less",
        )


def train(planned: Sequence[PlannedTraining], parallel: int) -> None:
    """Train all, so many at a time. Where one fails or a signal comes, the others stop too, with a checkpoint.

    Raises the error of the first one to fail, as one after the other would; or Interrupted.
    """
    shares = MachineShares.of(parallel)
    part = "a GPU" if shares.gpus else f"{shares.threads} thread{'s' if shares.threads > 1 else ''}"
    say(f"training {len(planned)} runs, {parallel} side by side with {part} each; times are measured so")
    waiting, running = deque(planned), list[_Training]()
    failed: _Training | None = None
    with interruption.watched() as stop_request:
        try:
            while running or waiting:
                stops = failed is not None or stop_request.signal is not None
                while waiting and len(running) < parallel and not stops:
                    place = min(set(range(parallel)) - {training.place for training in running})
                    environment = shares.environment(place, parallel)
                    running.append(_Training.start(waiting.popleft(), place, environment))
                if stops:
                    _stop(running, stop_request.signal or signal.SIGINT)
                    break
                time.sleep(SECONDS_BETWEEN_LOOKS)
                for training in [training for training in running if training.process.poll() is not None]:
                    running.remove(training)
                    if training.wait() and failed is None:
                        failed = training
        except BaseException:  # a second Ctrl-C
            _stop(running, signal.SIGTERM)
            raise
    if stop_request.signal is not None:
        do = "resume the comparison: what was stopped goes on from its checkpoint"
        raise Interrupted("the trainings were stopped", stop_request.signal, do=do)
    if failed is not None:
        trainings.check_end(failed.planned.recipe, failed.planned.folder, failed.process.returncode)


def _stop(running: Sequence[_Training], number: int) -> None:
    """Send a signal to each training, and wait until all have ended."""
    for training in running:
        if training.process.poll() is None:
            training.process.send_signal(number)
    for training in running:
        training.wait()


def _relay(lines: IO[bytes], name: str) -> None:
    """Repeat the lines of a training, with its name."""
    with lines:
        for line in lines:
            relay(line.decode("utf-8", "replace").rstrip("\n"), name)


def _cores() -> int:
    """Return how many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus() -> tuple[str, ...]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    if not torch.cuda.is_available():
        return ()
    named = tuple(filter(None, os.environ.get(GPU_VARIABLE, "").split(",")))
    return named or tuple(map(str, range(torch.cuda.device_count())))
