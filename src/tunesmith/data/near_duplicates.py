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
from contextlib import closing

import numpy as np
import numpy.typing as npt

from tunesmith.data import example_table, minhash, shingles, text_folds, worker_processes
from tunesmith.data.conversations import content_with_input
from tunesmith.data.example_table import ExampleTable
from tunesmith.data.folded_texts import FoldedTexts
from tunesmith.data.text_keys import Hashes, Index, digest, hashes, numbered
from tunesmith.types import DuplicateIndex, Example, Message, TextKey

COMMON, FEWEST = 0.25, 100
"""Shingles that a larger share of the texts has do not count, where there are FEWEST texts or more."""
SAMPLED = 2000
"""Texts, evenly spread, in which shingles are counted for that."""
AT_ONCE = 1 << 19
"""Bytes of texts that are made into shingles at once; they take about 200 MB."""
PAIRS_AT_ONCE = 20_000


def parts(row: Example) -> tuple[str, ...]:
    """Return the texts of a row that must all be similar: the two of a pair; of a conversation system and prompt."""
    return _parts(row.text, row.text_pair, row.messages)


def _parts(text: str, text_pair: str | None, messages: Sequence[Message]) -> tuple[str, ...]:
    if messages:
        asked = messages[:-1] if len(messages) > 1 and messages[-1].role == "assistant" else messages
        system = "\n\n".join(message.content for message in asked if message.role == "system")
        return system, "\n\n".join(content_with_input(message) for message in asked if message.role != "system")
    return (text,) if text_pair is None else (text, text_pair)


def find(rows_by_origin: Sequence[Sequence[Example]], threshold: float) -> DuplicateIndex:
    """Return which of these rows have texts that are equal after all folds, and which of those are near-duplicates.

    rows_by_origin: rows that belong together, such as those of one split. threshold: Jaccard similarity from which
    texts are near-duplicates; at 1 none are sought. The same rows and threshold give the same result.
    """
    many = any(isinstance(rows, ExampleTable) for rows in rows_by_origin)
    origins, folded = [], bytearray()
    unique: set[bytes] = set()
    with closing(FoldedTexts()) as texts:
        for origin, rows in enumerate(rows_by_origin):
            for block in worker_processes.each(_folded, _blocks(rows), many=many):
                for hashed, encoded in zip(*block, strict=True):
                    folded += hashed
                    if hashed not in unique:
                        unique.add(hashed)
                        texts.append(encoded)
                        origins.append(origin)
        exact_N2 = np.concatenate([example_table.text_hashes(rows) for rows in rows_by_origin])
        numbers = TextNumbers.of(exact_N2, hashes(folded))
        del exact_N2, folded, unique
        if threshold >= 1 or len(texts) < 2:
            return DuplicateIndex(numbers)
        shingled = _ShingledTexts(texts)
        pairs_P2 = minhash.candidates(shingled.signatures(many=many), threshold, np.array(origins, dtype=np.int64))
        similarity_P = shingled.similarities(pairs_P2)
    kept = similarity_P >= threshold
    smaller, larger = pairs_P2[kept].T.tolist()
    return DuplicateIndex(numbers, smaller, larger, similarity_P[kept].tolist())


def _blocks(rows: Sequence[Example]) -> Iterator[tuple[list[tuple[str, ...]]]]:
    """Yield the parts of rows, about AT_ONCE characters at a time."""
    block: list[tuple[str, ...]] = []
    characters = 0
    for content in example_table.fields(rows, "text", "text_pair", "messages"):
        block.append(_parts(*content))
        characters += sum(map(len, block[-1]))
        if characters >= AT_ONCE:
            yield (block,)
            block, characters = [], 0
    yield (block,)


def _folded(block: Sequence[tuple[str, ...]]) -> tuple[list[bytes], list[list[bytes]]]:
    """Return the hash of each row after all folds, and its encoded parts."""
    folded = [[text_folds.fold(part) for part in row] for row in block]
    return [digest("\0".join(row)) for row in folded], [[shingles.encode(part) for part in row] for row in folded]


class TextNumbers(Mapping[TextKey, int]):
    """The number of each text. Texts that are equal after all folds have one number; numbers rise as texts appear.

    Kept as sorted arrays, of 24 bytes a text, K x 2 and K.
    """

    def __init__(self, keys_K2: Hashes, numbers_K: Index) -> None:
        self.keys_K2 = keys_K2
        self.numbers_K = numbers_K

    @classmethod
    def of(cls, exact_N2: Hashes, folded_N2: Hashes) -> TextNumbers:
        """Return the numbers of texts by the hashes of all texts and of all folded texts."""
        _, number_N = numbered(folded_N2)
        first_K, _ = numbered(exact_N2)
        keys_K2, numbers_K = exact_N2[first_K], number_N[first_K]
        rising = np.lexsort(keys_K2.T[::-1])
        return cls(keys_K2[rising], numbers_K[rising])

    def __getitem__(self, key: TextKey) -> int:
        return int(self.of_hashes(hashes(key.to_bytes(16, "big")))[0])

    def of_rows(self, rows: Sequence[Example]) -> Index:
        """Return the number of each row's text. Raises KeyError for a text that has none."""
        return self.of_hashes(example_table.text_hashes(rows))

    def of_hashes(self, wanted_N2: Hashes) -> Index:
        """Return the numbers of texts by their hashes. Raises KeyError for one that is not known."""
        place_N = np.searchsorted(self.keys_K2[:, 0], wanted_N2[:, 0])
        while True:  # past keys that share the first half alone, which hardly ever happens
            place_N = place_N.clip(max=len(self) - 1)
            is_other_N = (self.keys_K2[place_N] != wanted_N2).any(axis=1)
            if not is_other_N.any():
                return self.numbers_K[place_N]
            if (self.keys_K2[place_N[is_other_N], 0] != wanted_N2[is_other_N, 0]).any():
                raise KeyError("a text that is not among the numbered ones")
            place_N = place_N + is_other_N

    def __len__(self) -> int:
        return len(self.numbers_K)

    def __iter__(self) -> Iterator[TextKey]:
        return (high << 64 | low for high, low in self.keys_K2.tolist())


class _ShingledTexts:
    """Folded texts whose shingles are computed when they are needed, as those of all would fill the memory."""

    def __init__(self, texts: FoldedTexts) -> None:
        self.texts = texts
        self.bounds = texts.bounds()
        if not np.diff(self.bounds[:, 1]).any():  # no row has a second part
            self.bounds = self.bounds[:, :1]
        self.parts = self.bounds.shape[1]
        self.common = np.empty(0, dtype=np.uint64)
        sample = np.unique(np.linspace(0, len(texts) - 1, SAMPLED).astype(np.int64))
        if len(texts) >= FEWEST:
            self.common = self._common(sample)
        columns = [[texts.read(bounds[None]) for bounds in self.bounds[sample, part]] for part in range(self.parts)]
        distinct = [len(set(column)) for column in columns]
        self.telling = distinct.index(max(distinct))
        """The part that differs most between rows, by which pairs are proposed."""

    def signatures(self, *, many: bool) -> minhash.Signatures:
        """Return the MinHash signature of the telling part of each text, N x K. many: see `worker_processes`."""
        starts = np.flatnonzero(np.diff(self.bounds[:, -1, 1] // AT_ONCE)) + 1
        blocks = np.split(self.bounds[:, self.telling], starts)
        work = ((*self._encoded(bounds_N2), self.common) for bounds_N2 in blocks)
        signatures_NK = np.empty((len(self.bounds), minhash.SLOTS), dtype=np.uint16)
        filled = 0
        for block in worker_processes.each(_signatures, work, many=many):
            signatures_NK[filled : filled + len(block)] = block
            filled += len(block)
        return signatures_NK

    def _encoded(self, bounds_N2: Index) -> tuple[bytes, Index]:
        """Return texts, one after the other, and where each begins and the last one ends."""
        return self.texts.read(bounds_N2), np.concatenate([[0], np.diff(bounds_N2)[:, 0].cumsum()])

    def _every_part(self, numbers: Index) -> tuple[Hashes, Index]:
        """Return the shingles of every part of the first of these texts, the second, ... without common ones."""
        return _shingles(*self._encoded(self.bounds[numbers].reshape(-1, 2)), self.common)

    def similarities(self, pairs_P2: Index) -> npt.NDArray[np.float64]:
        """Return the exact Jaccard similarity of each pair: of its parts the least."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        if not len(pairs_P2):
            return np.empty(0)
        edges = coo_array((np.ones(len(pairs_P2), dtype=np.int8), pairs_P2.T), shape=(len(self.bounds),) * 2)
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

        hashes, bounds = self._every_part(numbers)
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
        hashes, bounds = self._every_part(sample)
        text = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
        ordered = np.lexsort((text, hashes))
        hashes, text = hashes[ordered], text[ordered]
        is_first = np.ones(len(hashes), dtype=bool)
        is_first[1:] = (hashes[1:] != hashes[:-1]) | (text[1:] != text[:-1])
        values, counts = np.unique(hashes[is_first], return_counts=True)
        return values[counts > COMMON * len(sample)]


def _signatures(encoded: bytes, starts_N1: Index, common: Hashes) -> minhash.Signatures:
    return minhash.signatures(*_shingles(encoded, starts_N1, common))


def _shingles(encoded: bytes, starts_N1: Index, common: Hashes) -> tuple[Hashes, Index]:
    """Return the shingles of encoded texts without common ones, unless a text has no others. common: sorted."""
    hashes, bounds = shingles.of_texts(encoded, starts_N1)
    if not len(common):
        return hashes, bounds
    begins_common = np.zeros(1 << 16, dtype=bool)
    begins_common[common >> np.uint64(48)] = True
    perhaps = np.flatnonzero(begins_common[hashes >> np.uint64(48)])
    places = np.searchsorted(common, hashes[perhaps]).clip(max=len(common) - 1)
    counts = np.ones(len(hashes), dtype=bool)
    counts[perhaps] = common[places] != hashes[perhaps]
    counted = np.concatenate([[0], counts.cumsum()])[bounds]
    for text in np.flatnonzero(np.diff(counted) == 0).tolist():
        counts[bounds[text] : bounds[text + 1]] = True
    return hashes[counts], np.concatenate([[0], counts.cumsum()])[bounds]
