"""Texts as sets of hashed words and word pairs, many texts at once.

Shapes: N texts, C characters, W words, S shingles of all texts together. A text of w words has w words and w - 1 pairs
of neighbours; equal ones count once in every measure of `near_duplicates`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Index = npt.NDArray[np.int64]
ODD = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB], dtype=np.uint64)
"""The multipliers of splitmix64 (Steele et al. 2014)."""
MOST_WORDS = 1 << 20
"""Words whose hashes are kept in memory: about 200 MB."""
UNSPACED = (
    *((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF)),  # Thai, Lao, Burmese, Khmer
    *((0x2E80, 0x2FDF), (0x3005, 0x3007), (0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF)),  # Japanese, Chinese
    *((0xF900, 0xFAFF), (0x20000, 0x3FFFF), (0x1F000, 0x1FAFF)),  # and pictographs
)
"""Ranges of characters that are words of their own, as nothing separates the words of their languages."""


def of_texts(texts: Sequence[str], known: WordHashes | None = None) -> tuple[Hashes, Index]:
    """Return the shingles of folded texts, S, and where those of each text begin and end, N + 1.

    known: hashes of words, kept from call to call.
    """
    spaced = [text if text.isascii() else _spaced(text) for text in texts]
    counts_N = np.array([text.count(" ") + 1 if text else 0 for text in spaced], dtype=np.int64)
    hashes = WordHashes() if known is None else known
    words = chain.from_iterable(text.split(" ") for text in spaced if text)
    words_W = np.fromiter(map(hashes.__getitem__, words), dtype=np.uint64, count=int(counts_N.sum()))
    sizes_N = np.maximum(2 * counts_N - 1, 0)
    bounds = np.concatenate([[0], sizes_N.cumsum()])
    shingles_S = np.empty(bounds[-1], dtype=np.uint64)
    first_N = counts_N.cumsum() - counts_N
    text_W = np.repeat(np.arange(len(texts)), counts_N)
    place_W = np.arange(len(words_W)) - first_N[text_W]
    shingles_S[bounds[text_W] + place_W] = words_W
    has_next_W = place_W < counts_N[text_W] - 1
    starts = np.flatnonzero(has_next_W)
    pairs = _mixed(words_W[starts] * ODD[0] ^ _mixed(words_W[starts + 1] + ODD[2]))
    shingles_S[bounds[text_W[starts]] + counts_N[text_W[starts]] + place_W[starts]] = pairs
    return shingles_S, bounds


def _spaced(text: str) -> str:
    return " ".join(text.translate(_SPACED).split())


class _Spaced(dict[int, str]):
    """A table for `str.translate` that puts spaces around characters that are words of their own."""

    def __missing__(self, code: int) -> str:
        is_word = any(first <= code <= last for first, last in UNSPACED)
        self[code] = f" {chr(code)} " if is_word else chr(code)
        return self[code]


_SPACED = _Spaced()


class WordHashes(dict[str, int]):
    """The hash of each word that was met, the same in every process."""

    def __missing__(self, word: str) -> int:
        if len(self) == MOST_WORDS:
            self.clear()
        digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        self[word] = hashed = int.from_bytes(digest, "little")
        return hashed


def _mixed(values: Hashes) -> Hashes:
    """Return 64-bit integers with their bits mixed, by the finalizer of splitmix64."""
    mixed: Hashes = values + ODD[0]
    mixed ^= mixed >> np.uint64(30)
    mixed *= ODD[1]
    mixed ^= mixed >> np.uint64(27)
    mixed *= ODD[2]
    mixed ^= mixed >> np.uint64(31)
    return mixed
