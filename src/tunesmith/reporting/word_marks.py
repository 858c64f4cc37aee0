"""Texts whose words are marked by what they contribute."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tunesmith.types import WordContribution

FAINT = 0.1
"""Share of the strongest word's contribution below which a word is not marked."""


def pieces(text: str, words: Sequence[WordContribution], second: bool = False) -> Iterator[tuple[str, float, float]]:
    """Yield a text in pieces, each with its contribution, and that as a share (-1 to 1) of the strongest word's.

    Both are 0 for what is not marked. words: of one text or of both, of which the second is asked for.
    """
    strongest = max((abs(word.contribution) for word in words), default=0)
    end = 0
    for word in words:
        if bool(word.second) != second or not strongest or abs(share := word.contribution / strongest) < FAINT:
            continue
        if word.start >= len(text):
            break
        if word.start > end:
            yield text[end : word.start], 0.0, 0.0
        end = word.start + len(word.word)
        yield text[word.start : end], word.contribution, share
    if end < len(text):
        yield text[end:], 0.0, 0.0


def visible(words: Sequence[WordContribution]) -> tuple[WordContribution, ...]:
    """Return the words that are marked."""
    strongest = max((abs(word.contribution) for word in words), default=0)
    return tuple(word for word in words if strongest and abs(word.contribution) >= FAINT * strongest)
