"""Rows of random words, of which nothing tells the label."""

from __future__ import annotations

import random
from collections.abc import Sequence

from tunesmith.types import Example

WORDS = [f"word{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(300)]


def random_rows(count: int, seed: int = 0, labels: Sequence[str] = ("yes", "no"), words: int = 10) -> list[Example]:
    """Labels in turn, and texts of equal length."""
    draw = random.Random(seed)
    return [
        Example(f"{seed}:{n}", " ".join(draw.choices(WORDS, k=words)), label=labels[n % len(labels)])
        for n in range(count)
    ]
