"""Blocks of work in processes side by side. The only module that imports joblib."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tunesmith import hardware

IDLE_SECONDS = 2
"""After which processes without work end."""
Result = TypeVar("Result")


def each(function: Callable[..., Result], blocks: Iterable[tuple[object, ...]], *, many: bool) -> Iterator[Result]:
    """Yield what a function of a module returns for each block of arguments, in their order.

    many: whether there are so many blocks that processes, which take a second to start, are worth it; there are as many
    as this process may use threads.
    """
    threads = hardware.threads()
    if not many or threads == 1:
        yield from (function(*block) for block in blocks)
        return
    from joblib import Parallel, delayed

    parallel = Parallel(n_jobs=threads, return_as="generator", idle_worker_timeout=IDLE_SECONDS)
    yield from parallel(delayed(function)(*block) for block in blocks)
