"""Answers while they are generated: where each ends, and which of its text can be shown already."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

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


@dataclass
class StopCondition:
    """A stopping criterion of transformers' `generate` that ends each row by itself, and reports its tokens.

    A row ends at a stop token, at its limit, behind a heading of the template, or when its listener says so.
    """

    start: int
    """Tokens of the padded prompts."""
    limits: Sequence[int]
    """Most tokens of each row's answer."""
    stops: Sequence[int]
    """Tokens that end an answer."""
    markers: Sequence[str]
    """Headings of the template."""
    decode: Callable[[Ids], str]
    listener: Callable[[int, int, bool], bool] | None = None
    """Receives row, token and whether it is the row's last; returns whether to continue."""
    ends: dict[int, int] = field(default_factory=dict)
    """Tokens of each row that has ended."""

    def __call__(self, ids_BT: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        length = ids_BT.shape[1] - self.start
        window = max(map(len, self.markers), default=0) + SLACK
        for row, ids in enumerate(ids_BT[:, max(self.start, ids_BT.shape[1] - window) :].tolist()):
            if row in self.ends:
                continue
            text = ("\n" if length <= window else "") + self.decode(ids) if self.markers else ""
            last = ids[-1] in self.stops or length >= self.limits[row] or any(mark in text for mark in self.markers)
            continues = self.listener is None or self.listener(row, ids[-1], last)
            if last or not continues:
                self.ends[row] = length
        return torch.tensor([row in self.ends for row in range(len(ids_BT))], device=ids_BT.device)
