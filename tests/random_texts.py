"""Texts of random words, any two of which have little in common."""

from __future__ import annotations

import random

WORDS = [f"w{letter}{other}x" for letter in "bcdfghjklm" for other in "npqrstvwyz"]


def text(seed: int, words: int = 30) -> str:
    """Return a text of so many words, the same for the same seed."""
    return " ".join(random.Random(seed).choices(WORDS, k=words))
