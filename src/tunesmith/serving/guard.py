"""What may enter and leave a model: patterns, lengths, repetitions, and another classifier's verdict.

An answer passes through the guard piece by piece, whether it is streamed or not: nothing leaves the server before the
guard has checked it. Every action of the guard is counted and written to the audit log.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, NoReturn

from tunesmith.errors import RecipeError
from tunesmith.recipe import Guard as GuardSettings
from tunesmith.serving import patterns
from tunesmith.serving.patterns import Pattern, Span
from tunesmith.serving.refusal import Refusal
from tunesmith.types import Example, Message

SEGMENT = 160
"""Characters of an answer that are classified at once, up to the end of a sentence if there is one."""
CONTEXT = 2000
"""Most characters before them that the classifier sees too."""
OVERLAP = 50
"""Characters that the two halves of a text share on each side of the middle."""
LONG = 10_000
"""Longer texts, in characters, are searched in a thread and not in the event loop."""
StopReason = Literal["content_filter", "length"]
Classify = Callable[[Sequence[str]], Awaitable[list[dict[str, float]]]]
"""Texts -> the probability of every label."""


class OutputBlocked(Exception):
    """An answer ends here. remaining: what may still be sent. reason: OpenAI's `finish_reason`."""

    def __init__(self, remaining: str, reason: StopReason) -> None:
        super().__init__(reason)
        self.remaining, self.reason = remaining, reason


@dataclass
class AuditLog:
    """Where the guard's actions are recorded."""

    path: Path | None = None
    with_texts: bool = False
    count: Callable[[str, str, str], None] = lambda where, action, rule: None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        """Open the file once, and end a line that a killed server began.

        Raises RecipeError where it cannot be written.
        """
        try:
            if self.path is not None:
                with self.path.open("ab") as file:
                    if file.seekable() and file.tell() and not self._has_end():
                        file.write(b"\n")
        except OSError as error:
            raise RecipeError(f"cannot write serve.guard.audit_log {self.path}", found=str(error)) from error

    def _has_end(self) -> bool:
        assert self.path is not None
        with contextlib.suppress(PermissionError), self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read() == b"\n"
        return True  # a log that may only be written

    def record(
        self, request_id: str, where: str, action: str, rule: str, text: str, probability: float | None = None
    ) -> None:
        """Record one action: block, mask or cut. The text is written only where texts may be logged."""
        self.count(where, action, rule)
        if self.path is None:
            return
        entry: dict[str, str | float] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "request": request_id,
            "where": where,
            "action": action,
            "rule": rule,
        }
        if probability is not None:
            entry["probability"] = probability
        if self.with_texts:
            entry["text"] = text
        with self._lock, self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


@dataclass(frozen=True)
class ContentGuard:
    """The rules, for all requests."""

    settings: GuardSettings
    audit: AuditLog = field(default_factory=AuditLog)
    classify: Classify | None = None
    context: int = CONTEXT
    """Characters before a piece of an answer that the classifier sees too."""

    @cached_property
    def patterns(self) -> list[Pattern]:
        """The patterns that block a text, then those that are masked. Raises RecipeError where one is invalid."""
        block, mask = self.settings.block, self.settings.mask
        return [*(Pattern.compile(text, True) for text in block), *(Pattern.compile(text) for text in mask)]

    @property
    def active(self) -> bool:
        """Whether there is any rule."""
        return bool(self.patterns or self.settings.max_characters or self.settings.max_repeats or self.classify)

    async def check_inputs(self, texts: Sequence[str], request_id: str) -> list[str]:
        """Return the texts, masked. Raises Refusal where one is blocked."""
        if self.settings.check == "outputs" or not self.active:
            return list(texts)
        masked = [
            await asyncio.to_thread(self._check_input, text, request_id)
            if len(text) > LONG
            else self._check_input(text, request_id)
            for text in texts
        ]
        if self.classify is not None:
            visible = [text for text in texts if text.strip()]
            for text, scores in zip(visible, await self.classify(visible), strict=True):
                if rule := self.blocked_label(scores):
                    self._refuse(request_id, rule, text, scores[rule])
        return masked

    async def check_messages(self, messages: Sequence[Message], request_id: str) -> list[Message]:
        """Return the turns of a conversation, masked. Raises Refusal where one is blocked."""
        contents = await self.check_inputs([turn.content for turn in messages], request_id)
        return [replace(turn, content=content) for turn, content in zip(messages, contents, strict=True)]

    async def check_examples(self, examples: Sequence[Example], request_id: str) -> list[Example]:
        """Return texts to classify, masked. Raises Refusal where one is blocked."""
        texts = [text for example in examples for text in (example.text, example.text_pair or "")]
        masked = await self.check_inputs(texts, request_id)
        return [
            replace(example, text=text, text_pair=None if example.text_pair is None else pair)
            for example, text, pair in zip(examples, masked[::2], masked[1::2], strict=True)
        ]

    def output_filter(self, request_id: str) -> OutputFilter:
        """Return the filter of one answer."""
        return OutputFilter(self if self.settings.check != "inputs" else ContentGuard(GuardSettings()), request_id)

    def blocked_label(self, scores: dict[str, float]) -> str | None:
        """Return the first label whose probability reaches its threshold."""
        return next((label for label, least in self.settings.thresholds.items() if scores.get(label, 0) >= least), None)

    def _check_input(self, text: str, request_id: str) -> str:
        most, repeats = self.settings.max_characters, self.settings.max_repeats
        if most is not None and len(text) > most:
            self._refuse(request_id, "max_characters", text)
        if repeats is not None and patterns.allowed_repeats(text, repeats) is not None:
            self._refuse(request_id, "max_repeats", text)
        try:
            spans, _ = patterns.search(self.patterns, text)
        except TimeoutError:
            self._refuse(request_id, "too_slow", text)
        for span in spans:
            if span.blocks:
                self._refuse(request_id, span.name, text)
        for span in spans:
            self.audit.record(request_id, "input", "mask", span.name, text[span.start : span.end])
        return patterns.mask(text, spans)

    def _refuse(self, request_id: str, rule: str, text: str, probability: float | None = None) -> NoReturn:
        self.audit.record(request_id, "input", "block", rule, text, probability)
        raise Refusal.invalid(f"the input was blocked by the guard: {rule}", "content_filter")


@dataclass
class OutputFilter:
    """One answer on its way out."""

    guard: ContentGuard
    request_id: str
    text: str = ""
    """All that the model has generated."""
    scanned: int = 0
    """Characters of `text` that have passed the patterns."""
    masked: str = ""
    """Those characters, masked."""
    sent: int = 0
    """Characters of `masked` that have been sent."""

    async def pass_on(self, piece: str, last: bool = False) -> str:
        """Add a piece of the answer and return what can be sent. Raises OutputBlocked where the answer must end."""
        if not self.guard.active:
            return piece
        self.text += piece
        reason = self._scan(last)
        checked = await self._classify(last or reason is not None)
        if reason is not None:
            raise OutputBlocked(checked, reason)
        return checked

    def _scan(self, last: bool) -> StopReason | None:
        """Move what is final to `masked`; return why the answer ends there, if it does."""
        limit, rule, reason = self._limits(last)
        try:
            spans, end = patterns.search(self.guard.patterns, self.text[:limit], self.scanned, last or bool(reason))
        except TimeoutError:
            spans, end = [Span(self.scanned, limit, "too_slow", blocks=True)], limit
        blocked = next((span for span in spans if span.blocks), None)
        masked = [span for span in spans if not span.blocks]
        if blocked:
            end, rule, reason = patterns.split_point(masked, blocked.start), blocked.name, "content_filter"
        if reason:
            self.guard.audit.record(self.request_id, "output", "block" if blocked else "cut", rule, self.text[end:])
        masked = [span for span in masked if span.end <= end]
        for span in masked:
            self.guard.audit.record(self.request_id, "output", "mask", span.name, self.text[span.start : span.end])
        shifted = [Span(span.start - self.scanned, span.end - self.scanned, span.name) for span in masked]
        self.masked += patterns.mask(self.text[self.scanned : end], shifted)
        self.scanned = max(self.scanned, end)
        return reason

    def _limits(self, last: bool) -> tuple[int, str, StopReason | None]:
        """Return how far the answer can be scanned, and, where it ends there, by which rule and for what reason."""
        most, repeats = self.guard.settings.max_characters, self.guard.settings.max_repeats
        end, rule = len(self.text), ""
        reason: StopReason | None = None
        if repeats is not None:
            end = end if last else len(self.text) - len(re.split(r"\s", self.text)[-1])  # its last word may go on
            allowed = patterns.allowed_repeats(self.text[:end], repeats)
            if allowed is not None:
                end, rule, reason = allowed, "max_repeats", "content_filter"
        if most is not None and end > most:
            return most, "max_characters", "length"
        return end, rule, reason

    async def _classify(self, last: bool) -> str:
        """Return what can be sent of `masked`: all of it, or what the classifier has seen and not blocked."""
        end = len(self.masked)
        if self.guard.classify is not None:
            end = end if last else self._segment_end()
            if end > self.sent and self.masked[self.sent : end].strip():
                text = self.masked[max(0, self.sent - self.guard.context) : end]
                (scores,) = await self.guard.classify([text])
                if rule := self.guard.blocked_label(scores):
                    self.guard.audit.record(self.request_id, "output", "block", rule, text, scores[rule])
                    raise OutputBlocked("", "content_filter")
        checked, self.sent = self.masked[self.sent : end], max(end, self.sent)
        return checked

    def _segment_end(self) -> int:
        """Return where the segment to classify ends: with a sentence, once there are enough characters."""
        if len(self.masked) - self.sent < SEGMENT:
            return self.sent
        ends = [self.masked.rfind(mark, self.sent) for mark in (". ", "! ", "? ", "\n")]
        return max(ends) + 1 if max(ends) >= 0 else len(self.masked)


def halves(text: str) -> list[str]:
    """Return both halves of a text, overlapping so that nothing is split at the middle; nothing of one character."""
    middle, overlap = len(text) // 2, min(len(text) // 8, OVERLAP)
    return [text[: middle + overlap], text[middle - overlap :]] if len(text) > 1 else []
