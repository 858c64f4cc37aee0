"""Differences between texts that mean little: case, white space, punctuation, markup, addresses, numbers.

A fold takes one kind of difference out of a text. Texts that are equal after all folds are duplicates of grade
`normalised`, and `between` names the folds that make them so.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable

Fold = Callable[[str], str]
TAG = re.compile(r"</?[a-z][^<>]{0,500}>|<!--.{0,2000}?-->", re.IGNORECASE | re.DOTALL)
ADDRESS = re.compile(r"(?:https?://|ftp://|www\.)[^\s<>\"]+|\b[\w.+-]+@[\w-]+\.[\w.]+", re.IGNORECASE)
NUMBER = re.compile(r"\d+(?:[.,:/-]\d+)*")
SPACE = " "
FEWEST_CHARACTERS = 20
"""Letters that a text must have besides its numbers: `text 1` and `text 2` are different texts."""


def fold_unicode(text: str) -> str:
    """Return the text in Unicode's form NFKC: `ﬁ` is `fi`, full-width letters are plain ones, accents are composed."""
    return text if text.isascii() else unicodedata.normalize("NFKC", text)


def fold_html(text: str) -> str:
    """Return the text without tags and comments, and with entities as their characters."""
    if "&" in text:
        text = html.unescape(html.unescape(text))  # `&amp;lt;` is common in data that was escaped twice
    return fold_white_space(TAG.sub(SPACE, text)) if "<" in text else text


def fold_addresses(text: str) -> str:
    """Return the text with every URL and e-mail address as `url`."""
    return ADDRESS.sub("url", text) if _has_address(text) else text


def _has_address(text: str) -> bool:
    return "@" in text or "://" in text or "www." in text or "WWW." in text


def fold_case(text: str) -> str:
    """Return the text in lower case, by Unicode's case folding."""
    return text.casefold()


def fold_digits(text: str) -> str:
    """Return the text with every number, date and time as `0`; short texts, which may be all about it, as they are."""
    folded, numbers = NUMBER.subn("0", text)
    return folded if len(folded) - numbers >= FEWEST_CHARACTERS else text


def fold_punctuation(text: str) -> str:
    """Return the text without all characters that are no letters, marks, digits or pictographs; they separate words."""
    without = text.translate(_PUNCTUATION)
    return text if without == text else fold_white_space(without)


def fold_white_space(text: str) -> str:
    """Return the words of the text with one space between them."""
    return SPACE.join(text.split())


FOLDS: dict[str, Fold] = {
    "unicode": fold_unicode,
    "html": fold_html,
    "urls": fold_addresses,
    "case": fold_case,
    "digits": fold_digits,
    "punctuation": fold_punctuation,
    "white space": fold_white_space,
}
"""Every fold by its name, in the order in which they are applied."""
ALL = tuple(FOLDS)


class _Punctuation(dict[int, int]):
    """A table for `str.translate` that asks Unicode once for each character that it meets."""

    def __missing__(self, code: int) -> int:
        category = unicodedata.category(chr(code))
        is_kept = category[0] in "LMN" or category == "So"
        self[code] = code if is_kept else ord(SPACE)
        return self[code]


_PUNCTUATION = _Punctuation()


def fold(text: str, folds: tuple[str, ...] = ALL) -> str:
    """Return the text after these folds. One that leaves no letter is left out: `:)` and `10/10` stay what they are."""
    if folds is ALL and _is_plain(text):
        return fold_white_space(fold_digits(text.lower()).translate(_PUNCTUATION))
    for name in folds:
        folded = FOLDS[name](text)
        if folded != text and (name == "white space" or any(map(str.isalpha, folded))):
            text = folded
    return text


def _is_plain(text: str) -> bool:
    """Return whether a text has letters, and neither markup nor addresses nor anything but ASCII."""
    has_markup = "<" in text or "&" in text or _has_address(text)
    return text.isascii() and not has_markup and any(map(str.isalpha, text))


def between(text: str, other: str) -> tuple[str, ...]:
    """Return the fewest folds that make two texts equal, none of which can be left out; all where they never are."""
    needed = ALL
    for name in ALL:
        fewer = tuple(kept for kept in needed if kept != name)
        if fold(text, fewer) == fold(other, fewer):
            needed = fewer
    return needed
