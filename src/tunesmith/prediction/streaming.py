"""Answers while they are generated: where each ends, and which of its text can be shown already."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tunesmith.data.prompts import Ids

SLACK = 4
"""Tokens searched for a marker beyond its number of characters: special tokens have no characters."""


@dataclass
class IncrementalText:
    """One answer, token by token, as text in pieces."""

    stable: Callable[[Ids], str]
    """Returns as much of the text as later tokens cannot change."""
    ids: Ids = field(default_factory=list)
    shown: str = ""

    def add(self, token: int) -> str:
        """Add a token and return the text that can be shown now, which is often empty."""
        self.ids.append(token)
        return self._show(self.stable(self.ids))

    def remainder(self, text: str) -> str:
        """Return what is left to show of the whole text, after the last token."""
        return self._show(text)

    def _show(self, text: str) -> str:
        if len(text) <= len(self.shown) or not text.startswith(self.shown):
            return ""
        piece, self.shown = text[len(self.shown) :], text
        return piece


@dataclass(frozen=True)
class StopCondition:
    """An answer ends at a stop token, or behind a heading of the template."""

    stops: Sequence[int]
    """Tokens that end an answer."""
    markers: Sequence[str]
    """Headings of the template."""
    decode: Callable[[Ids], str]

    def ends(self, answer: Ids) -> bool:
        """Whether an answer ends with its last token."""
        if answer[-1] in self.stops:
            return True
        if not self.markers:
            return False
        window = max(map(len, self.markers)) + SLACK
        text = ("\n" if len(answer) <= window else "") + self.decode(answer[-window:])
        return any(marker in text for marker in self.markers)
