"""Texts that say their label: by its name, or by a single word that alone tells it.

Words are counted once a text. What a word says of a label is held against all words that were looked at: its share of
the label has a one-sided exact bound (Clopper and Pearson 1934) at a level divided by their number (Bonferroni).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.auditing.row_counts import SHOWN, RowCount
from tunesmith.data import personal_data
from tunesmith.models import vectorizer
from tunesmith.models.ngrams import SECOND, WORD
from tunesmith.recipe import Linear
from tunesmith.records import omitted_if_none
from tunesmith.types import Example

Floats = NDArray[np.float64]
FEWEST_ROWS = 10
"""Rows that a word, or the texts of a label, need."""
LEVEL = 0.05
"""Probability that any word is named by chance."""
ALONE = 0.98
"""Share of a word's rows that must have one label."""
REMAINING = 0.2
"""The bound on a word's errors, as a share of the errors of always answering its label."""
COVERED = 0.1
"""Share of a label's rows that must have the word."""
EXPLAINED = 0.25
"""Share of the variance of numbers that a word must explain (a large effect: Cohen 1988)."""
MOST_WORDS = 20
"""Words that are listed."""
MOST_LABELS = 10
SHORTEST_NAME = 3
"""Letters that a label's name needs, to be looked for in texts."""


@dataclass(frozen=True, slots=True)
class LabelName:
    """How often the texts of a label contain its name."""

    label: str
    rows: int
    """Texts of the label with its name."""
    share: float
    """Of the label's texts."""
    elsewhere: float
    """Share of the other texts with that name."""


@dataclass(frozen=True, slots=True)
class LabelNames:
    """How often texts contain the name of their own label."""

    count: RowCount
    share: float
    """Of the texts whose label has a name that can be looked for."""
    by_chance: float
    """The share that could be expected if the labels were dealt out at random."""
    labels: tuple[LabelName, ...]
    """The labels that it concerns most."""


@dataclass(frozen=True, slots=True)
class TellingWord:
    """A word that alone tells a label, or much of a number."""

    word: str
    second: bool
    """Whether it is a word of the second text of a pair."""
    label: str | None
    """None for a number."""
    rows: int
    """Training texts with the word."""
    share: float
    """Share of them that have the label; for a number, the share of its variance that the word explains."""
    bound: float | None
    """What that share is at least, at 95% confidence over all words; None for a number."""
    covered: float
    """Share of the label's texts (for a number, of all) that have the word."""
    held_out: float | None = omitted_if_none()
    """The share in the validation and test texts with the word; None where there are none."""
    mean: float | None = omitted_if_none()
    """The mean number of texts with the word."""
    where: tuple[str, ...] = ()
    """Ids of the first training texts with the word."""


@dataclass(frozen=True, slots=True)
class LabelLeaks:
    """What in texts gives their label away."""

    names: LabelNames | None
    words: tuple[TellingWord, ...]
    """The words that tell most rows first; MOST_WORDS at most."""
    found: int
    """How many words there are."""
    tested: int
    """How many words were looked at."""


def label_names(rows: Sequence[Example], labels: Sequence[str]) -> LabelNames | None:
    """Return how often texts contain their label's name; None where no label has one that can be looked for."""
    names = {label: " ".join(re.split(r"[\W_]+", label)).strip().casefold() for label in labels}
    names = {label: name for label, name in names.items() if sum(map(str.isalpha, name)) >= SHORTEST_NAME}
    if not names:
        return None
    has, total, own = Counter[str](), Counter[str](), defaultdict[str, list[str]](list)
    finder = _finder(names.values())
    known = 0
    ids = []
    for row in rows:
        present = finder(f"{row.text} {row.text_pair or ''}")
        has.update(label for label, name in names.items() if name in present)
        mine = [label for label in row.all_labels if label in names]
        total.update(mine)
        known += bool(mine)
        for label in mine:
            if names[label] in present:
                own[label].append(row.id)
        if any(names[label] in present for label in mine):
            ids.append(row.id)
    if not known:
        return None
    each = [
        LabelName(
            label,
            len(own[label]),
            len(own[label]) / total[label],
            (has[label] - len(own[label])) / max(1, len(rows) - total[label]),
        )
        for label in sorted(own, key=lambda label: (-len(own[label]), label))
    ]
    chance = sum(has[label] / len(rows) * total[label] for label in names) / known
    return LabelNames(RowCount.of(ids), len(ids) / known, min(1.0, chance), tuple(each[:MOST_LABELS]))


def _finder(names: Any) -> Callable[[str], set[str]]:
    """Return a function of a text that returns the names in it, whatever stands between their words."""
    words = {name: tuple(name.split()) for name in names}
    by_first = defaultdict[str, list[str]](list)
    for name, parts in words.items():
        by_first[parts[0]].append(name)

    def find(text: str) -> set[str]:
        tokens = re.findall(r"[^\W_]+", text.casefold())
        present = set()
        for place, token in enumerate(tokens):
            for name in by_first.get(token, ()):
                parts = words[name]
                if tuple(tokens[place : place + len(parts)]) == parts:
                    present.add(name)
        return present

    return find


def telling_words(train: Sequence[Example], labels: Sequence[str]) -> tuple[list[TellingWord], int]:
    """Return the words of training texts that alone tell a label or a number, and how many words were looked at."""
    settings = Linear(vectorizer="count", word_ngrams=(1, 1), min_df=FEWEST_ROWS)
    table = vectorizer.vectorize(train, settings)
    if not table.vocabulary:
        return [], 0
    has = table.features.joined()
    has.data[:] = 1
    rows_V = np.asarray(has.sum(axis=0), np.float64).ravel()
    if any(row.value is not None for row in train):
        found = _of_numbers(has, rows_V, table.vocabulary, train)
    else:
        found = _of_labels(has, rows_V, table.vocabulary, train, labels)
    return found, len(table.vocabulary)


def _of_labels(
    has: Any, rows_V: Floats, vocabulary: Sequence[str], train: Sequence[Example], labels: Sequence[str]
) -> list[TellingWord]:
    from scipy import sparse, special

    numbers = {label: number for number, label in enumerate(labels)}
    pairs = [(i, numbers[label]) for i, row in enumerate(train) for label in row.all_labels if label in numbers]
    if not pairs:
        return []
    places, columns = np.array(pairs).T
    gold = sparse.csr_matrix((np.ones(len(pairs), np.float32), (places, columns)), (len(train), len(labels)))
    both = (has.T @ gold).tocoo()
    words, label_K, hits = both.row, both.col, both.data.astype(np.float64)
    totals_K = np.bincount(columns, minlength=len(labels)).astype(np.float64)
    share, covered = hits / rows_V[words], hits / totals_K[label_K]
    level = LEVEL / (len(vocabulary) * len(labels))
    with np.errstate(invalid="ignore"):
        low = special.betaincinv(hits, rows_V[words] - hits + 1, level)
    most_errors = REMAINING * (1 - totals_K[label_K] / len(train))
    chosen = np.flatnonzero((share >= ALONE) & (1 - low <= most_errors) & (covered >= COVERED))
    chosen = chosen[np.lexsort((words[chosen], -hits[chosen]))]
    where = _first_rows(has, words[chosen[:MOST_WORDS]], train)
    return [
        TellingWord(
            *_split(vocabulary[words[i]]),
            labels[label_K[i]],
            int(rows_V[words[i]]),
            float(share[i]),
            float(low[i]),
            float(covered[i]),
            where=where.get(int(words[i]), ()),
        )
        for i in chosen.tolist()
    ]


def _of_numbers(has: Any, rows_V: Floats, vocabulary: Sequence[str], train: Sequence[Example]) -> list[TellingWord]:
    """Correlate numbers with the presence of each word (point-biserial), and test it by Student's t."""
    from scipy import special

    values_N = np.array([np.nan if row.value is None else row.value for row in train])
    mean, N = float(values_N.mean()), len(train)
    spread_N = values_N - mean
    sums_V = np.asarray(has.T @ spread_N)
    variance_V = rows_V * (1 - rows_V / N) * float(spread_N @ spread_N)
    squares_V = np.divide(sums_V**2, variance_V, out=np.zeros_like(sums_V), where=variance_V > 1e-12)
    with np.errstate(divide="ignore"):
        t_V = np.sqrt(squares_V * max(1, N - 2) / np.maximum(1 - squares_V, 1e-12))
    p_V = 2 * special.stdtr(max(1, N - 2), -t_V)
    chosen = np.flatnonzero((squares_V >= EXPLAINED) & (p_V * len(vocabulary) <= LEVEL))
    chosen = chosen[np.argsort(-squares_V[chosen], kind="stable")]
    where = _first_rows(has, chosen[:MOST_WORDS], train)
    return [
        TellingWord(
            *_split(vocabulary[i]),
            None,
            int(rows_V[i]),
            float(squares_V[i]),
            None,
            float(rows_V[i] / N),
            mean=float(mean + sums_V[i] / rows_V[i]),
            where=where.get(i, ()),
        )
        for i in chosen.tolist()
    ]


def _first_rows(has: Any, columns: NDArray[np.integer[Any]], train: Sequence[Example]) -> dict[int, tuple[str, ...]]:
    """Return the ids of the first texts with each word."""
    if not len(columns):
        return {}
    table = has.tocsc()
    places = {column: table.indices[table.indptr[column] : table.indptr[column + 1]] for column in columns.tolist()}
    return {column: tuple(train[row].id for row in np.sort(rows)[:SHOWN].tolist()) for column, rows in places.items()}


def _split(ngram: str) -> tuple[str, bool]:
    """Return a word, and whether it is one of second texts."""
    return ngram.removeprefix(SECOND), ngram.startswith(SECOND)


def _finished(found: Sequence[TellingWord], held_out: Sequence[Example]) -> list[TellingWord]:
    """Return words with their share in held-out texts, and long numbers masked."""
    rows, hits = [0] * len(found), [0] * len(found)
    wanted = defaultdict[tuple[str, bool], list[int]](list)
    for place, word in enumerate(found):
        wanted[word.word, word.second].append(place)
    for row in held_out if found and found[0].label is not None else ():
        for second, text in ((False, row.text), (True, row.text_pair or "")):
            for word in set(WORD.findall(text.lower())):
                for place in wanted.get((word, second), ()):
                    rows[place] += 1
                    hits[place] += found[place].label in row.all_labels
    return [
        replace(word, word=personal_data.masked(word.word), held_out=hits[place] / rows[place] if rows[place] else None)
        for place, word in enumerate(found)
    ]


def find(train: Sequence[Example], held_out: Sequence[Example], labels: Sequence[str]) -> LabelLeaks:
    """Return what gives labels away. Names are looked for in all rows; words are found in train."""
    words, tested = telling_words(train, labels)
    names = label_names([*train, *held_out], labels)
    return LabelLeaks(names, tuple(_finished(words[:MOST_WORDS], held_out)), len(words), tested)
