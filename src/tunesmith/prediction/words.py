"""The words of texts, and sums over them."""

from __future__ import annotations

import re
import unicodedata

import numpy as np

from tunesmith.models.ngrams import Span
from tunesmith.types import Example, WordContribution

WORD = re.compile("w+(?:'w+)*|i|[p']+")
"""A word in the kinds of its characters: letters, with apostrophes between them; one ideograph; or punctuation."""
IDEOGRAPHS = (("\u3040", "\u30ff"), ("\u3400", "\u4dbf"), ("\u4e00", "\u9fff"), ("\uf900", "\ufaff"))
"""First and last kana and Han characters, which are written without spaces between words."""


class Words:
    """The words of one text or two, with a sum for each."""

    def __init__(self, example: Example) -> None:
        self.texts = texts_of(example)
        self.spans = [(number, span) for number, text in enumerate(self.texts) for span in spans(text)]
        """Of each word: its text (0 or 1), and its characters there."""
        self.sums = np.zeros(len(self.spans))
        self._owners = [np.full(len(text), -1) for text in self.texts]
        for word, (number, (start, end)) in enumerate(self.spans):
            self._owners[number][start:end] = word

    def add(self, number: int, span: Span, amount: float) -> None:
        """Divide an amount among the words of some characters; white space alone counts for the word before it."""
        if not self.spans:
            return
        owners = self._owners[number]
        inside = owners[slice(*span)]
        inside = inside[inside >= 0]
        if not len(inside):
            before = owners[: span[0]]
            nearest = (before[before >= 0][-1:], owners[owners >= 0][:1], np.zeros(1, np.int64))
            inside = next(filter(len, nearest))
        np.add.at(self.sums, inside, amount / len(inside))

    def contributions(self) -> tuple[WordContribution, ...]:
        """Return every word with its sum."""
        return tuple(
            WordContribution(self.texts[number][start:end], start, float(amount), True if number else None)
            for (number, (start, end)), amount in zip(self.spans, self.sums, strict=True)
        )


def texts_of(example: Example) -> tuple[str, ...]:
    """Return the text of an example, or both."""
    return (example.text,) if example.text_pair is None else (example.text, example.text_pair)


def spans(text: str) -> list[Span]:
    """Return the first character of each word of a text, and the one behind its last."""
    return [match.span() for match in WORD.finditer("".join(map(_kind, text)))]


def _kind(character: str) -> str:
    if character.isspace():
        return " "
    if character in "'’":
        return "'"
    if any(first <= character <= last for first, last in IDEOGRAPHS):
        return "i"
    return "w" if character == "_" or unicodedata.category(character)[0] in "LMNC" else "p"
