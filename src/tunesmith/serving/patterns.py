"""Patterns in texts, and in texts that are still being written.

`regex` (and not `re`) can say whether the end of a text may be the beginning of a match. So a pattern is found whole
however a text arrives in pieces, and nothing that could become a match is given out before it is known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import regex

from tunesmith.errors import RecipeError

SECONDS = 1.0
"""Most time that one search may take: a pattern of a recipe can be slow on hostile texts."""
KEYS = (
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
    """Whether 13 to 19 digits in whole groups are a card number: a known first digit and Luhn's check sum."""
    groups = regex.split("[ -]", text)
    for first in range(len(groups)):
        for last in range(first + 1, len(groups) + 1):
            digits = "".join(groups[first:last])
            if 13 <= len(digits) <= 19 and digits[0] in "23456" and _luhn(digits):
                return True
    return False


def _luhn(digits: str) -> bool:
    doubled = [int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits))]
    return sum(number - 9 * (number > 9) for number in doubled) % 10 == 0


READY: dict[str, tuple[str, Callable[[str], bool] | None]] = {
    "email": (r"(?<![\w.+%-])[\w.+%-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}", None),
    "phone": (
        r"(?<![\w+])(?:\+\d{1,3}(?:[ ./-]?(?:\(\d{1,5}\)|\d{1,5})){2,5}|\(\d{2,5}\)[ -]?\d{3,5}(?:[ -]?\d{2,5}){0,2}"
        r"|\d{3,5}[ ./-]\d{3,4}[ .-]\d{3,4})(?!\w)",
        lambda text: 7 <= sum(letter.isdigit() for letter in text) <= 15,
    ),
    "card": (r"(?<!\w)\d(?:[ -]?\d){12,}(?!\w)", _is_card),
    "key": (rf"(?<![\w-])(?:{'|'.join(KEYS)})", None),
}
"""Patterns by name, and what a match must be besides."""


@dataclass(frozen=True)
class Span:
    """Where a pattern stands in a text."""

    start: int
    end: int
    name: str
    blocks: bool = False
    counts: bool = True
    """False where it only looks like one: what follows is still searched from behind it."""


@dataclass(frozen=True)
class Pattern:
    """Something to look for in texts."""

    name: str
    compiled: regex.Pattern[str]
    check: Callable[[str], bool] | None = None
    blocks: bool = False
    """A text with this is not let through; otherwise it is masked."""

    @classmethod
    def of(cls, text: str, blocks: bool = False) -> Pattern:
        """One of READY by its name, or a regular expression. Raises RecipeError for what is none."""
        if text in READY:
            expression, check = READY[text]
            return cls(text, regex.compile(expression), check, blocks)
        try:
            compiled = regex.compile(text)
        except regex.error as error:
            raise RecipeError(
                f"serve.guard: {text!r} is no regular expression", found=str(error), expected=", ".join(READY)
            ) from error
        if compiled.search(""):
            raise RecipeError(f"serve.guard: {text!r} matches the empty text", do="ask for at least one letter")
        return cls("pattern" if blocks else "masked", compiled, None, blocks)

    def spans(self, text: str, start: int) -> list[Span]:
        """All that looks like it, from `start` on."""
        return [
            Span(match.start(), match.end(), self.name, self.blocks, self.check is None or self.check(match.group()))
            for match in self.compiled.finditer(text, start, timeout=SECONDS)
            if match.end() > match.start()
        ]

    def settled(self, text: str, start: int) -> int:
        """The place from which on further text can make or change a match."""
        places = range(start, len(text))
        may_go_on = (i for i in places if self.compiled.fullmatch(text, i, partial=True, timeout=SECONDS))
        return next(may_go_on, len(text))


def search(patterns: Sequence[Pattern], text: str, start: int = 0, whole: bool = True) -> tuple[list[Span], int]:
    """What stands in a text from `start` on, and the place up to which that is final; whole: no further text comes.

    Raises TimeoutError where it takes too long.
    """
    spans = [span for pattern in patterns for span in pattern.spans(text, start)]
    ends = [] if whole else [pattern.settled(text, start) for pattern in patterns]
    end = before(spans, min(ends, default=len(text)))
    return sorted((span for span in spans if span.counts and span.end <= end), key=lambda one: one.start), end


def before(spans: Sequence[Span], end: int) -> int:
    """The last place up to `end` where a text can be parted without parting a span."""
    while cut := [span.start for span in spans if span.start < end < span.end]:
        end = min(cut)
    return end


def mask(text: str, spans: Sequence[Span]) -> str:
    """The text with names in brackets instead of what they stand for; of those that overlap, the first one's."""
    parts: list[str] = []
    done = 0
    for span in spans:
        if span.start >= done:
            parts += [text[done : span.start], f"[{span.name}]"]
        done = max(done, span.end)
    return "".join([*parts, text[done:]])


def repeats(text: str, most: int) -> int | None:
    """Where the same 1 to 8 words stand more than `most` times in a row: the end of what is still allowed, or None."""
    words: list[tuple[int, int]] = [match.span() for match in regex.finditer(r"\S+", text)]
    said = [text[start:end].casefold() for start, end in words]
    runs = dict.fromkeys(range(1, 9), 0)
    for place in range(len(said)):
        for period in runs:
            same = place >= period and said[place] == said[place - period]
            runs[period] = runs[period] + 1 if same else 0
            if runs[period] >= period * most:
                return words[place - period + 1][0]
    return None
