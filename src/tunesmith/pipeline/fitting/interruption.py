"""Ctrl-C and SIGTERM in training: the first signal stops after the step, with a checkpoint, the second at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from tunesmith.console import say

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class StopRequest:
    """The signal that asked training to stop, if there was one."""

    signal: int | None = None


@contextmanager
def watched() -> Iterator[StopRequest]:
    """Record the first signal instead of letting it end the process; a second one ends it."""
    stop_request = StopRequest()
    if threading.current_thread() is not threading.main_thread():  # signals reach the main thread only
        yield stop_request
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, frame: FrameType | None) -> None:
        stop_request.signal = number
        say("stopping after this step, with a checkpoint; press Ctrl-C again to stop at once")
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield stop_request
    finally:
        restore()
