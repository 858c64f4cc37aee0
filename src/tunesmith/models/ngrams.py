"""The n-grams of one text, as scikit-learn's analyzers `word` and `char_wb` define them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tunesmith.recipe import Linear
from tunesmith.types import Example

WORD = re.compile(r"(?u)\b\w\w+\b")
SECOND = "2|"
"""Marks n-grams of the second text of a pair, to tell the two texts apart."""
CHARACTERS = "c|"
"""Marks n-grams of characters."""


def characters(token: str, shortest: int, longest: int) -> Iterator[str]:
    """Yield the character n-grams of a token, which is text between white space."""
    word = f" {token} "
    for n in range(shortest, longest + 1):
        yield from (f"{CHARACTERS}{word[i : i + n]}" for i in range(max(1, len(word) - n + 1)))
        if n >= len(word):  # a short word counts once, as a whole
            break


@dataclass(frozen=True)
class BagOfWords:
    """The analyzer of a recipe."""

    settings: Linear

    def __call__(self, example: Example) -> list[str]:
        """Return all n-grams of an example."""
        grams = self._grams(example.text)
        if example.text_pair is not None:
            grams += [SECOND + gram for gram in self._grams(example.text_pair)]
        return grams

    def _grams(self, text: str) -> list[str]:
        text = text.lower() if self.settings.lowercase else text
        grams: list[str] = []
        if self.settings.word_ngrams:
            shortest, longest = self.settings.word_ngrams
            words = WORD.findall(text)
            for n in range(shortest, longest + 1):
                grams += words if n == 1 else map(" ".join, zip(*(words[i:] for i in range(n)), strict=False))
        if self.settings.char_ngrams:
            for token in text.split():
                grams += characters(token, *self.settings.char_ngrams)
        return grams
