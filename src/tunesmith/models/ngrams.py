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
Span = tuple[int, int]
"""A first character, and the one behind the last."""


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

    def located(self, example: Example) -> Iterator[tuple[str, list[Span]]]:
        """Yield the n-grams of an example with the places of their words, or of their characters, in its text."""
        yield from self._located(example.text)
        if example.text_pair is not None:
            yield from ((SECOND + gram, places) for gram, places in self._located(example.text_pair))

    def _located(self, text: str) -> Iterator[tuple[str, list[Span]]]:
        lowered = [character.lower() if self.settings.lowercase else character for character in text]
        origins = [place for place, letters in enumerate(lowered) for _ in letters]  # some become two
        text = text.lower() if self.settings.lowercase else text

        def original(start: int, end: int) -> Span:
            return origins[start], origins[end - 1] + 1

        if self.settings.word_ngrams:
            shortest, longest = self.settings.word_ngrams
            words = [(match[0], original(*match.span())) for match in WORD.finditer(text)]
            for n in range(shortest, longest + 1):
                for group in zip(*(words[i:] for i in range(n)), strict=False):
                    yield " ".join(word for word, _ in group), [place for _, place in group]
        if self.settings.char_ngrams:
            for match in re.finditer(r"\S+", text):
                place = size = 0
                for gram in characters(match[0], *self.settings.char_ngrams):
                    place, size = (place + 1, size) if len(gram) == size else (0, len(gram))
                    start = match.start() + place - 1  # in front of the token stands a space
                    end = min(start + len(gram.removeprefix(CHARACTERS)), match.end())
                    start = min(max(start, match.start()), match.end() - 1)
                    yield gram, [original(start, max(start + 1, end))]
