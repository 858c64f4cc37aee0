"""The queue of a model: requests wait, run in batches, and finish in the order in which they came.

One thread runs the model. It takes the oldest requests, up to a token budget, shortest first; if several come together,
it waits a few milliseconds for each further one. Where answers are generated, later requests join the batch between two
tokens. Cancelled and expired requests leave the queue before.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tunesmith.console import silence
from tunesmith.serving.refusal import DeadlineExceeded, QueueClosed, QueueFull

Result = TypeVar("Result")
SMOOTHING = 0.2
"""Weight of the newest batch in the running mean of the seconds an input takes."""
MAX_WAITS = 8
"""The first request of a batch waits at most this many times `Limits.wait` for others."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """The moment by which a request must have been answered."""

    at: float = math.inf
    """On `clock`, in seconds."""
    clock: Callable[[], float] = time.monotonic

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Return the deadline of a request that comes now."""
        return cls(time.monotonic() + seconds)

    @property
    def passed(self) -> bool:
        """Whether it is too late."""
        return self.clock() >= self.at

    async def enforce(self, work: Awaitable[Result]) -> Result:
        """Await some work. When the deadline passes first, cancels it and raises DeadlineExceeded."""
        try:
            async with asyncio.timeout(max(0.0, self.at - self.clock())):
                return await work
        except TimeoutError:
            raise DeadlineExceeded from None


@dataclass(eq=False)
class QueuedRequest:
    """A request on its way through the model.

    Its events are written by the model's thread and read in an event loop. The last one is the result, or an exception.
    """

    content: Any
    inputs: int = 1
    tokens: int = 1
    """An estimate, for the budget and the order of a batch."""
    deadline: Deadline = field(default_factory=Deadline)
    created: float = field(default_factory=time.monotonic)
    cancelled: bool = False
    done: bool = False

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[tuple[Any, bool]] = asyncio.Queue()

    def add(self, piece: Any) -> bool:
        """Add a piece of the result; return whether more is wanted."""
        if not self.done and not self.cancelled:
            self._send(piece, False)
        return not self.cancelled and not self.deadline.passed

    def finish(self, result: Any) -> None:
        """Set the result, or the exception that came instead. Only the first call counts."""
        if not self.done:
            self.done = True
            self._send(result, True)

    async def event(self) -> tuple[Any, bool]:
        """Return the next piece, and whether it is the last. Raises what the model's thread raised, and
        DeadlineExceeded."""
        item, last = await self.deadline.enforce(self._events.get())
        if isinstance(item, BaseException):
            raise item
        return item, last

    async def result(self) -> Any:
        """Return the last event."""
        while True:
            item, last = await self.event()
            if last:
                return item

    def _send(self, item: Any, last: bool) -> None:
        try:
            self._loop.call_soon_threadsafe(self._events.put_nowait, (item, last))
        except RuntimeError:  # the event loop is closed: nobody is waiting any more
            self.cancelled = True


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one queue."""

    size: int
    """Inputs that may wait."""
    tokens: int
    """Tokens of a batch."""
    rows: int
    """Inputs of a batch."""
    wait: float
    """Seconds to wait for one more request, unless a request is alone and the one before it was."""


Join = Callable[[int], list[QueuedRequest]]
"""Receives how many inputs have room beside those that run; takes them, or fewer, out of the queue."""


class Queue:
    """The requests to one model, and the thread that runs it."""

    def __init__(
        self,
        name: str,
        run: Callable[[Sequence[QueuedRequest], Join], None],
        limits: Limits,
        on_batch: Callable[[int, float], None] = lambda inputs, seconds: None,
    ) -> None:
        """run: finishes every request of a batch, and those that it lets join.

        on_batch: called with a number of inputs that have been finished, and the seconds since the last such call.
        """
        self.name, self.limits = name, limits
        self._run, self._on_batch = run, on_batch
        self._waiting: deque[QueuedRequest] = deque()
        self._running: list[QueuedRequest] = []
        self._changed = threading.Condition()
        self._open = True
        self._shared_batch = False
        self._seconds_per_input = 0.05
        self._since = 0.0
        self._thread = threading.Thread(target=self._work, name=f"model {name}", daemon=True)
        self._thread.start()

    def submit(self, request: QueuedRequest) -> None:
        """Add a request. Raises QueueFull or QueueClosed."""
        with self._changed:
            if not self._open:
                raise QueueClosed
            if self._waiting_inputs() + request.inputs > self.limits.size:
                raise QueueFull(self._retry_after())
            self._waiting.append(request)
            self._changed.notify()

    async def compute(self, request: QueuedRequest) -> Any:
        """Submit a request and return its result; when the caller is cancelled, the request is too."""
        self.submit(request)
        try:
            return await request.result()
        finally:
            self.cancel(request)

    def cancel(self, request: QueuedRequest) -> None:
        """Drop a request: its place is free at once, or at the next token where it is being computed."""
        with self._changed:
            request.cancelled = True
            if request in self._waiting:
                self._waiting.remove(request)
                self._changed.notify()
        request.finish(QueueClosed())

    @property
    def waiting(self) -> int:
        """Inputs that wait."""
        with self._changed:
            return self._waiting_inputs()

    @property
    def retry_after(self) -> int | None:
        """Seconds after which the queue probably has room; None where it has room now."""
        with self._changed:
            return self._retry_after() if self._waiting_inputs() >= self.limits.size else None

    @property
    def running(self) -> int:
        """Inputs that are being computed and still wanted."""
        with self._changed:
            return sum(request.inputs for request in self._running if not request.done)

    def close(self) -> None:
        """Accept nothing more; what waits is still computed, then the thread ends."""
        with self._changed:
            self._open = False
            self._changed.notify()

    def join(self) -> None:
        """Wait until the thread of a closed queue has ended."""
        self._thread.join()

    def _waiting_inputs(self) -> int:
        return sum(request.inputs for request in self._waiting)

    def _retry_after(self) -> int:
        return max(1, math.ceil(self._waiting_inputs() * self._seconds_per_input))

    def _work(self) -> None:
        while batch := self._take():
            self._since = time.monotonic()
            problem: Exception = RuntimeError("the model gave no result")
            try:
                with silence():
                    self._run(batch, self._join)
            except Exception as error:  # whatever a model raises concerns this batch only
                problem = error
            for request in self._running:
                request.finish(problem)
            self._count_finished()

    def _join(self, inputs: int) -> list[QueuedRequest]:
        self._count_finished()
        with self._changed:
            self._drop_late()
            joined = self._fitting(inputs)
            self._start(joined)
            return joined

    def _count_finished(self) -> None:
        with self._changed:
            inputs = sum(request.inputs for request in self._running if request.done)
            if not inputs:
                return
            self._running = [request for request in self._running if not request.done]
            seconds, self._since = time.monotonic() - self._since, time.monotonic()
            self._seconds_per_input += SMOOTHING * (seconds / inputs - self._seconds_per_input)
        self._on_batch(inputs, seconds)

    def _take(self) -> list[QueuedRequest]:
        """Return the next batch; an empty one when the queue is closed and everything is computed."""
        with self._changed:
            while True:
                self._drop_late()
                if not self._waiting:
                    if not self._open:
                        return []
                    self._changed.wait()
                    continue
                batch = self._fitting(self.limits.rows) or [self._waiting[0]]
                seconds = self._gather_until() - time.monotonic()
                if seconds <= 0 or not self._open or self._is_full(batch):
                    self._start(batch)
                    self._shared_batch = len(batch) > 1
                    return sorted(batch, key=lambda request: request.tokens)
                self._changed.wait(seconds)

    def _drop_late(self) -> None:
        for request in [request for request in self._waiting if request.deadline.passed]:
            self._waiting.remove(request)
            request.finish(DeadlineExceeded())

    def _start(self, requests: Sequence[QueuedRequest]) -> None:
        for request in requests:
            self._waiting.remove(request)
        self._running += requests

    def _fitting(self, rows: int) -> list[QueuedRequest]:
        """Return the oldest requests that have at most `rows` inputs and a batch's tokens."""
        fitting, tokens = [], 0
        for request in self._waiting:
            tokens, rows = tokens + request.tokens, rows - request.inputs
            if tokens > self.limits.tokens or rows < 0:
                break
            fitting.append(request)
        return fitting

    def _gather_until(self) -> float:
        """Return the time until which to wait for more: as long as they come in quick succession, within a limit."""
        if len(self._waiting) == 1 and not self._shared_batch:
            return 0.0
        first, newest = self._waiting[0].created, self._waiting[-1].created
        return min(newest + self.limits.wait, first + MAX_WAITS * self.limits.wait)

    def _is_full(self, batch: Sequence[QueuedRequest]) -> bool:
        """Return whether waiting longer would add nothing to a batch."""
        tokens, rows = sum(request.tokens for request in batch), sum(request.inputs for request in batch)
        return tokens >= self.limits.tokens or rows >= self.limits.rows or len(batch) < len(self._waiting)
