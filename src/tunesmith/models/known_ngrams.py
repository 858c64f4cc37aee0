"""The n-grams of texts that a vocabulary has, counted: of one text as of many.

Of many texts, words become numbers once, and an n-gram of words is a pair of numbers: the n-gram without its last word,
and that word. What the vocabulary has is then found for all texts at once, in a tenth of the time.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from tunesmith.models.ngrams import CHARACTERS, SECOND, WORD, BagOfWords, characters
from tunesmith.recipe import Linear
from tunesmith.types import Example

Ints = NDArray[np.int64]
MANY = 256
"""Texts from which it pays to number all words of the vocabulary first."""
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""Spreads keys over a table: 2**64 over the golden ratio."""


APART, SHORT = -3, -2
"""In place of the number of a word: where a text ends, and a word of one character, which does not count as a word."""
BETWEEN = b" \xff "
"""Between two texts: a byte that UTF-8 does not have."""
WORD_CHARACTERS = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"
SPACED = bytes(byte if byte in WORD_CHARACTERS or byte > 127 else 32 for byte in range(256))
LOWERED = SPACED.lower()
"""Each byte of a text, or a space for a character of ASCII that is in no word."""


@dataclass(frozen=True)
class CountedNgrams:
    """The n-grams of several texts: entries lie text by text, and those of a text in the order of their numbers."""

    lengths: Ints
    """Entries of each text."""
    numbers: Ints
    """Of each entry, the number of the n-gram in the vocabulary."""
    counts: NDArray[np.float64]
    """How often the text has it."""


@dataclass(frozen=True)
class KnownNgrams:
    """The n-grams of a vocabulary."""

    vocabulary: Mapping[str, int]
    settings: Linear

    def count(self, examples: Sequence[Example]) -> CountedNgrams:
        """Count the n-grams of texts that the vocabulary has."""
        if len(examples) < MANY:
            return self._count_few(examples)
        rows, numbers = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for mark in (SECOND, "") if any(example.text_pair is not None for example in examples) else ("",):
            texts = [(example.text_pair if mark else example.text) or "" for example in examples]
            for places_E, numbers_E in self._found(texts, mark):
                rows.append(places_E)
                numbers.append(numbers_E)
        size = max(1, len(self.vocabulary))
        keys = np.concatenate(rows) * size + np.concatenate(numbers)
        keys.sort()
        begins = np.flatnonzero(np.diff(keys, prepend=-1))
        counts = np.diff(begins, append=len(keys)).astype(np.float64)
        places, known = np.divmod(keys[begins], size)
        return CountedNgrams(np.bincount(places, minlength=len(examples)), known, counts)

    def _count_few(self, examples: Sequence[Example]) -> CountedNgrams:
        analyze, get = BagOfWords(self.settings), self.vocabulary.get
        counted = [sorted(Counter(filter(_is_known, map(get, analyze(example)))).items()) for example in examples]
        entries = [entry for text in counted for entry in text]
        numbers, counts = zip(*entries, strict=True) if entries else ((), ())
        lengths = np.array([len(text) for text in counted], dtype=np.int64)
        return CountedNgrams(lengths, np.array(numbers, dtype=np.int64), np.array(counts, dtype=np.float64))

    def _found(self, texts: Sequence[str], mark: str) -> Iterator[tuple[Ints, Ints]]:
        """Yield, for each kind of n-gram, the text of every one that is known, and its number."""
        if self.settings.word_ngrams:
            yield from self._words[mark].found(texts, lowercase=self.settings.lowercase)
        if self.settings.char_ngrams:
            yield self._characters(texts, mark)

    @cached_property
    def _words(self) -> dict[str, _WordNgrams]:
        return {mark: _WordNgrams.of(self.vocabulary, mark) for mark in ("", SECOND)}

    def _characters(self, texts: Sequence[str], mark: str) -> tuple[Ints, Ints]:
        """Find the n-grams of characters, which are looked up once for each distinct word."""
        assert self.settings.char_ngrams
        ids: dict[str, int] = {}
        words, starts = array("q"), array("q", [0])
        for text in map(str.lower, texts) if self.settings.lowercase else texts:
            words.extend([ids.setdefault(word, len(ids)) for word in text.split()])
            starts.append(len(words))
        inside, ends = array("q"), array("q", [0])
        for word in ids:
            grams = (self.vocabulary.get(mark + gram) for gram in characters(word, *self.settings.char_ngrams))
            inside.extend(filter(_is_known, grams))
            ends.append(len(inside))
        words_T, ends_W = _view(words), _view(ends)
        lengths_T = np.diff(ends_W)[words_T]
        rows_T = np.repeat(np.arange(len(texts)), np.diff(_view(starts)))
        first_E = np.repeat(ends_W[words_T] - np.cumsum(lengths_T) + lengths_T, lengths_T)
        return np.repeat(rows_T, lengths_T), _view(inside)[first_E + np.arange(len(first_E))]


def _is_known(number: int | None) -> TypeGuard[int]:
    return number is not None


def _view(numbers: array[int]) -> Ints:
    return np.frombuffer(numbers, np.int64) if len(numbers) else np.zeros(0, np.int64)


@dataclass(frozen=True)
class _WordNgrams:
    """The n-grams of words of a vocabulary, as a tree: each is the child of the one without its last word."""

    words: Mapping[bytes, int]
    """The number of each word in UTF-8, which is that of the node of the word alone, too; APART and SHORT."""
    base: int
    """How many words there are."""
    keys: Ints
    """Of every longer n-gram: the node of its parent times the number of words, plus its last word; ascending."""
    nodes: Ints
    """The node of each key."""
    numbers: Ints
    """Of each node, the number of the n-gram in the vocabulary; -1 where only longer ones are in it."""
    maybe: NDArray[np.bool_]
    """Whether any key has this hash: most pairs of words are in no vocabulary."""
    longest: int

    @classmethod
    def of(cls, vocabulary: Mapping[str, int], mark: str) -> _WordNgrams:
        """Return those of the n-grams that begin with a mark."""
        other = (CHARACTERS,) if mark else (CHARACTERS, SECOND)
        grams = [
            (gram.removeprefix(mark).split(" "), number)
            for gram, number in vocabulary.items()
            if gram.startswith(mark) and not gram.removeprefix(mark).startswith(other)
        ]
        words = {word: n for n, word in enumerate(dict.fromkeys(word for parts, _ in grams for word in parts))}
        encoded = {_encoded(word): n for word, n in words.items()} | {BETWEEN.strip(): APART}
        encoded |= {bytes([character]): SHORT for character in WORD_CHARACTERS}
        base, tree = max(1, len(words)), dict[int, int]()
        numbers = [-1] * len(words)
        for parts, number in grams:
            node = words[parts[0]]
            for word in parts[1:]:
                key = node * base + words[word]
                if key not in tree:
                    tree[key] = len(numbers)
                    numbers.append(-1)
                node = tree[key]
            numbers[node] = number
        keys = np.fromiter(sorted(tree), np.int64, len(tree))
        bits = max(10, 4 + len(keys).bit_length())
        maybe = np.zeros(1 << bits, np.bool_)
        maybe[_hashed(keys, bits)] = True
        nodes = np.fromiter((tree[key] for key in keys.tolist()), np.int64, len(keys))
        longest = max((len(parts) for parts, _ in grams), default=0)
        return cls(encoded, base, keys, nodes, np.array(numbers, dtype=np.int64), maybe, longest)

    def found(self, texts: Sequence[str], *, lowercase: bool) -> Iterator[tuple[Ints, Ints]]:
        """Yield, for each length, the text of every known n-gram, and its number in the vocabulary."""
        words_T, rows_T = self._numbered(texts, lowercase=lowercase)
        places = np.flatnonzero(words_T >= 0)  # of the first word of the n-grams
        nodes = words_T[places]
        for length in range(1, self.longest + 1):
            if length > 1:
                last = places + length - 1
                inside = last < len(words_T)
                places, nodes, last = places[inside], nodes[inside], last[inside]
                goes_on = (rows_T[places] == rows_T[last]) & (words_T[last] >= 0)
                places, nodes = places[goes_on], nodes[goes_on]
                keys = nodes * self.base + words_T[last[goes_on]]
                maybe = np.flatnonzero(self.maybe[_hashed(keys, len(self.maybe).bit_length() - 1)])
                at = np.minimum(np.searchsorted(self.keys, keys[maybe]), max(0, len(self.keys) - 1))
                known = self.keys[at] == keys[maybe] if len(self.keys) else np.zeros(0, np.bool_)
                places, nodes = places[maybe[known]], self.nodes[at[known]]
            numbers = self.numbers[nodes]
            listed = numbers >= 0
            yield rows_T[places[listed]], numbers[listed]

    def _numbered(self, texts: Sequence[str], *, lowercase: bool) -> tuple[Ints, Ints]:
        """Return the number of every word of the texts, negative for an unknown one, and the text that it stands in.

        In ASCII, the words of all texts are what is left when every other character is a space; elsewhere they are
        looked for text by text.
        """
        encoded = [
            text.encode() if text.isascii() else _encoded(" ".join(WORD.findall(text.lower() if lowercase else text)))
            for text in texts
        ]
        words = BETWEEN.join([*encoded, b""]).translate(LOWERED if lowercase else SPACED).split()
        numbers_T = np.fromiter(map(self.words.get, words, repeat(-1)), np.int64, len(words))
        rows_T = np.cumsum(numbers_T == APART)
        kept = numbers_T > SHORT
        return numbers_T[kept], rows_T[kept]


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _hashed(keys: Ints, bits: int) -> NDArray[Any]:
    return (keys.astype(np.uint64) * MULTIPLIER) >> np.uint64(64 - bits)
