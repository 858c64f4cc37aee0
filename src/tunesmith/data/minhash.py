"""Pairs of sets that are probably similar: MinHash and locality-sensitive hashing. The only module that imports rensa.

Shapes: N sets, S shingles of all sets, K slots of a signature, R slots a band, P pairs.
Sources: Broder 1997, "On the resemblance and containment of documents"; Leskovec et al., "Mining of Massive Datasets",
chapter 3.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from tunesmith.data.text_keys import Hashes, Index

Signatures = npt.NDArray[np.uint16]
SLOTS, SEED = 128, 42
RECALL = 0.98
"""Probability that a pair whose similarity is the threshold shares a band, at least; more similar ones rarely miss."""
NEIGHBOURS = 10
"""Pairs that a set forms within one band, at most; sets that thousands share a band with cost no more than others."""
DEVIATIONS = 4
"""Pairs whose estimated similarity lies further below the threshold than this are dropped without a look."""
AT_ONCE = 1 << 16
"""Pairs of signatures in memory at once: 32 MB."""


def signatures(shingles_S: Hashes, bounds: Index) -> Signatures:
    """Return the MinHash signature of each set of shingles, N x K; equal sets have equal ones. bounds: N + 1.

    The last 16 bits of each slot are kept, which tell as much (Li and König 2010, "b-bit minwise hashing").
    """
    import rensa

    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(shingles_S, bounds.astype(np.uint64), SLOTS, SEED)
    return np.array(matrix.to_rows(), dtype=np.uint32).astype(np.uint16).reshape(len(bounds) - 1, SLOTS)


def rows_per_band(threshold: float) -> int:
    """Return the most slots of a band with which pairs at the threshold are found by RECALL; more mean fewer pairs."""
    fitting = [rows for rows in range(1, SLOTS + 1) if 1 - (1 - threshold**rows) ** (SLOTS // rows) >= RECALL]
    return max(fitting, default=1)


def candidates(signatures_NK: Signatures, threshold: float, origins_N: Index) -> Index:
    """Return pairs that share a band and whose estimated similarity is near the threshold or above, P x 2, sorted.

    origins_N: where a set comes from. In bands that many sets share, each is paired with the nearest of every origin.
    """
    rows = rows_per_band(threshold)
    lowest = threshold - DEVIATIONS * (threshold * (1 - threshold) / SLOTS) ** 0.5
    codes: list[Hashes] = []
    for band in range(SLOTS // rows):
        slots = signatures_NK[:, band * rows : (band + 1) * rows]
        tie_breaker_N = signatures_NK[:, (band + 1) * rows % SLOTS]
        pairs = np.concatenate([np.empty((0, 2), dtype=np.int64), *_band_pairs(_keys(slots), tie_breaker_N, origins_N)])
        pairs = np.sort(pairs, axis=1)
        pairs = np.unique(pairs[:, 0].astype(np.uint64) << np.uint64(32) | pairs[:, 1].astype(np.uint64))
        codes.append(pairs[_estimates(signatures_NK, pairs) >= lowest])
    unique = np.unique(np.concatenate(codes))
    return np.stack([unique >> np.uint64(32), unique & np.uint64(0xFFFFFFFF)], axis=1).astype(np.int64)


def _keys(slots_NR: Signatures) -> Hashes:
    """Return one number for each row of slots."""
    keys_N = np.zeros(len(slots_NR), dtype=np.uint64)
    for column in slots_NR.T:
        keys_N = (keys_N ^ column) * np.uint64(0x9E3779B97F4A7C15)
        keys_N ^= keys_N >> np.uint64(29)
    return keys_N


def _band_pairs(keys_N: Hashes, tie_breaker_N: Signatures, origins_N: Index) -> Iterator[Index]:
    """Yield pairs with equal keys, P x 2: each set with its next NEIGHBOURS, and with the nearest of each origin."""
    order = np.argsort(keys_N, kind="stable")
    same = keys_N[order[1:]] == keys_N[order[:-1]]
    order = order[np.append(same, False) | np.insert(same, 0, False)]  # without those that are alone
    order = order[np.lexsort((tie_breaker_N[order], keys_N[order]))]
    keys = keys_N[order]
    for step in range(1, NEIGHBOURS + 1):
        matching = np.flatnonzero(keys[step:] == keys[:-step])
        if not len(matching):
            return
        yield np.stack([order[matching], order[matching + step]], axis=1)
    places = np.arange(len(order))
    for origin in np.unique(origins_N):
        last = np.maximum.accumulate(np.where(origins_N[order] == origin, places, -1))
        of_others = np.flatnonzero((origins_N[order] != origin) & (last >= 0))
        of_others = of_others[keys[of_others] == keys[last[of_others]]]
        yield np.stack([order[of_others], order[last[of_others]]], axis=1)


def _estimates(signatures_NK: Signatures, codes_P: Hashes) -> npt.NDArray[np.float64]:
    """Return the share of equal slots of each pair, which estimates the Jaccard similarity."""
    first_P, second_P = (codes_P >> np.uint64(32)).astype(np.int64), (codes_P & np.uint64(0xFFFFFFFF)).astype(np.int64)
    parts = [
        (signatures_NK[first_P[at : at + AT_ONCE]] == signatures_NK[second_P[at : at + AT_ONCE]]).mean(axis=1)
        for at in range(0, len(codes_P), AT_ONCE)
    ]
    return np.concatenate([np.empty(0), *parts])
