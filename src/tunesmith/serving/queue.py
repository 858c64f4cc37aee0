"""The queue before a model: requests wait, are computed together, and end in the order they came.

One thread runs the model. It takes the oldest request, waits a few milliseconds for each further one, and takes those
that may stand beside it up to a budget of tokens, shortest first. Who goes away or waits too long is out before that.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunesmith.console import silence

SMOOTH = 0.2
"""Weight of the newest batch in what an input is thought to take."""

GATHER = 8
"""At most so many times the wait for one more."""


class QueueFull(Exception):
    """The queue has no room. retry: seconds after which it probably has."""

    def __init__(self, retry: int) -> None:
        super().__init__(retry)
        self.retry = retry


class QueueClosed(Exception):
    """The queue takes nothing more, or its work was cancelled."""


class DeadlineExceeded(Exception):
    """A request waited past its deadline."""


@dataclass(eq=False)
class QueuedRequest:
    """One request on its way through the model.

    Its events are written in the model's thread and read in an event loop. The last is the result, or an
    exception.
    """

    content: Any
    inputs: int = 1
    tokens: int = 1
    """Roughly: for the budget and the order of a batch."""
    kind: Hashable = None
    """Only jobs of one kind are computed together."""
    deadline: float = math.inf
    """On the clock of `time.monotonic`."""
    came: float = field(default_factory=time.monotonic)
    cancelled: bool = False
    done: bool = False

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[tuple[Any, bool]] = asyncio.Queue()

    def tell(self, piece: Any) -> bool:
        """A part of the result; says whether anybody still wants more."""
        if not self.done and not self.cancelled:
            self._send(piece, False)
        return not self.cancelled and time.monotonic() < self.deadline

    def finish(self, result: Any) -> None:
        """The result, or the exception that came instead. Only the first counts."""
        if not self.done:
            self.done = True
            self._send(result, True)

    async def event(self) -> tuple[Any, bool]:
        """The next part, and whether it is the last. Raises what the model's thread raised."""
        item, last = await self._events.get()
        if isinstance(item, BaseException):
            raise item
        return item, last

    async def result(self) -> Any:
        """The last event."""
        while True:
            item, last = await self.event()
            if last:
                return item

    def _send(self, item: Any, last: bool) -> None:
        try:
            self._loop.call_soon_threadsafe(self._events.put_nowait, (item, last))
        except RuntimeError:  # the loop has ended: nobody is left to hear it
            self.cancelled = True


@dataclass
class Limits:
    """Of one queue. size: inputs that may wait. tokens, rows: most of a batch. wait: seconds for one more to come."""

    size: int
    tokens: int
    rows: int
    wait: float


class Queue:
    """Jobs before one model, and the thread that runs it."""

    def __init__(
        self,
        name: str,
        run: Callable[[Sequence[QueuedRequest]], None],
        limits: Limits,
        seen: Callable[[int, float], None] = lambda inputs, seconds: None,
    ) -> None:
        """run: finishes every job it is given. seen: told the inputs and seconds of each batch."""
        self.name, self.limits = name, limits
        self._run, self._seen = run, seen
        self._waiting: deque[QueuedRequest] = deque()
        self._running: list[QueuedRequest] = []
        self._changed = threading.Condition()
        self._open = True
        self._cost = 0.05
        """Seconds an input takes, as seen lately."""
        self._thread = threading.Thread(target=self._work, name=f"model {name}", daemon=True)
        self._thread.start()

    def submit(self, job: QueuedRequest) -> None:
        """Let a job wait its turn. Raises Full or Closed."""
        with self._changed:
            if not self._open:
                raise QueueClosed
            if self._ahead() + job.inputs > self.limits.size:
                raise QueueFull(self._retry())
            self._waiting.append(job)
            self._changed.notify()

    def cancel(self, job: QueuedRequest) -> None:
        """Nobody wants this any more: its place is free at once, or at the next token where it is being computed."""
        with self._changed:
            job.cancelled = True
            if job in self._waiting:
                self._waiting.remove(job)
                self._changed.notify()
        job.finish(QueueClosed())

    @property
    def waiting(self) -> int:
        """Inputs that wait."""
        with self._changed:
            return self._ahead()

    @property
    def full(self) -> int | None:
        """Where not one more input can wait: seconds after which one probably can."""
        with self._changed:
            return self._retry() if self._ahead() >= self.limits.size else None

    @property
    def running(self) -> int:
        """Inputs that are being computed and still wanted."""
        with self._changed:
            return sum(job.inputs for job in self._running if not job.done)

    def close(self) -> None:
        """Take nothing more; what waits is still done, then the thread ends."""
        with self._changed:
            self._open = False
            self._changed.notify()

    def _ahead(self) -> int:
        return sum(job.inputs for job in self._waiting)

    def _retry(self) -> int:
        return max(1, math.ceil(self._ahead() * self._cost))

    def _work(self) -> None:
        while batch := self._take():
            start = time.monotonic()
            try:
                with silence():
                    self._run(batch)
            except Exception as error:  # whatever a model raises belongs to its requests; the next ones go on
                for job in batch:
                    job.finish(error)
            for job in batch:
                job.finish(RuntimeError("the model gave no result"))
            self._note(sum(job.inputs for job in batch), time.monotonic() - start)

    def _note(self, inputs: int, seconds: float) -> None:
        with self._changed:
            self._running = []
            self._cost += SMOOTH * (seconds / inputs - self._cost)
        self._seen(inputs, seconds)

    def _take(self) -> list[QueuedRequest]:
        """The next batch; an empty one when the queue is closed and done."""
        with self._changed:
            while True:
                self._drop_late()
                if not self._waiting:
                    if not self._open:
                        return []
                    self._changed.wait()
                    continue
                batch = self._beside(self._waiting[0])
                left = self._gathered() - time.monotonic()
                if left <= 0 or not self._open or self._filled(batch):
                    for job in batch:
                        self._waiting.remove(job)
                    self._running = batch
                    return sorted(batch, key=lambda job: job.tokens)
                self._changed.wait(left)

    def _beside(self, first: QueuedRequest) -> list[QueuedRequest]:
        """The first job and those behind it that fit into one batch with it."""
        batch, tokens, rows = [first], first.tokens, first.inputs
        for job in itertools.islice(self._waiting, 1, None):
            if job.kind != first.kind:
                continue
            tokens, rows = tokens + job.tokens, rows + job.inputs
            if tokens > self.limits.tokens or rows > self.limits.rows:
                break
            batch.append(job)
        return batch

    def _gathered(self) -> float:
        """Until when to wait for more: while they come one soon behind the other, but not for ever."""
        first, newest = self._waiting[0].came, self._waiting[-1].came
        return min(newest + self.limits.wait, first + GATHER * self.limits.wait)

    def _filled(self, batch: Sequence[QueuedRequest]) -> bool:
        """Whether waiting longer would add nothing."""
        tokens, rows = sum(job.tokens for job in batch), sum(job.inputs for job in batch)
        return tokens >= self.limits.tokens or rows >= self.limits.rows or len(batch) < len(self._waiting)

    def _drop_late(self) -> None:
        now = time.monotonic()
        for job in [job for job in self._waiting if job.deadline <= now]:
            self._waiting.remove(job)
            job.finish(DeadlineExceeded())
