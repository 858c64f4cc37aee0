"""What rows with the same text have in common: a hash of the text, or of both texts of a pair."""

from __future__ import annotations

import hashlib

from tunesmith.types import Example, TextKey


def digest(text: str, of: bytes = b"") -> bytes:
    """Return a hash of 16 bytes. of: what kind of text it is; texts of two kinds have different hashes."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16, person=of).digest()


def text_digest(text: str, text_pair: str | None) -> bytes:
    """Return the hash of a text, or of a pair of texts."""
    if text_pair is None:
        return digest(text)
    return digest(f"{len(text)} {text}{text_pair}", of=b"pair")


def text_key(row: Example) -> TextKey:
    """Return what two rows with the same text have in common."""
    return int.from_bytes(text_digest(row.text, row.text_pair), "big")
