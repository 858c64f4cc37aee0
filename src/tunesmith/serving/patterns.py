"""Patterns in texts, and in texts that are still being generated.

Unlike `re`, `regex` can tell whether the end of a text may be the beginning of a match. So a pattern is found whole
however the text arrives in pieces, and nothing that could become a match is sent before that is decided.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import regex

from tunesmith.data import personal_data
from tunesmith.errors import RecipeError

TIMEOUT_SECONDS = 1.0
"""Time limit of one search: a pattern of a recipe can be slow on hostile texts."""
MAX_PERIOD = 8
"""Words of the longest phrase whose repetition is noticed."""
BUILT_IN = personal_data.PATTERNS
"""Patterns by name, each with a further check of a match where it needs one."""


@dataclass(frozen=True, slots=True)
class Span:
    """A match of a pattern."""

    start: int
    end: int
    name: str
    blocks: bool = False
    valid: bool = True
    """False where it only looks like one (a wrong checksum): the search still continues behind it."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """Something to look for in texts."""

    name: str
    compiled: regex.Pattern[str]
    check: Callable[[str], bool] | None = None
    blocks: bool = False
    """Whether a text with a match is blocked; otherwise the match is masked."""

    @classmethod
    def compile(cls, text: str, blocks: bool = False) -> Pattern:
        """Return a built-in pattern by its name, or a regular expression. Raises RecipeError where it is invalid."""
        if text in BUILT_IN:
            expression, check = BUILT_IN[text]
            return cls(text, regex.compile(expression), check, blocks)
        if set(names := [part.strip() for part in text.split(",")]) <= set(BUILT_IN):
            raise RecipeError(f"serve.guard: {text!r} is a single pattern", do=f"give a list: [{', '.join(names)}]")
        try:
            compiled = regex.compile(text)
        except regex.error as error:
            raise RecipeError(
                f"serve.guard: {text!r} is not a regular expression",
                found=str(error),
                expected=f"{', '.join(BUILT_IN)}, or a regular expression",
            ) from error
        if compiled.search(""):
            raise RecipeError(
                f"serve.guard: {text!r} matches the empty text", do="make it require at least one character"
            )
        return cls("pattern" if blocks else "masked", compiled, None, blocks)

    def spans(self, text: str, start: int) -> list[Span]:
        """Return all matches from `start` on, also those that the check rejects."""
        return [
            Span(match.start(), match.end(), self.name, self.blocks, self.check is None or self.check(match.group()))
            for match in self.compiled.finditer(text, start, timeout=TIMEOUT_SECONDS)
            if match.end() > match.start()
        ]

    def undecided_from(self, text: str, start: int) -> int:
        """Return the position from which on further text can create or change a match."""
        positions = range(start, len(text))
        partial = (i for i in positions if self.compiled.fullmatch(text, i, partial=True, timeout=TIMEOUT_SECONDS))
        return next(partial, len(text))


def search(patterns: Sequence[Pattern], text: str, start: int = 0, whole: bool = True) -> tuple[list[Span], int]:
    """Return the matches in a text from `start` on, and the position up to which they are final.

    whole: no further text comes. Raises TimeoutError where it takes too long.
    """
    spans = [span for pattern in patterns for span in pattern.spans(text, start)]
    ends = [] if whole else [pattern.undecided_from(text, start) for pattern in patterns]
    end = split_point(spans, min(ends, default=len(text)))
    return sorted((span for span in spans if span.valid and span.end <= end), key=lambda span: span.start), end


def split_point(spans: Sequence[Span], end: int) -> int:
    """Return the last position up to `end` where a text can be split without splitting a span."""
    while cut := [span.start for span in spans if span.start < end < span.end]:
        end = min(cut)
    return end


def mask(text: str, spans: Sequence[Span]) -> str:
    """Return the text with each span replaced by its name in brackets; of overlapping spans, by the first one's."""
    parts: list[str] = []
    end = 0
    for span in spans:
        if span.start >= end:
            parts += [text[end : span.start], f"[{span.name}]"]
        end = max(end, span.end)
    return "".join([*parts, text[end:]])


def allowed_repeats(text: str, most: int) -> int | None:
    """Return the end of the allowed part of a text in which the same 1 to 8 words stand more than `most` times in a
    row; None where they do not."""
    positions: list[tuple[int, int]] = [match.span() for match in regex.finditer(r"\S+", text)]
    words = [text[start:end].casefold() for start, end in positions]
    runs = dict.fromkeys(range(1, MAX_PERIOD + 1), 0)
    for index in range(len(words)):
        for period in runs:
            same = index >= period and words[index] == words[index - period]
            runs[period] = runs[period] + 1 if same else 0
            if runs[period] >= period * most:
                return positions[index - period + 1][0]
    return None
