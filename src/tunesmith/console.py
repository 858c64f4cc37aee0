"""What people see while tunesmith works: messages and progress on stderr; results go to stdout, by the command line."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol, TypeVar

from tunesmith import processes

Item = TypeVar("Item")
PLAIN_EVERY = 10.0
"""Seconds between progress lines where stderr is not a terminal."""
_silent = ContextVar("silent", default=False)


class Meter(Protocol):
    """A running progress display."""

    def __call__(self, done: int, text: str = "") -> None:
        """Show that `done` units of work are finished, with a few figures beside them."""
        ...


def say(text: str) -> None:
    """Tell the user something worth knowing; of several processes the first one speaks."""
    if processes.is_main() and not _silent.get():
        print(text, file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Tell the user something that should not be overlooked."""
    say(f"warning: {text}")


@contextmanager
def silence() -> Iterator[None]:
    """While open, this thread shows neither messages nor progress: a server's log is not theirs."""
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)


def track(items: Iterable[Item], title: str, total: int | None = None) -> Iterator[Item]:
    """Go through `items` with a progress display."""
    size = len(items) if total is None and isinstance(items, Sized) else total or 0
    with meter(title, size) as show:
        for done, item in enumerate(items, 1):
            yield item
            show(done)


@contextmanager
def meter(title: str, total: int) -> Iterator[Meter]:
    """A progress bar on a terminal; elsewhere a plain line every few seconds."""
    if sys.stderr.isatty() and not _silent.get():
        with _bar(title, total) as show:
            yield show
    else:
        yield _lines(title, total)


@contextmanager
def _bar(title: str, total: int) -> Iterator[Meter]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[text]}"), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total, text="")
        yield lambda done, text="": bar.update(task, completed=done, text=text)


def _lines(title: str, total: int) -> Meter:
    start = shown = time.monotonic()

    def show(done: int, text: str = "") -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown >= PLAIN_EVERY:
            shown = now
            left = (now - start) / done * (total - done) if done else 0.0
            say(f"{title}: {done}/{total} {text} ({left:.0f} s left)".replace("  ", " "))

    return show
