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
    r"sk-[A-Za-z0-9_-]{16,}", r"gh[pousr]_[A-Za-z0-9]{20,}", r"github_pat_\w{20,}", r"hf_[A-Za-z0-9]{20,}",
    r"xox[abprs]-[A-Za-z0-9-]{10,}", r"AKIA[0-9A-Z]{16}", r"AIza[\w-]{35}", r"eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,}",
    r"-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----",
)  # fmt: skip


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


@dataclass(frozen=True)
class Pattern:
    """Something to look for in texts."""

    name: str
    compiled: regex.Pattern[str]
    check: Callable[[str], bool] | None = None

    @classmethod
    def of(cls, text: str) -> Pattern:
        """One of READY by its name, or a regular expression. Raises RecipeError for what is none."""
        if text in READY:
            expression, check = READY[text]
            return cls(text, regex.compile(expression), check)
        try:
            compiled = regex.compile(text)
        except regex.error as error:
            raise RecipeError(
                f"serve.guard: {text!r} is no regular expression", found=str(error), expected=", ".join(READY)
            ) from error
        if compiled.search(""):
            raise RecipeError(f"serve.guard: {text!r} matches the empty text", do="ask for at least one letter")
        return cls("masked", compiled)

    def spans(self, text: str, start: int, whole: bool) -> tuple[list[Span], int]:
        """Matches from `start` on, and the place from which on further text can make or change one.

        whole: there is no further text.
        """
        found = [
            Span(match.start(), match.end(), self.name)
            for match in self.compiled.finditer(text, start, timeout=SECONDS)
            if match.end() > match.start() and (self.check is None or self.check(match.group()))
        ]
        ends = range(0) if whole else range(start, len(text))
        may_go_on = (i for i in ends if self.compiled.fullmatch(text, i, partial=True, timeout=SECONDS))
        return found, next(may_go_on, len(text))


def search(patterns: Sequence[Pattern], text: str, start: int = 0, whole: bool = True) -> tuple[list[Span], int]:
    """What stands in a text, overlaps as one, and the place up to which that is final. TimeoutError if it is slow."""
    found: list[Span] = []
    settled = len(text)
    for pattern in patterns:
        spans, end = pattern.spans(text, start, whole)
        found += spans
        settled = min(settled, end)
    merged: list[Span] = []
    for span in sorted(found, key=lambda one: (one.start, -one.end)):
        if merged and span.start < merged[-1].end:
            last = merged[-1]
            merged[-1] = Span(last.start, max(last.end, span.end), last.name)
        else:
            merged.append(span)
    # one that reaches beyond what is final is not final either
    for span in reversed(merged):
        settled = span.start if span.start < settled < span.end else settled
    return [span for span in merged if span.end <= settled], settled


def mask(text: str, spans: Sequence[Span]) -> str:
    """The text with names in brackets instead of what they stand for."""
    parts, done = [], 0
    for span in spans:
        parts += [text[done : span.start], f"[{span.name}]"]
        done = span.end
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
