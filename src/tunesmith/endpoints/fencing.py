"""Texts of strangers in a prompt: between marks that no text can imitate, and without special tokens."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable

SPECIAL = re.compile(r"<(?=[|｜]|/?s>|(?:start|end)_of_turn>|<SYS>>|</SYS>>)|\[(?=/?INST\])")
"""The start of a special token of some chat template: broken up, so that no tokenizer takes the text for one."""


def mark(basis: object, texts: Iterable[str]) -> str:
    """Return a mark that none of the texts contains: 16 hex digits of the hash of `basis`, which JSON must hold.

    Where a text contains the mark, another one is made; so no text can imitate the one that is used.
    """
    texts = list(texts)
    for attempt in range(1000):
        digits = hashlib.sha256(json.dumps([attempt, basis]).encode()).hexdigest()[:16]
        if not any(digits in text for text in texts):
            return f"#{digits}"
    raise AssertionError("one text contains a thousand hashes")


def fence(mark: str, name: str, text: str) -> str:
    """Return a text between two lines that begin with the mark."""
    safe = SPECIAL.sub(lambda match: match[0] + " ", text).strip("\n")
    return f"{mark} {name} begins\n{safe}\n{mark} {name} ends"
