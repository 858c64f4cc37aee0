"""One answer on its way to the client: tokens are counted, stop sequences end it, the guard checks it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from tunesmith.serving.backends import GenerationOutput
from tunesmith.serving.guard import OutputBlocked, OutputFilter
from tunesmith.serving.openai import Finish, Usage
from tunesmith.serving.queue import Queue, QueuedRequest


@dataclass
class StopSequences:
    """Ends a text before the first stop sequence, and holds back what may be the beginning of one."""

    sequences: Sequence[str]
    held: str = ""

    def pass_on(self, piece: str, last: bool) -> tuple[str, bool]:
        """Return what can be sent, and whether a stop sequence was found."""
        text = self.held + piece
        starts = [start for stop in self.sequences if (start := text.find(stop)) >= 0]
        if starts:
            return text[: min(starts)], True
        sizes = [
            size
            for stop in self.sequences
            for size in range(1, min(len(stop), len(text) + 1))
            if text.endswith(stop[:size])
        ]
        held = 0 if last else max(sizes, default=0)  # a finished answer may end with half a stop sequence
        self.held = text[len(text) - held :]
        return text[: len(text) - held], False


@dataclass
class GenerationStream:
    """A generation, from the queue to its last piece. Closing `pieces` stops the model too."""

    queue: Queue
    queued: QueuedRequest
    stops: StopSequences
    output: OutputFilter
    prompt_tokens: int = 0
    tokens: int = 0
    finish: Finish = "stop"
    text: list[str] = field(default_factory=list)
    """The pieces that were sent."""

    async def start(self) -> None:
        """Wait for the model to begin. Raises Refusal where the prompt does not fit, or it takes too long."""
        try:
            self.prompt_tokens, _ = await self.queued.event()
        except BaseException:
            self.queue.cancel(self.queued)
            raise

    async def pieces(self) -> AsyncGenerator[str]:
        """Yield the answer in pieces that can be sent; afterwards `finish` and `usage` are known."""
        try:
            last = False
            while not last:
                item, last = await self.queued.event()
                piece = ""
                if isinstance(item, GenerationOutput):
                    self.tokens, self.finish = item.tokens, item.finish
                else:
                    self.tokens, piece = self.tokens + 1, item
                piece, stopped = self.stops.pass_on(piece, last)
                if stopped:
                    last, self.finish = True, "stop"
                checked = await self.queued.deadline.enforce(self.output.pass_on(piece, last))
                if checked:
                    self.text.append(checked)
                    yield checked
        except OutputBlocked as blocked:
            self.finish = blocked.reason
            if blocked.remaining:
                self.text.append(blocked.remaining)
                yield blocked.remaining
        finally:
            self.queue.cancel(self.queued)

    @property
    def usage(self) -> Usage:
        """Tokens of prompt and answer."""
        return Usage.of(self.prompt_tokens, self.tokens)
