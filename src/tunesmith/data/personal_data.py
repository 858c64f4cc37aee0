"""E-mail addresses, phone and card numbers, and keys in texts: what the guard of `serve` masks and `audit` counts."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

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
KEY_STARTS = ("sk-", "gh", "github_pat_", "hf_", "xox", "AKIA", "AIza", "eyJ", "-----BEGIN")
"""What a text with a key contains, so that most texts need no search."""
LONG_NUMBER = re.compile(r"\d{7,}")
"""A number that `masked` shortens, although it need not be a phone number."""
DIGIT = re.compile(r"\d")
Span = tuple[int, int, str]
"""A first character, the one behind the last, and the kind."""


def _is_card(text: str) -> bool:
    """Return whether 13 to 19 digits in whole groups are a card number: a known first digit and Luhn's checksum."""
    groups = re.split("[ -]", text)
    for first in range(len(groups)):
        for last in range(first + 1, len(groups) + 1):
            digits = "".join(groups[first:last])
            if 13 <= len(digits) <= 19 and digits[0] in "23456":
                doubled = [int(digit) * (1 + index % 2) for index, digit in enumerate(reversed(digits))]
                if sum(number - 9 * (number > 9) for number in doubled) % 10 == 0:
                    return True
    return False


PATTERNS: dict[str, tuple[str, Callable[[str], bool] | None]] = {
    "email": (r"(?<![\w.+%-])[\w.+%-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}", None),
    "phone": (
        r"(?<![\w+])(?:\+\d{1,3}(?:[ ./-]?(?:\(\d{1,5}\)|\d{1,5})){2,5}|\(\d{2,5}\)[ -]?\d{3,5}(?:[ -]?\d{2,5}){0,2}"
        r"|\d{3,5}[ ./-]\d{3,4}[ .-]\d{3,4})(?!\w)",
        lambda text: 7 <= sum(character.isdigit() for character in text) <= 15,
    ),
    "card": (r"(?<!\w)\d(?:[ -]?\d){12,}(?!\w)", _is_card),
    "key": (rf"(?<![\w-])(?:{'|'.join(API_KEYS)})", None),
}
"""Regular expressions by name, for `re` and `regex`, each with a further check of a match where it needs one."""


@cache
def _compiled(kind: str) -> re.Pattern[str]:
    return re.compile(PATTERNS[kind][0])


def spans(text: str) -> list[Span]:
    """Return the personal data in a text, in the order of the text; of overlapping ones, a card or key first."""
    kinds = [
        *(["key"] if any(start in text for start in KEY_STARTS) else []),
        *(["email"] if "@" in text else []),
        *(["card", "phone"] if DIGIT.search(text) else []),
    ]
    taken, covered = [], bytearray(len(text) if kinds else 0)
    for kind in kinds:
        check = PATTERNS[kind][1]
        for match in _compiled(kind).finditer(text):
            start, end = match.span()
            if (check is None or check(match[0])) and not any(covered[start:end]):
                taken.append((start, end, kind))
                covered[start:end] = b"\1" * (end - start)
    return sorted(taken)


def masked(text: str) -> str:
    """Return a text with personal data replaced by its kind in brackets, and long numbers by `[number]`."""
    parts, behind = [], 0
    for start, end, kind in spans(text):
        parts += [text[behind:start], f"[{kind}]"]
        behind = end
    return LONG_NUMBER.sub("[number]", "".join([*parts, text[behind:]]))
