"""Characters that are not what their author wrote: wrong encodings, escapes and markup that were left in texts."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ftfy import badness, fix_encoding

from tunesmith.auditing.row_counts import RowCount
from tunesmith.data import personal_data

AROUND = 15
"""Characters shown on each side of a problem."""


@dataclass(frozen=True, slots=True)
class EncodingProblem:
    """One kind of wrong character."""

    kind: str
    count: RowCount
    example: str
    """Its first occurrence, with what stands around it, and personal data masked."""
    repaired: str
    """The same as ftfy repairs it; empty where nothing is to be repaired."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """What to look for, and a test that most texts without it fail at once."""

    pattern: re.Pattern[str]
    possible: Callable[[str], bool]


def _has_other(text: str) -> bool:
    return not text.isascii()


MOJIBAKE = "wrong encoding"
KINDS = {
    MOJIBAKE: _Kind(badness.BADNESS_RE, _has_other),
    "lost characters": _Kind(re.compile("\ufffd+"), lambda text: "\ufffd" in text),
    "control characters": _Kind(re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]+"), lambda text: not text.isprintable()),
    "invisible characters": _Kind(re.compile("[\u200b\u2060\ufeff\u00ad\u202a-\u202e\u2066-\u2069]+"), _has_other),
    "HTML entities": _Kind(
        re.compile(r"&(?:[A-Za-z]{2,8}|#\d{2,6}|#[xX][0-9a-fA-F]{2,5});|(?<![\w&])#\d{2,4};"), lambda text: ";" in text
    ),
    "HTML tags": _Kind(
        re.compile(
            r"</?(?:br|p|div|span|a|b|i|em|strong|ul|ol|li|table|tr|td|img|h[1-6])\b[^<>]{0,200}>", re.IGNORECASE
        ),
        lambda text: "<" in text,
    ),
    "escaped characters": _Kind(
        re.compile(r"\\(?:[nrt](?![a-z])|[\"']|u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2})"), lambda text: "\\" in text
    ),
    "stray backslashes": _Kind(
        re.compile(r"(?<=[a-z.,;)])\\(?=[A-Za-z])(?![nrt](?![a-z]))"),
        lambda text: "\\" in text and ":\\" not in text,  # which begins a path
    ),
}
"""Kinds of problems by name. `wrong encoding` is what ftfy calls mojibake: UTF-8 read as Latin-1, and its like."""


def find(ids: Sequence[str], texts: Sequence[str]) -> tuple[EncodingProblem, ...]:
    """Return the problems that occur in texts, the most frequent first."""
    problems = []
    for name, kind in KINDS.items():
        rows: list[str] = []
        first = None
        for row, text in zip(ids, texts, strict=True):
            if kind.possible(text) and (match := kind.pattern.search(text)):
                rows.append(row)
                first = first or (text, match.span())
        if first:
            example = _around(*first)
            repaired = _around(*first, fix_encoding) if name == MOJIBAKE else ""
            problems.append(EncodingProblem(name, RowCount.of(rows), example, "" if repaired == example else repaired))
    return tuple(sorted(problems, key=lambda problem: -problem.count.rows))


def _around(text: str, span: tuple[int, int], repair: Callable[[str], str] = str) -> str:
    """Return a part of a text on one line, with personal data masked before anything of it could be cut."""
    start, end = span
    before, found, behind = (personal_data.masked(part) for part in (text[:start], text[start:end], text[end:]))
    part = re.sub(r"[ \t\r\n]+", " ", repair(before[-AROUND:] + found[:AROUND] + behind[:AROUND])).strip(" ")
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in part)
