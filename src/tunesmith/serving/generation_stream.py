"""One answer on its way from the model to the client: tokens are counted, stop texts end it, the guard passes it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from tunesmith.serving.backends import GenerationOutput
from tunesmith.serving.guard import OutputBlocked, OutputFilter
from tunesmith.serving.openai import Finish, Usage
from tunesmith.serving.queue import DeadlineExceeded, Queue, QueueClosed, QueuedRequest, QueueFull
from tunesmith.serving.refusal import Refusal

Result = TypeVar("Result")


@dataclass
class Stops:
    """Ends a text before the first of some texts, and keeps back what may be the beginning of one."""

    texts: Sequence[str]
    held: str = ""

    def pass_on(self, piece: str, last: bool) -> tuple[str, bool]:
        """What may go on, and whether a stop text was found."""
        text = self.held + piece
        found = [at for stop in self.texts if (at := text.find(stop)) >= 0]
        if found:
            return text[: min(found)], True
        # of an ended answer everything goes on, also half a stop text
        sizes = [n for stop in self.texts for n in range(1, min(len(stop), len(text) + 1)) if text.endswith(stop[:n])]
        keep = 0 if last else max(sizes, default=0)
        self.held = text[len(text) - keep :]
        return text[: len(text) - keep], False


@dataclass
class GenerationStream:
    """A generation, from the queue to its last piece. Whoever stops reading `pieces` stops the model too."""

    queue: Queue
    job: QueuedRequest
    stops: Stops
    outlet: OutputFilter
    prompt_tokens: int = 0
    tokens: int = 0
    finish: Finish = "stop"
    text: list[str] = field(default_factory=list)
    """What has left."""

    async def start(self) -> None:
        """Wait for the model to begin. Raises Refusal where the prompt does not fit, or it takes too long."""
        try:
            self.prompt_tokens, _ = await within(self.job, self.job.event())
        except BaseException:
            self.queue.cancel(self.job)
            raise

    async def pieces(self) -> AsyncGenerator[str]:
        """The answer as it may leave; afterwards `finish` and `usage` are known."""
        try:
            last = False
            while not last:
                item, last = await within(self.job, self.job.event())
                piece = ""
                if isinstance(item, GenerationOutput):
                    self.tokens, self.finish = item.tokens, item.finish
                else:
                    self.tokens, piece = self.tokens + 1, item
                piece, stopped = self.stops.pass_on(piece, last)
                if stopped:
                    last, self.finish = True, "stop"
                free = await within(self.job, self.outlet.pass_on(piece, last))
                if free:
                    self.text.append(free)
                    yield free
        except OutputBlocked as stop:
            self.finish = stop.reason
            if stop.rest:
                self.text.append(stop.rest)
                yield stop.rest
        finally:
            self.queue.cancel(self.job)

    @property
    def usage(self) -> Usage:
        """Tokens of prompt and answer."""
        return Usage.of(self.prompt_tokens, self.tokens)


async def within(job: QueuedRequest, waiting: Awaitable[Result]) -> Result:
    """What comes before the job's deadline; the queue's errors as refusals."""
    try:
        async with asyncio.timeout(max(0.0, job.deadline - time.monotonic())):
            return await waiting
    except (TimeoutError, DeadlineExceeded):
        raise Refusal.late() from None
    except QueueClosed:
        raise Refusal.closing() from None


def submit(queue: Queue, job: QueuedRequest) -> QueuedRequest:
    """Let a job wait its turn. Raises Refusal where the queue takes no more."""
    try:
        queue.submit(job)
    except QueueFull as full:
        raise Refusal.busy(full.retry) from None
    except QueueClosed:
        raise Refusal.closing() from None
    return job


async def result(queue: Queue, job: QueuedRequest) -> object:
    """Submit, and wait for the result; who stops waiting takes the job out of the queue."""
    submit(queue, job)
    try:
        return await within(job, job.result())
    finally:
        queue.cancel(job)
