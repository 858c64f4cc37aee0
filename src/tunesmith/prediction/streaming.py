"""Answers while they are written: what is settled of them, where it goes, and where they end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import torch

from tunesmith.data.prompts import Ids

SLACK = 4
"""Tokens more than characters in a marker, to look back for it: special tokens have none."""


@dataclass
class IncrementalText:
    """One answer, token by token, as text in pieces."""

    settled: Callable[[Ids], str]
    """As much of the text as later tokens cannot change."""
    ids: Ids = field(default_factory=list)
    shown: str = ""

    def add(self, token: int) -> str:
        """What one more token settles; often nothing."""
        self.ids.append(token)
        return self._show(self.settled(self.ids))

    def rest(self, text: Callable[[Ids], str]) -> str:
        """What is left when there are no more tokens."""
        return self._show(text(self.ids))

    def _show(self, text: str) -> str:
        if len(text) <= len(self.shown) or not text.startswith(self.shown):
            return ""
        piece, self.shown = text[len(self.shown) :], text
        return piece


@dataclass
class BatchStreamer:
    """Tells every row's tokens to a listener, in the thread that generates: a `streamer` for many rows."""

    rooms: Sequence[int]
    """Most tokens of each row."""
    stops: Sequence[int]
    """Tokens behind which there is no more answer."""
    told: Callable[[int, int, bool], bool]
    """Gets row, token, and whether it is the row's last; says whether to go on."""
    ends: dict[int, int] = field(default_factory=dict)
    """Rows that `Stop` ended, with their number of tokens."""
    counts: dict[int, int] = field(default_factory=dict)
    done: set[int] = field(default_factory=set)
    unheard: set[int] = field(default_factory=set)
    """Rows that nobody listens to any more."""
    _prompt_seen: bool = False

    def put(self, ids: torch.Tensor) -> None:
        """Called by the library: first with the prompts, then with one token of each row."""
        if self._prompt_seen:
            for row, token in enumerate(ids.flatten().tolist()):
                if row not in self.done:
                    self._tell(row, token)
        self._prompt_seen = True

    def end(self) -> None:
        """Called by the library behind the last token."""

    def ended(self, row: int, length: int) -> bool:
        """Whether a row has enough with so many tokens."""
        return row in self.unheard or length >= self.rooms[row]

    def _tell(self, row: int, token: int) -> None:
        count = self.counts[row] = self.counts.get(row, 0) + 1
        last = token in self.stops or count >= self.ends.get(row, self.rooms[row])
        if not self.told(row, token, last):
            self.unheard.add(row)
        if last or row in self.unheard:
            self.done.add(row)


@dataclass
class StopCondition:
    """Ends rows at a heading of the template, and where nobody listens any more: a `stopping criterion`."""

    start: int
    markers: Sequence[str]
    decode: Callable[[Ids], str]
    listener: Tokens | BatchStreamer | None
    """Says whether a row has enough."""
    ends: dict[int, int] = field(default_factory=dict)
    """Rows that ended so, with their number of tokens."""

    def __call__(self, ids_BT: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        length = ids_BT.shape[1] - self.start
        window = max(map(len, self.markers), default=0) + SLACK
        for row, ids in enumerate(ids_BT[:, max(self.start, ids_BT.shape[1] - window) :].tolist()):
            enough = self.listener is not None and self.listener.ended(row, length)
            if row not in self.ends and (enough or self._found(ids, length <= window)):
                self.ends[row] = length
        return torch.tensor([row in self.ends for row in range(len(ids_BT))], device=ids_BT.device)

    def _found(self, ids: Ids, from_start: bool) -> bool:
        if not self.markers:
            return False
        text = ("\n" if from_start else "") + self.decode(ids)
        return any(marker in text for marker in self.markers)


class Tokens:
    """Tokens on their way from the thread that generates them: a `streamer`."""

    def __init__(self) -> None:
        self.closed = threading.Event()
        self.ends: dict[int, int] = {}
        self._queue: SimpleQueue[int | BaseException | None] = SimpleQueue()
        self._prompt_seen = False

    def ended(self, row: int, length: int) -> bool:
        """Whether nobody listens any more."""
        return self.closed.is_set()

    def fill(self, generate: Callable[..., list[Ids]], *args: Any) -> None:
        """Run in the thread: generate, and hand any error on."""
        try:
            generate(*args, tokens=self)
            self._queue.put(None)
        except BaseException as error:  # raised again where the tokens are read
            self._queue.put(error)

    def put(self, ids: torch.Tensor) -> None:
        """Called by the library: first with the prompt, then with each token."""
        if self._prompt_seen:
            self._queue.put(int(ids.flatten()[0]))
        self._prompt_seen = True

    def end(self) -> None:
        """Called by the library behind the last token; `fill` says so itself."""

    def __iter__(self) -> Iterator[int]:
        while (item := self._queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
