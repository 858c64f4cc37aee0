"""Folded texts as sets of hashed words and word pairs, many texts at once.

Shapes: N texts, W words, S shingles of all texts together. A text of w words has w words and w - 1 pairs of neighbours;
equal ones count once in every measure of `near_duplicates`.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from tunesmith.data.text_keys import Hashes, Index

ODD = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB], dtype=np.uint64)
"""The multipliers of splitmix64 (Steele et al. 2014)."""
SPACE = ord(" ")
LONGEST = 64
"""Bytes of a word that are hashed in bulk, eight at a time; longer ones are hashed one by one."""
LOW_BYTES = np.array([(1 << 8 * count) - 1 for count in range(9)], dtype=np.uint64)
UNSPACED = (
    *((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF)),  # Thai, Lao, Burmese, Khmer
    *((0x2E80, 0x2FDF), (0x3005, 0x3007), (0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF)),  # Japanese, Chinese
    *((0xF900, 0xFAFF), (0x20000, 0x3FFFF), (0x1F000, 0x1FAFF)),  # and pictographs
)
"""Ranges of characters that are words of their own, as nothing separates the words of their languages."""


def encode(text: str) -> bytes:
    """Return a folded text as `of_texts` takes it: as UTF-8, with a space after each word."""
    spaced = text if text.isascii() else " ".join(text.translate(_SPACED).split())
    return f"{spaced} ".encode("utf-8", "surrogatepass") if spaced else b""


def of_texts(encoded: bytes, starts_N1: Index) -> tuple[Hashes, Index]:
    """Return the shingles of texts, S, and where those of each text begin and end, N + 1.

    encoded: what `encode` made of the texts, one after the other. starts_N1: where each begins, and the last one ends.
    """
    padded = np.frombuffer(encoded + bytes(8), dtype=np.uint8)
    end_W = np.flatnonzero(padded[: len(encoded)] == SPACE)
    words_W = _word_hashes(padded, np.concatenate([[0], end_W[:-1] + 1])[: len(end_W)], end_W)
    shingles_S = np.empty(2 * len(words_W), dtype=np.uint64)
    shingles_S[::2] = words_W
    shingles_S[1:-1:2] = _mixed(words_W[:-1] * ODD[0] ^ _mixed(words_W[1:] + ODD[2]))
    first_N1 = np.searchsorted(end_W, starts_N1)
    last_N = first_N1[1:][np.diff(first_N1) > 0] - 1
    shingles_S[2 * last_N + 1] = words_W[last_N]  # has no neighbour, and counts once
    return shingles_S, 2 * first_N1


class _Spaced(dict[int, str]):
    """A table for `str.translate` that puts spaces around characters that are words of their own."""

    def __missing__(self, code: int) -> str:
        is_word = any(first <= code <= last for first, last in UNSPACED)
        self[code] = f" {chr(code)} " if is_word else chr(code)
        return self[code]


_SPACED = _Spaced()


def _word_hashes(padded: npt.NDArray[np.uint8], start_W: Index, end_W: Index) -> Hashes:
    """Return the hash of each word, the same in every process. padded: eight bytes more than there are."""
    eight = np.ndarray(len(padded) - 7, dtype="<u8", buffer=padded, strides=(1,))
    length_W = end_W - start_W
    hashes_W = _mixed(length_W.astype(np.uint64))
    longer = np.arange(len(length_W))
    for at in range(0, LONGEST, 8):
        longer = longer[length_W[longer] > at]
        if not len(longer):
            return hashes_W
        part = eight[start_W[longer] + at] & LOW_BYTES[np.minimum(length_W[longer] - at, 8)]
        hashes_W[longer] = _mixed(hashes_W[longer] ^ part)
    for i in longer[length_W[longer] > LONGEST].tolist():
        hashed = hashlib.blake2b(padded[start_W[i] : end_W[i]].tobytes(), digest_size=8).digest()
        hashes_W[i] = int.from_bytes(hashed, "little")
    return hashes_W


def _mixed(values: Hashes) -> Hashes:
    """Return 64-bit integers with their bits mixed, by the finalizer of splitmix64."""
    mixed: Hashes = values + ODD[0]
    mixed ^= mixed >> np.uint64(30)
    mixed *= ODD[1]
    mixed ^= mixed >> np.uint64(27)
    mixed *= ODD[2]
    mixed ^= mixed >> np.uint64(31)
    return mixed
