"""Texts that are equal but for small differences, and texts that share most of their words.

A text is folded (`text_folds`), and is then a set of words and of pairs of neighbouring words. Two texts are
near-duplicates if the Jaccard similarity of their sets, the share of their union that both have, reaches a threshold.
Pairs are proposed by MinHash and then computed exactly, so that all that is reported is true; a pair that lies just at
the threshold is missed with a probability of 2%. Words and pairs that a quarter of the texts have, such as `the` or
what a template says, do not count, unless a text has no others.

Texts of several parts (two texts, or a system message and what follows it) are as similar as their least similar part.

Shapes: N texts that differ after all folds, K parts of a text, P pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from tunesmith.data import example_table, minhash, shingles, text_folds
from tunesmith.data.conversations import content_with_input
from tunesmith.data.shingles import Hashes, Index, WordHashes
from tunesmith.data.text_keys import digest
from tunesmith.types import DuplicateIndex, Example, TextKey

COMMON, FEWEST = 0.25, 100
"""Shingles that a larger share of the texts has do not count, where there are FEWEST texts or more."""
SAMPLED = 2000
"""Texts, evenly spread, in which shingles are counted for that."""
AT_ONCE = 1 << 23
"""Characters of texts that are made into shingles at once; they take about 200 MB."""
PAIRS_AT_ONCE = 20_000


def parts(row: Example) -> tuple[str, ...]:
    """Return the texts of a row that must all be similar: the two of a pair; of a conversation system and prompt."""
    if row.messages:
        asked = row.messages[:-1] if len(row.messages) > 1 and row.messages[-1].role == "assistant" else row.messages
        system = "\n\n".join(message.content for message in asked if message.role == "system")
        return system, "\n\n".join(content_with_input(message) for message in asked if message.role != "system")
    return (row.text,) if row.text_pair is None else (row.text, row.text_pair)


def find(rows_by_origin: Sequence[Sequence[Example]], threshold: float) -> DuplicateIndex:
    """Return which of these rows have texts that are equal after all folds, and which of those are near-duplicates.

    rows_by_origin: rows that belong together, such as those of one split. threshold: Jaccard similarity from which
    texts are near-duplicates; at 1 none are sought. The same rows and threshold give the same result.
    """
    exact, folded, origins = bytearray(), bytearray(), []
    unique: set[bytes] = set()
    first = example_table.Collector()
    for origin, rows in enumerate(rows_by_origin):
        exact += example_table.text_digests(rows)
        for row in rows:
            text, *pair = (text_folds.fold(part) for part in parts(row))
            hashed = digest("\0".join((text, *pair)))
            folded += hashed
            if hashed not in unique:
                unique.add(hashed)
                first.append(Example("", text, pair[0] if pair else None))
                origins.append(origin)
    numbers = TextNumbers.of(exact, folded)
    if threshold >= 1 or len(origins) < 2:
        return DuplicateIndex(numbers)
    texts = _ShingledTexts(first.rows())
    signatures = np.empty((len(origins), minhash.SLOTS), dtype=np.uint32)
    for block in texts.blocks():
        signatures[block] = minhash.signatures(*texts.shingled(block))
    pairs_P2 = minhash.candidates(signatures, threshold, np.array(origins, dtype=np.int64))
    del signatures
    similarity_P = texts.similarities(pairs_P2)
    kept = similarity_P >= threshold
    smaller, larger = pairs_P2[kept].T.tolist()
    return DuplicateIndex(numbers, smaller, larger, similarity_P[kept].tolist())


class TextNumbers(Mapping[TextKey, int]):
    """The number of each text. Texts that are equal after all folds have one number; numbers rise as texts appear.

    Kept as sorted arrays, of 24 bytes a text, K x 2 and K.
    """

    def __init__(self, keys_K2: Hashes, numbers_K: Index) -> None:
        self.keys_K2 = keys_K2
        self.numbers_K = numbers_K

    @classmethod
    def of(cls, exact: bytes | bytearray, folded: bytes | bytearray) -> TextNumbers:
        """Return the numbers of texts by the hashes of all texts and of all folded texts, 16 bytes each."""
        _, number_N = _numbered(_halves(folded))
        exact_N2 = _halves(exact)
        first_K, _ = _numbered(exact_N2)
        keys_K2, numbers_K = exact_N2[first_K], number_N[first_K]
        rising = np.lexsort(keys_K2.T[::-1])
        return cls(keys_K2[rising], numbers_K[rising])

    def __getitem__(self, key: TextKey) -> int:
        return self.of_digests(key.to_bytes(16, "big"))[0]

    def of_rows(self, rows: Sequence[Example]) -> list[int]:
        """Return the number of each row's text. Raises KeyError for a text that has none."""
        return self.of_digests(example_table.text_digests(rows))

    def of_digests(self, digests: bytes) -> list[int]:
        """Return the numbers of texts by their hashes, 16 bytes each. Raises KeyError for one that is not known."""
        wanted_N2 = _halves(digests)
        place_N = np.searchsorted(self.keys_K2[:, 0], wanted_N2[:, 0])
        while True:  # past keys that share the first half alone, which hardly ever happens
            place_N = place_N.clip(max=len(self) - 1)
            is_other_N = (self.keys_K2[place_N] != wanted_N2).any(axis=1)
            if not is_other_N.any():
                return list(self.numbers_K[place_N].tolist())
            if (self.keys_K2[place_N[is_other_N], 0] != wanted_N2[is_other_N, 0]).any():
                raise KeyError("a text that is not among the numbered ones")
            place_N = place_N + is_other_N

    def __len__(self) -> int:
        return len(self.numbers_K)

    def __iter__(self) -> Iterator[TextKey]:
        return (high << 64 | low for high, low in self.keys_K2.tolist())


def _halves(digests: bytes | bytearray) -> Hashes:
    """Return hashes of 16 bytes as two numbers each, N x 2."""
    return np.frombuffer(digests, dtype=">u8").astype(np.uint64).reshape(-1, 2)


def _numbered(keys_N2: Hashes) -> tuple[Index, Index]:
    """Return where each different key is first, U, and the place of each key in that list, N."""
    order = np.lexsort(keys_N2.T[::-1])  # stable: of equal keys the first stays in front
    is_new = np.ones(len(order), dtype=bool)
    is_new[1:] = (keys_N2[order[1:]] != keys_N2[order[:-1]]).any(axis=1)
    first_U = order[is_new]
    by_appearance = np.argsort(first_U)
    rank_U = np.empty_like(by_appearance)
    rank_U[by_appearance] = np.arange(len(first_U))
    number_N = np.empty(len(order), dtype=np.int64)
    number_N[order] = rank_U[is_new.cumsum() - 1]
    return first_U[by_appearance], number_N


class _ShingledTexts:
    """Folded texts whose shingles are computed when they are needed, as those of all would fill the memory."""

    def __init__(self, rows: Sequence[Example]) -> None:
        self.rows = rows
        self.lengths = np.array([len(row.text) + len(row.text_pair or "") for row in rows])
        self.parts = 1 if all(row.text_pair is None for row in rows) else 2
        self.known = WordHashes()
        self.common = np.empty(0, dtype=np.uint64)
        sample = np.unique(np.linspace(0, len(rows) - 1, SAMPLED).astype(np.int64))
        if len(rows) >= FEWEST:
            self.common = self._common(sample)
        columns = zip(*self._parts(sample), strict=True) if self.parts > 1 else [()]
        distinct = [len(set(column)) for column in columns]
        self.telling = distinct.index(max(distinct))
        """The part that differs most between rows, by which pairs are proposed."""

    def blocks(self) -> list[Index]:
        """Return the numbers of all texts in blocks of about AT_ONCE characters."""
        starts = np.flatnonzero(np.diff(self.lengths.cumsum() // AT_ONCE))
        return np.split(np.arange(len(self.rows)), starts + 1)

    def shingled(self, numbers: Index, *, every_part: bool = False) -> tuple[Hashes, Index]:
        """Return the shingles of the telling part of these texts, or those of every part of the first, the second, ...

        Common ones are left out.
        """
        texts: list[str] = []
        for folded in self._parts(numbers):
            texts += folded if every_part else [folded[self.telling]]
        hashes, bounds = shingles.of_texts(texts, self.known)
        return self._without_common(hashes, bounds)

    def _parts(self, numbers: Index) -> Iterator[tuple[str, ...]]:
        """Yield the parts of these texts; every text has as many."""
        for row in example_table.take(self.rows, numbers):
            yield (row.text,) if self.parts == 1 else (row.text, row.text_pair or "")

    def similarities(self, pairs_P2: Index) -> npt.NDArray[np.float64]:
        """Return the exact Jaccard similarity of each pair: of its parts the least."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        if not len(pairs_P2):
            return np.empty(0)
        edges = coo_array((np.ones(len(pairs_P2), dtype=np.int8), pairs_P2.T), shape=(len(self.rows),) * 2)
        cluster_N = connected_components(edges, directed=False)[1]
        order = np.argsort(cluster_N[pairs_P2[:, 0]], kind="stable")  # so that a text is rarely made twice
        similarity_P = np.empty(len(pairs_P2))
        for at in range(0, len(order), PAIRS_AT_ONCE):
            places = order[at : at + PAIRS_AT_ONCE]
            numbers, places_2P = np.unique(pairs_P2[places].T, return_inverse=True)
            similarity_P[places] = self._similarities(numbers, places_2P.reshape(2, -1))
        return similarity_P

    def _similarities(self, numbers: Index, places_2P: Index) -> npt.NDArray[np.float64]:
        from scipy.sparse import csr_array

        hashes, bounds = self.shingled(numbers, every_part=True)
        columns = (hashes >> np.uint64(1)).astype(np.int64)
        sets = csr_array((np.ones(len(columns), dtype=np.int32), columns, bounds), shape=(len(bounds) - 1, 2**63 - 1))
        sets.sum_duplicates()
        sets.data[:] = 1
        sizes = np.diff(sets.indptr)
        least_P = np.ones(places_2P.shape[1])
        for part in range(self.parts):
            first_P, second_P = places_2P * self.parts + part
            common_P = sets[first_P].multiply(sets[second_P]).sum(axis=1)
            union_P = sizes[first_P] + sizes[second_P] - common_P
            least_P = np.minimum(least_P, np.where(union_P > 0, common_P / np.maximum(union_P, 1), 1))
        return least_P

    def _common(self, sample: Index) -> Hashes:
        """Return the shingles that are too common to count, sorted."""
        hashes, bounds = self.shingled(sample, every_part=True)
        text = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
        ordered = np.lexsort((text, hashes))
        hashes, text = hashes[ordered], text[ordered]
        is_first = np.ones(len(hashes), dtype=bool)
        is_first[1:] = (hashes[1:] != hashes[:-1]) | (text[1:] != text[:-1])
        values, counts = np.unique(hashes[is_first], return_counts=True)
        return values[counts > COMMON * len(sample)]

    def _without_common(self, hashes: Hashes, bounds: Index) -> tuple[Hashes, Index]:
        if not len(self.common):
            return hashes, bounds
        places = np.searchsorted(self.common, hashes).clip(max=len(self.common) - 1)
        counted = self.common[places] != hashes
        sizes = np.diff(bounds)
        text = np.repeat(np.arange(len(sizes)), sizes)
        has_others = np.bincount(text[counted], minlength=len(sizes)) > 0
        counted |= ~has_others[text]
        return hashes[counted], np.concatenate([[0], np.bincount(text[counted], minlength=len(sizes)).cumsum()])
