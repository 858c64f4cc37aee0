"""Texts of random words, any two of which have little in common."""

from __future__ import annotations

import random

LETTERS = "bcdfghjklm"
WORDS = [f"{first}a{second}o{third}" for first in LETTERS for second in LETTERS for third in LETTERS]


def text(seed: int, words: int = 30) -> str:
    """Return a text of so many words, the same for the same seed."""
    return " ".join(random.Random(seed).choices(WORDS, k=words))
