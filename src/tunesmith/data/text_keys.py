"""What rows with the same text have in common: a hash of the text, or of both texts of a pair.

Shapes: N texts, U different ones.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from tunesmith.types import Example, TextKey

Hashes = npt.NDArray[np.uint64]
Index = npt.NDArray[np.int64]


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


def hashes(digests: bytes | bytearray) -> Hashes:
    """Return digests of 16 bytes, one after the other, as two numbers each, N x 2."""
    return np.frombuffer(digests, dtype=">u8").astype(np.uint64).reshape(-1, 2)


def numbered(hashes_N2: Hashes) -> tuple[Index, Index]:
    """Return where each different hash is first, U, and the place of each hash in that list, N."""
    order = np.lexsort(hashes_N2.T[::-1])  # stable: of equal hashes the first stays in front
    is_new = np.ones(len(order), dtype=bool)
    is_new[1:] = (hashes_N2[order[1:]] != hashes_N2[order[:-1]]).any(axis=1)
    first_U = order[is_new]
    by_appearance = np.argsort(first_U)
    rank_U = np.empty_like(by_appearance)
    rank_U[by_appearance] = np.arange(len(first_U))
    number_N = np.empty(len(order), dtype=np.int64)
    number_N[order] = rank_U[is_new.cumsum() - 1]
    return first_U[by_appearance], number_N
