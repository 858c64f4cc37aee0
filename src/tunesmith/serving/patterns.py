"""Patterns in texts, and in texts that are still being generated.

Unlike `re`, `regex` can tell whether the end of a text may be the beginning of a match. So a pattern is found whole
however the text arrives in pieces, and nothing that could become a match is sent before that is decided.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import regex

from tunesmith.errors import RecipeError

TIMEOUT_SECONDS = 1.0
"""Time limit of one search: a pattern of a recipe can be slow on hostile texts."""
MAX_PERIOD = 8
"""Words of the longest phrase whose repetition is noticed."""
API_KEYS = (
    r"sk-[A-Za-z0-9_-]{16,}",
    r"gh[pousr]_[A-Za-z0-9]{20,}",
    r"github_pat_\w{20,}",
    r"hf_[A-Za-z0-9]{20,}",
    r"xox[abprs]-[A-Za-z0-9-]{10,}",
    r"AKIA[0-9A-Z]{16}",
    r"AIza[\w-]{35}",
    r"eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,}",
    r"-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----",
)


def _is_card(text: str) -> bool:
    """Return whether 13 to 19 digits in whole groups are a card number: a known first digit and Luhn's checksum."""
    groups = regex.split("[ -]", text)
    for first in range(len(groups)):
        for last in range(first + 1, len(groups) + 1):
            digits = "".join(groups[first:last])
            if 13 <= len(digits) <= 19 and digits[0] in "23456":
                doubled = [int(digit) * (1 + index % 2) for index, digit in enumerate(reversed(digits))]
                if sum(number - 9 * (number > 9) for number in doubled) % 10 == 0:
                    return True
    return False


BUILT_IN: dict[str, tuple[str, Callable[[str], bool] | None]] = {
    "email": (r"(?<![\w.+%-])[\w.+%-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}", None),
    "phone": (
        r"(?<![\w+])(?:\+\d{1,3}(?:[ ./-]?(?:\(\d{1,5}\)|\d{1,5})){2,5}|\(\d{2,5}\)[ -]?\d{3,5}(?:[ -]?\d{2,5}){0,2}"
        r"|\d{3,5}[ ./-]\d{3,4}[ .-]\d{3,4})(?!\w)",
        lambda text: 7 <= sum(character.isdigit() for character in text) <= 15,
    ),
    "card": (r"(?<!\w)\d(?:[ -]?\d){12,}(?!\w)", _is_card),
    "key": (rf"(?<![\w-])(?:{'|'.join(API_KEYS)})", None),
}
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
