"""What may go in and come out: patterns, lengths, repetitions, and another classifier's judgement.

An answer goes through the guard piece by piece, whether the client has it streamed or not: nothing leaves the server
before the guard has passed it. What the guard does is counted, and written to the audit log.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from tunesmith.errors import RecipeError
from tunesmith.recipe import Guard as Settings
from tunesmith.serving import patterns
from tunesmith.serving.patterns import Pattern, Span
from tunesmith.serving.refusal import Refusal
from tunesmith.types import Example, Message

SEGMENT = 160
"""Letters of an answer that are judged at once, up to the end of a sentence if there is one."""
CONTEXT = 2000
"""Letters before them that the judge sees too, at most."""
SEAM = 50
"""Letters that the two halves of a text have of each other."""
LONG = 10_000
"""Letters from which on a text is searched beside the event loop and not in it."""
Reason = Literal["content_filter", "length"]
Judge = Callable[[Sequence[str]], Awaitable[list[dict[str, float]]]]
"""Texts -> the probability of every label."""


class OutputBlocked(Exception):
    """An answer ends here. rest: what may still leave. reason: as in OpenAI's `finish_reason`."""

    def __init__(self, rest: str, reason: Reason) -> None:
        super().__init__(reason)
        self.rest, self.reason = rest, reason


@dataclass
class Audit:
    """Where the guard's actions are noted."""

    path: Path | None = None
    texts: bool = False
    counted: Callable[[str, str, str], None] = lambda where, action, rule: None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        """Try the file. Raises RecipeError where it cannot be written."""
        try:
            if self.path is not None:
                self.path.open("a").close()
        except OSError as error:
            raise RecipeError(f"cannot write serve.guard.audit_log {self.path}", found=str(error)) from error

    def note(self, request: str, where: str, action: str, rule: str, text: str, **more: Any) -> None:
        """One action: to block, mask or cut. The text is written down only where texts may be."""
        self.counted(where, action, rule)
        if self.path is None:
            return
        entry = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "request": request, "where": where, "action": action}
        line = json.dumps(entry | {"rule": rule} | more | ({"text": text} if self.texts else {})) + "\n"
        with self._lock, self.path.open("a", encoding="utf-8") as file:
            file.write(line)


@dataclass(frozen=True)
class ContentGuard:
    """The rules, for all requests."""

    settings: Settings
    audit: Audit = field(default_factory=Audit)
    judge: Judge | None = None
    context: int = CONTEXT
    """Letters before a piece of an answer that the judge sees too."""

    @cached_property
    def patterns(self) -> list[Pattern]:
        """What may not be in a text, and what is replaced by its name. Raises RecipeError for what is no pattern."""
        block, mask = self.settings.block, self.settings.mask
        return [*(Pattern.of(text, True) for text in block), *(Pattern.of(text) for text in mask)]

    @property
    def active(self) -> bool:
        """Whether there is any rule."""
        one = self.settings
        return bool(self.patterns or one.max_characters or one.max_repeats or self.judge)

    async def inputs(self, texts: Sequence[str], request: str) -> list[str]:
        """The texts that may go in, masked. Raises Refusal for one that may not."""
        if self.settings.check == "outputs" or not self.active:
            return list(texts)
        passed = [
            await asyncio.to_thread(self._input, text, request) if len(text) > LONG else self._input(text, request)
            for text in texts
        ]
        if self.judge is not None:
            judged = [text for text in texts if text.strip()]
            for text, scores in zip(judged, await self.judge(judged), strict=True):
                if rule := self.verdict(scores):
                    self._refuse(request, rule, text, probability=scores[rule])
        return passed

    async def messages(self, messages: Sequence[Message], request: str) -> list[Message]:
        """The same for the turns of a conversation."""
        contents = await self.inputs([turn.content for turn in messages], request)
        return [replace(turn, content=content) for turn, content in zip(messages, contents, strict=True)]

    async def example(self, examples: Sequence[Example], request: str) -> list[Example]:
        """The same for texts to classify."""
        texts = [text for one in examples for text in (one.text, one.text_pair or "")]
        passed = await self.inputs(texts, request)
        pairs = zip(examples, passed[::2], passed[1::2], strict=True)
        return [replace(one, text=a, text_pair=None if one.text_pair is None else b) for one, a, b in pairs]

    def outlet(self, request: str) -> OutputFilter:
        """The way out for one answer."""
        return OutputFilter(self if self.settings.check != "inputs" else ContentGuard(Settings()), request)

    def verdict(self, scores: dict[str, float]) -> str | None:
        """The label for which a text is not let through."""
        return next((label for label, least in self.settings.thresholds.items() if scores.get(label, 0) >= least), None)

    def _input(self, text: str, request: str) -> str:
        most, repeated = self.settings.max_characters, self.settings.max_repeats
        if most is not None and len(text) > most:
            self._refuse(request, "max_characters", text)
        if repeated is not None and patterns.repeats(text, repeated) is not None:
            self._refuse(request, "max_repeats", text)
        try:
            spans, _ = patterns.search(self.patterns, text)
        except TimeoutError:
            self._refuse(request, "too_slow", text)
        for span in spans:
            if span.blocks:
                self._refuse(request, span.name, text)
        for span in spans:
            self.audit.note(request, "input", "mask", span.name, text[span.start : span.end])
        return patterns.mask(text, spans)

    def _refuse(self, request: str, rule: str, text: str, **more: Any) -> None:
        self.audit.note(request, "input", "block", rule, text, **more)
        raise Refusal.invalid(f"the input is not let through: {rule}", "content_filter")


@dataclass
class OutputFilter:
    """One answer on its way out."""

    guard: ContentGuard
    request: str
    text: str = ""
    """All that the model has written."""
    out: int = 0
    """So much of it has passed the patterns."""
    safe: str = ""
    """What has passed the patterns, masked: all of it."""
    given: int = 0
    """So much of `safe` has left."""

    async def pass_on(self, piece: str, last: bool = False) -> str:
        """What may leave, now that the model has written another piece. Raises Stopped where the answer must end."""
        if not self.guard.active:
            return piece
        self.text += piece
        stop = self._scan(last)
        free = await self._judge(last or stop is not None)
        if stop is not None:
            raise OutputBlocked(free, stop)
        return free

    def _scan(self, last: bool) -> Reason | None:
        """Move what is final to `safe`; says why the answer ends there, if it does."""
        limit, rule, stop = self._limits(last)
        try:
            spans, end = patterns.search(self.guard.patterns, self.text[:limit], self.out, last or bool(stop))
        except TimeoutError:
            spans, end = [Span(self.out, limit, "too_slow", blocks=True)], limit
        blocked = next((span for span in spans if span.blocks), None)
        masked = [span for span in spans if not span.blocks]
        if blocked:
            end, rule, stop = patterns.before(masked, blocked.start), blocked.name, "content_filter"
        if stop:
            self.guard.audit.note(self.request, "output", "block" if blocked else "cut", rule, self.text[end:])
        self._move([span for span in masked if span.end <= end], end)
        return stop

    def _limits(self, last: bool) -> tuple[int, str, Reason | None]:
        """How far the answer may be looked at; and by which rule it ends there, and how that is called."""
        most, repeated = self.guard.settings.max_characters, self.guard.settings.max_repeats
        end, rule = len(self.text), ""
        stop: Reason | None = None
        if repeated is not None:
            end = end if last else len(self.text) - len(re.split(r"\s", self.text)[-1])  # a word may go on
            allowed = patterns.repeats(self.text[:end], repeated)
            if allowed is not None:
                end, rule, stop = allowed, "max_repeats", "content_filter"
        if most is not None and end > most:
            return most, "max_characters", "length"
        return end, rule, stop

    def _move(self, spans: Sequence[Span], end: int) -> None:
        for span in spans:
            self.guard.audit.note(self.request, "output", "mask", span.name, self.text[span.start : span.end])
        shifted = [Span(span.start - self.out, span.end - self.out, span.name) for span in spans]
        self.safe += patterns.mask(self.text[self.out : end], shifted)
        self.out = max(self.out, end)

    async def _judge(self, last: bool) -> str:
        """What may leave of `safe`: all, or what the classifier has let through."""
        judge = self.guard.judge
        end = len(self.safe)
        if judge is not None:
            end = end if last else self._sentence()
            if end > self.given and self.safe[self.given : end].strip():
                text = self.safe[max(0, self.given - self.guard.context) : end]
                (scores,) = await judge([text])
                if rule := self.guard.verdict(scores):
                    self.guard.audit.note(self.request, "output", "block", rule, text, probability=scores[rule])
                    raise OutputBlocked("", "content_filter")
        free, self.given = self.safe[self.given : end], max(end, self.given)
        return free

    def _sentence(self) -> int:
        """Up to where to judge: the end of a sentence, where a segment is long enough."""
        if len(self.safe) - self.given < SEGMENT:
            return self.given
        ends = [self.safe.rfind(mark, self.given) for mark in (". ", "! ", "? ", "\n")]
        return max(ends) + 1 if max(ends) >= 0 else len(self.safe)


def halves(text: str) -> list[str]:
    """Both halves of a text, with a little of each other so that nothing is parted; none of a single letter."""
    middle, seam = len(text) // 2, min(len(text) // 8, SEAM)
    return [text[: middle + seam], text[middle - seam :]] if len(text) > 1 else []
