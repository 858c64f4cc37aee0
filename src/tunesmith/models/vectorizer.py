"""The n-grams of many texts, counted: what scikit-learn's CountVectorizer and TfidfTransformer compute.

Words become numbers once, and n-grams of words are pairs of numbers (the n-gram without its last word, and that word),
so that counting is sorting. An n-gram is in no more texts than its parts: parts in fewer than `min_df` texts drop out
before longer n-grams are made of them. N-grams of characters are counted once for each distinct word.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.models.newton import ColumnBlocks
from tunesmith.models.ngrams import SECOND, WORD, characters
from tunesmith.recipe import Linear
from tunesmith.types import Example

Ints = NDArray[np.integer[Any]]
Floats = NDArray[np.floating[Any]]
TOKENS_AT_ONCE = 1 << 21
"""Positions counted at once: 16 MB, and a few times that to sort them."""
ROWS_AT_ONCE = 1 << 16
ENTRIES_PER_BLOCK = 1 << 20
BLOCKS = 4
"""Columns of one kind of n-gram are split into so many blocks at most, of about equally many entries."""


@dataclass(frozen=True)
class Vectorized:
    """Training texts as features."""

    vocabulary: list[str]
    """The n-gram of each column."""
    idf: NDArray[np.float64] | None
    features: ColumnBlocks


def vectorize(examples: Sequence[Example], settings: Linear) -> Vectorized:
    """Count the n-grams of training texts, and weight them if the settings say so. There may be none."""
    kinds = list(_kinds(examples, settings))
    _limit(kinds, settings.max_features)
    blocks, vocabulary, frequencies = [], [], []
    while kinds:  # each is freed when its blocks are made
        kind = kinds.pop(0)
        columns = kind.columns()
        blocks += kind.blocks(columns, len(examples))
        vocabulary += kind.names(kind.keys[columns])
        frequencies.append(kind.frequency[columns])
    features = ColumnBlocks([block for block in blocks if block.shape[1]])
    if settings.vectorizer == "count" or not vocabulary:
        return Vectorized(vocabulary, None, features)
    rows: float = len(examples)
    frequency: NDArray[Any] = np.concatenate(frequencies)
    if any(example.weight != 1 for example in examples):
        weights_N = np.array([example.weight for example in examples])
        rows, frequency = weights_N.sum(), _weighted_frequency(features, weights_N)
    idf = np.log((1 + rows) / (1 + frequency)) + 1
    _weight(features, idf)
    return Vectorized(vocabulary, idf, features)


def _weighted_frequency(features: ColumnBlocks, weights_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sum of the weights of the texts that contain each n-gram."""
    return np.concatenate(
        [
            np.bincount(block.indices, np.repeat(weights_N, np.diff(block.indptr)), minlength=block.shape[1])
            for block in features.blocks
        ]
    )


def _weight(features: ColumnBlocks, idf: NDArray[np.float64]) -> None:
    """Turn counts into TF-IDF in place: sublinear counts, rows of unit length."""
    squares_N, edge = np.zeros(features.shape[0]), 0
    for block in features.blocks:
        np.log(block.data, out=block.data)
        block.data += 1
        block.data *= idf[edge : edge + block.shape[1]].astype(np.float32)[block.indices]
        edge += block.shape[1]
        for first in range(0, block.shape[0], ROWS_AT_ONCE):
            ends = block.indptr[first : first + ROWS_AT_ONCE + 1]
            sums = np.cumsum(block.data[ends[0] : ends[-1]].astype(np.float64) ** 2)
            squares_N[first : first + ROWS_AT_ONCE] += np.diff(np.concatenate([[0.0], sums])[ends - ends[0]])
    lengths_N = np.sqrt(np.where(squares_N > 0, squares_N, 1)).astype(np.float32)
    for block in features.blocks:
        block.data /= np.repeat(lengths_N, np.diff(block.indptr))


@dataclass
class _Chunk:
    """Counts in neighbouring rows. Entries lie row by row."""

    first: int
    """The first of these rows."""
    lengths: Ints
    """Entries of each row."""
    columns: Ints
    """Of each entry: a place in `keys`."""
    counts: Ints
    """In as few bytes as they need: of all texts, there are many."""
    keys: Ints
    """The n-grams that occur, ascending."""

    @classmethod
    def of(cls, first: int, lengths: Ints, columns: Ints, counts: NDArray[Any], keys: Ints) -> _Chunk:
        """Return counts, which are whole numbers of any type, in compact form."""
        small = counts.astype(np.min_scalar_type(int(counts.max(initial=0))))
        return cls(first, lengths, columns.astype(np.int32), small, keys)


@dataclass
class _Kind:
    """Counts of one kind of n-gram, such as the words or the pairs of words of the first texts."""

    chunks: list[_Chunk]
    keys: Ints
    """The n-grams that are kept, ascending."""
    frequency: Ints
    """Texts that contain each."""
    names: Callable[[Ints], list[str]]
    """Returns the texts of n-grams by their keys."""

    @classmethod
    def of(cls, chunks: list[_Chunk], names: Callable[[Ints], list[str]], min_df: int) -> _Kind:
        keys, frequency = _merged(
            (chunk.keys, np.bincount(chunk.columns, minlength=len(chunk.keys))) for chunk in chunks
        )
        kept = frequency >= min_df
        return cls(chunks, keys[kept], frequency[kept], names)

    def keep(self, kept: NDArray[np.bool_]) -> None:
        self.keys, self.frequency = self.keys[kept], self.frequency[kept]

    def columns(self) -> Ints:
        """Return the places of the keys in the order of the columns: frequent ones lie together, for the caches."""
        return np.argsort(-self.frequency, kind="stable")

    def totals(self) -> Floats:
        """Return how often each kept n-gram occurs."""
        totals = np.zeros(len(self.keys))
        for chunk in self.chunks:
            places = _places(chunk.keys, self.keys)
            known = places >= 0
            sums = np.bincount(chunk.columns, chunk.counts, minlength=len(chunk.keys))
            totals[places[known]] += sums[known]
        return totals

    def blocks(self, columns: Ints, rows: int) -> list[Any]:
        """Return CSR matrices of neighbouring columns. Frees the chunks."""
        from scipy import sparse

        frequency = self.frequency[columns]
        ends = np.cumsum(frequency)
        entries = int(ends[-1]) if len(ends) else 0
        parts = min(BLOCKS, 1 + entries // ENTRIES_PER_BLOCK)
        edges = [0, *(int(np.searchsorted(ends, entries * part / parts)) + 1 for part in range(1, parts)), len(columns)]
        edges = [min(edge, len(columns)) for edge in edges]
        rank = np.empty(len(columns), np.int32)
        rank[columns] = np.arange(len(columns), dtype=np.int32)
        sizes = [int(frequency[start:end].sum()) for start, end in pairwise(edges)]
        indices = [np.empty(size, np.int32) for size in sizes]
        data = [np.empty(size, np.float32) for size in sizes]
        lengths = [np.zeros(rows + 1, np.int64) for _ in sizes]
        filled = [0] * len(sizes)
        while self.chunks:
            chunk = self.chunks.pop(0)
            places = _places(chunk.keys, self.keys)
            column = np.where(places >= 0, rank[places], -1)[chunk.columns] if len(rank) else chunk.columns * 0 - 1
            row = np.repeat(np.arange(len(chunk.lengths), dtype=np.int32), chunk.lengths)
            place = slice(chunk.first + 1, chunk.first + 1 + len(chunk.lengths))
            for part, (start, end) in enumerate(pairwise(edges)):
                inside = np.flatnonzero((column >= start) & (column < end))
                at = slice(filled[part], filled[part] + len(inside))
                indices[part][at] = column[inside] - start
                data[part][at] = chunk.counts[inside]
                lengths[part][place] = np.bincount(row[inside], minlength=len(chunk.lengths))
                filled[part] = at.stop
        widths = np.diff(edges)
        return [
            sparse.csr_matrix((data[part], indices[part], _pointers(lengths[part])), shape=(rows, int(width)))
            for part, width in enumerate(widths)
        ]


def _pointers(lengths: Ints) -> Ints:
    pointers = np.cumsum(lengths)
    return pointers.astype(np.int32) if pointers[-1] < 2**31 else pointers


def _kinds(examples: Sequence[Example], settings: Linear) -> Iterator[_Kind]:
    yield from _kinds_of([example.text for example in examples], "", settings)
    if any(example.text_pair is not None for example in examples):
        yield from _kinds_of([example.text_pair or "" for example in examples], SECOND, settings)


def _kinds_of(texts: Sequence[str], mark: str, settings: Linear) -> Iterator[_Kind]:
    if settings.word_ngrams:
        yield from _word_kinds(_Tokens.of(texts, WORD.findall, settings.lowercase), mark, settings)
    if settings.char_ngrams:
        tokens = _Tokens.of(texts, str.split, settings.lowercase)
        yield _character_kind(tokens, mark, settings.char_ngrams, settings.min_df)


@dataclass(frozen=True)
class _Tokens:
    """Texts as numbers, one behind the other."""

    ids: Ints
    starts: Ints
    """Of each text in `ids`, and the end."""
    names: list[str]

    @classmethod
    def of(cls, texts: Iterable[str], split: Callable[[str], list[str]], lowercase: bool) -> _Tokens:
        numbers: defaultdict[str, int] = defaultdict()
        numbers.default_factory = numbers.__len__
        ids, starts = array("i"), array("q", [0])
        for text in texts:
            ids.extend(map(numbers.__getitem__, split(text.lower() if lowercase else text)))
            starts.append(len(ids))
        return cls(np.frombuffer(ids, np.int32), np.frombuffer(starts, np.int64), list(numbers))

    def ranges(self) -> Iterator[tuple[int, int]]:
        """Yield neighbouring texts, from first to last, of about TOKENS_AT_ONCE tokens."""
        first, rows = 0, len(self.starts) - 1
        while first < rows:
            last = int(np.searchsorted(self.starts, self.starts[first] + TOKENS_AT_ONCE, side="right")) - 1
            last = min(max(last, first + 1), rows)
            yield first, last
            first = last


def _word_kinds(tokens: _Tokens, mark: str, settings: Linear) -> Iterator[_Kind]:
    """Yield the n-grams of words, shortest first. Numbers of n-grams are places among the kept ones; -1 for others."""
    assert settings.word_ngrams
    shortest, longest = settings.word_ngrams
    words, numbers = tokens.names, tokens.ids
    texts = [mark + word for word in words]  # of the kept n-grams of the length before
    for n in range(1, longest + 1):
        known = np.arange(len(words)) if n == 1 else None
        chunks = [_counted(*_keys(tokens, numbers, n, len(words), rows), rows[0], known) for rows in tokens.ranges()]
        prefixes = texts

        def names(keys: Ints, prefixes: list[str] = prefixes, n: int = n) -> list[str]:
            if n == 1:
                return [prefixes[key] for key in keys.tolist()]
            heads, tails = np.divmod(keys, len(words))
            return [
                f"{prefixes[head]} {words[tail]}" for head, tail in zip(heads.tolist(), tails.tolist(), strict=True)
            ]

        kind = _Kind.of(chunks, names, settings.min_df)
        if n < longest:
            numbers = _numbers(tokens, numbers, n, len(words), kind.keys)
            texts = names(kind.keys)
            if n == 1:
                tokens = _Tokens(np.where(numbers >= 0, tokens.ids, -1), tokens.starts, words)
        if n >= shortest:
            yield kind


def _keys(tokens: _Tokens, numbers: Ints, n: int, base: int, rows: tuple[int, int]) -> tuple[Ints, Ints]:
    """Return the key of the n-gram at each position in a range of texts, -1 for none, and where each text begins.

    numbers: of the n-gram one word shorter at each position.
    """
    start, end = tokens.starts[rows[0]], tokens.starts[rows[1]]
    starts = tokens.starts[rows[0] : rows[1] + 1] - start
    if n == 1:
        return tokens.ids[start:end].astype(np.int64), starts
    heads = numbers[start:end].astype(np.int64)
    tails = np.full(len(heads), -1, np.int64)
    tails[: max(0, len(heads) - n + 1)] = tokens.ids[start + n - 1 : end]
    for back in range(1, n):  # the last n - 1 positions of a text begin no n-gram
        places = starts[1:] - back
        tails[places[places >= starts[:-1]]] = -1
    return np.where((heads >= 0) & (tails >= 0), heads * base + tails, -1), starts


def _counted(keys: Ints, starts: Ints, first: int, unique: Ints | None) -> _Chunk:
    """Count the keys of each text. unique: 0, 1, 2... if all keys are known."""
    valid = keys >= 0
    rows, columns = np.repeat(np.arange(len(starts) - 1), np.diff(starts))[valid], keys[valid]
    if unique is None:
        unique, columns = np.unique(columns, return_inverse=True)
    pairs = rows * len(unique) + columns
    pairs.sort()
    begins = np.flatnonzero(np.diff(pairs, prepend=-1))
    counts = np.diff(begins, append=len(pairs))
    rows, columns = np.divmod(pairs[begins], max(1, len(unique)))
    return _Chunk.of(first, np.bincount(rows, minlength=len(starts) - 1), columns, counts, unique)


def _numbers(tokens: _Tokens, numbers: Ints, n: int, base: int, kept: Ints) -> Ints:
    """Return the place among the kept keys of the n-gram at each position; -1 for others."""
    if n == 1:
        return _places(np.arange(base), kept).astype(np.int32)[numbers]
    found = np.full(len(tokens.ids), -1, np.int32)
    for rows in tokens.ranges():
        keys, _ = _keys(tokens, numbers, n, base, rows)
        unique, inverse = np.unique(keys, return_inverse=True)
        found[tokens.starts[rows[0]] : tokens.starts[rows[1]]] = _places(unique, kept)[inverse]
    return found


def _places(keys: Ints, kept: Ints) -> Ints:
    """Return the place of each key among the kept ones; -1 for none. Both are ascending."""
    if not len(kept):
        return np.full(len(keys), -1)
    places = np.minimum(np.searchsorted(kept, keys), len(kept) - 1)
    return np.where(kept[places] == keys, places, -1)


def _merged(tables: Iterable[tuple[Ints, Ints]]) -> tuple[Ints, Ints]:
    """Return the sum of tables of ascending keys and their numbers. Tables of about equal size are merged first."""
    stack: list[tuple[Ints, Ints]] = []
    for table in tables:
        stack.append(table)
        while len(stack) > 1 and len(stack[-2][0]) <= 2 * len(stack[-1][0]):
            stack.append(_sum(stack.pop(-2), stack.pop()))
    while len(stack) > 1:
        stack.append(_sum(stack.pop(-2), stack.pop()))
    return stack[0] if stack else (np.empty(0, np.int64), np.empty(0, np.int64))


def _sum(first: tuple[Ints, Ints], second: tuple[Ints, Ints]) -> tuple[Ints, Ints]:
    keys, numbers = np.concatenate([first[0], second[0]]), np.concatenate([first[1], second[1]])
    order = np.argsort(keys, kind="stable")  # merges two ascending runs
    keys, numbers = keys[order], numbers[order]
    begins = np.flatnonzero(np.diff(keys, prepend=-1))
    return keys[begins], np.add.reduceat(numbers, begins) if len(begins) else numbers


def _character_kind(tokens: _Tokens, mark: str, lengths: tuple[int, int], min_df: int) -> _Kind:
    """Return the n-grams of characters: counts of the words, times the counts of n-grams in each word."""
    from scipy import sparse

    tables = _Tokens.of(tokens.names, lambda token: list(characters(token, *lengths)), lowercase=False)
    shape = (len(tokens.names), len(tables.names))
    inside = sparse.csr_matrix((np.ones(len(tables.ids), np.float32), tables.ids, tables.starts), shape)
    chunks = []
    for first, last in tokens.ranges():
        starts = tokens.starts[first : last + 1]
        ids = tokens.ids[starts[0] : starts[-1]]
        shape = (last - first, len(tokens.names))
        words = sparse.csr_matrix((np.ones(len(ids), np.float32), ids, starts - starts[0]), shape)
        counts = words @ inside
        keys = np.arange(len(tables.names))
        chunks.append(_Chunk.of(first, np.diff(counts.indptr), counts.indices, counts.data, keys))

    def names(keys: Ints) -> list[str]:
        return [mark + tables.names[key] for key in keys.tolist()]

    return _Kind.of(chunks, names, min_df)


def _limit(kinds: Sequence[_Kind], most: int | None) -> None:
    """Keep the n-grams that occur most often: those that scikit-learn keeps, with ties as it breaks them."""
    if most is None or sum(len(kind.keys) for kind in kinds) <= most:
        return
    names = [name for kind in kinds for name in kind.names(kind.keys)]
    totals = np.concatenate([kind.totals() for kind in kinds])
    order = np.array(sorted(range(len(names)), key=names.__getitem__))
    kept = np.zeros(len(names), bool)
    kept[order[(-totals[order]).argsort()[:most]]] = True
    edge = 0
    for kind in kinds:
        size = len(kind.keys)
        kind.keep(kept[edge : edge + size])
        edge += size
