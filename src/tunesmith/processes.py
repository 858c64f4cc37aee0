"""Which of several processes this is, on which device it runs, and its share of work. Accelerate does the rest."""

from __future__ import annotations

import atexit
import ctypes
import gc
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch


Item = TypeVar("Item")
Result = TypeVar("Result")
WITHOUT_DEEPSPEED = {"ACCELERATE_USE_DEEPSPEED": "false"}
"""Environment in which to create accelerate's objects: its own DeepSpeed support would step in the backward pass."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""
_runs_one_command: ContextVar[bool] = ContextVar("runs_one_command", default=False)
"""Whether what this process loads stays until it ends."""
_shares_work: ContextVar[bool] = ContextVar("shares_work", default=False)
"""Whether all processes do the same at this moment, so that they can divide it."""


def run_one_command() -> None:
    """Note that this process ends after one command: what it loads stays, and need not be collected at the end."""
    _runs_one_command.set(True)
    atexit.register(gc.freeze)


@contextmanager
def loading() -> Iterator[None]:
    """Within this, Python's garbage collector is paused: libraries and models are a million objects, none garbage.

    In a process that runs one command, later collections leave them out, too.
    """
    with without_collection():
        try:
            yield
        finally:
            if _runs_one_command.get():
                gc.freeze()


@contextmanager
def without_collection() -> Iterator[None]:
    """Within this, Python's garbage collector is paused: for many objects that refer to each other in no circle."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def without(*packages: str) -> Iterator[None]:
    """Within this, in a process that runs one command, packages that it has not imported count as not installed.

    For the import of a library that would import them for uses of its own that this process has none of.
    """
    hidden = [name for name in packages if name not in sys.modules] if _runs_one_command.get() else []
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: importing it is an ImportError
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)


@contextmanager
def keeping_freed_memory() -> Iterator[None]:
    """Within this, glibc keeps up to 2 GB that is freed for what is allocated next, up to 32 MB at a time.

    Otherwise it returns the memory of every training step to the system, which clears each page before it gives it out
    again: 2 to 5% of a step. Elsewhere than with glibc, nothing changes.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, 32 * 2**20)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    except (OSError, AttributeError):
        yield
        return
    try:
        yield
    finally:
        libc.mallopt(M_TRIM_THRESHOLD, 64 * 2**20)
        libc.malloc_trim(0)


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process, told apart from later ones of the same number by its start."""

    host: str
    pid: int
    started: float
    """Seconds since 1970."""

    @classmethod
    def current(cls) -> ProcessIdentity:
        """Return this process."""
        import psutil

        return cls(socket.gethostname(), os.getpid(), psutil.Process().create_time())

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def has_ended(self) -> bool:
        """Return whether the process is known to have ended; nothing is known of other hosts."""
        import psutil

        if self.host != socket.gethostname():
            return False
        try:
            process = psutil.Process(self.pid)
            return bool(abs(process.create_time() - self.started) > 2 or process.status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return True


def is_main() -> bool:
    """Return whether this is the first of the processes that a launcher started; only that one writes."""
    return rank() == 0


def rank() -> int:
    """Return the number of this process among those that a launcher started, from 0."""
    return int(os.environ.get("RANK", "0"))


def count() -> int:
    """Return how many processes a launcher started; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def on_cpu() -> bool:
    """Return whether to run on the CPU: without an accelerator, or where accelerate's --cpu asks for it."""
    import torch

    requested = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    return requested or not torch.accelerator.is_available()


def device() -> torch.device:
    """Return the device of this process's models. Joins the other processes, if there are any."""
    from accelerate import PartialState
    from accelerate.utils import patch_environment

    with patch_environment(**WITHOUT_DEEPSPEED):
        chosen: torch.device = PartialState(cpu=on_cpu()).device
    return chosen


def agree(text: str) -> str:
    """Return the text of the first process, in all of them."""
    if count() == 1:
        return text
    from accelerate.utils import broadcast_object_list

    device()
    (shared,) = broadcast_object_list([text])
    return str(shared)


def wait() -> None:
    """Wait until all processes are here."""
    if count() > 1:
        from accelerate import PartialState

        device()
        PartialState().wait_for_everyone()


def leave() -> None:
    """Leave the other processes, which must do so too: from here on each works alone."""
    if count() > 1:
        from accelerate import PartialState

        PartialState().destroy_process_group()


@contextmanager
def sharing(shares: bool = True) -> Iterator[None]:
    """Within this, all processes do the same, and `share` divides work among them; with False, each works alone."""
    token = _shares_work.set(shares)
    try:
        yield
    finally:
        _shares_work.reset(token)


def share(items: Sequence[Item], work: Callable[[Sequence[Item]], Sequence[Result]]) -> list[Result]:
    """Return `work(items)`, a result for each item.

    Within `sharing`, each of N processes works on every N-th item, and gathers the results of the others: all return
    the same.
    """
    if count() == 1 or not _shares_work.get():
        return list(work(items))
    from accelerate.utils import gather_object

    device()
    parts = gather_object([list(work(items[rank() :: count()]))])
    return [parts[place % count()][place // count()] for place in range(len(items))]
