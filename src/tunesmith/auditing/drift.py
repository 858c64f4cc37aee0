"""Whether two sets of texts can be told apart: a classifier two-sample test (Lopez-Paz and Oquab, ICLR 2017).

A linear model learns which set a text is from. Where both sets are of one kind, it can only guess: the area under its
ROC curve (AUC), on texts that it did not learn from, is 0.5. The AUC is the mean over the folds of a cross-validation.
Its variance is that of each fold (DeLong et al. 1988), and more, as folds learn from the same texts in part (Nadeau and
Bengio 2003): without that, two random parts of one set of texts were told apart four times as often as they may be.

Rows of one group, equal texts and near-duplicates count as one: they lie in one fold, so that a text is not known by
its copy, and their errors are added before they are squared (Obuchowski 1997). Splits keep them on one side, so that
without this a random split of texts with many copies could be told apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.data import personal_data, splits
from tunesmith.evaluation import distribution_shift
from tunesmith.evaluation.intervals import Estimate
from tunesmith.models import newton, vectorizer
from tunesmith.models.newton import ColumnBlocks
from tunesmith.models.ngrams import SECOND
from tunesmith.recipe import Linear
from tunesmith.types import DuplicateIndex, Example

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
FEWEST_ROWS = 30
"""Rows that each set needs."""
MOST_ROWS = 5000
"""Rows of each set that are looked at; of more, this number is drawn."""
FOLDS = 5
WORDS = 10
"""Words of each set that are listed."""
STRENGTH = 1.0
"""Inverse strength of the model's penalty."""


@dataclass(frozen=True, slots=True)
class DriftWord:
    """A word that tells two sets of texts apart."""

    word: str
    second: bool
    """Whether it is a word of the second text of a pair."""
    shares: tuple[float, float]
    """Share of the texts of each set that have it."""


@dataclass(frozen=True, slots=True)
class Drift:
    """How well two sets of texts can be told apart."""

    sets: tuple[str, str]
    auc: Estimate
    """0.5 where a text says nothing of its set, 1 where it says everything."""
    rows: tuple[int, int]
    """Texts of each set that were looked at."""
    drawn: bool
    """Whether these are a random part of all."""
    words: tuple[DriftWord, ...]
    """The words that do most for it, those of the second set first."""

    @property
    def detected(self) -> bool:
        """Whether the two can be told apart better than by chance."""
        return self.auc.low > 0.5


@dataclass(frozen=True, slots=True)
class LabelShift:
    """How much the shares of labels differ between two sets of rows."""

    distance: float
    """Share of the rows of one set that would need another label (total variation distance)."""
    p: float
    """Of the chi-squared test that both sets have the same shares."""
    label: str
    """The label whose share differs most."""
    shares: tuple[float, float]
    """Its share of each set."""


def compare(
    sets: tuple[str, str],
    first: Sequence[Example],
    second: Sequence[Example],
    seed: int,
    index: DuplicateIndex | None = None,
    level: float = 0.95,
) -> Drift | None:
    """Return how well two sets of texts can be told apart; None for fewer than FEWEST_ROWS rows, or without words.

    index: of rows that include these; by default their equal texts alone count as one.
    """
    if min(len(first), len(second)) < FEWEST_ROWS:
        return None
    generator = np.random.Generator(np.random.PCG64(seed))
    parts = [_drawn(rows, generator) for rows in (first, second)]
    rows, gold_N = [*parts[0], *parts[1]], np.repeat([0, 1], [len(part) for part in parts])
    table = vectorizer.vectorize(rows, Linear(word_ngrams=(1, 1), lowercase=False))
    if not table.vocabulary:
        return None
    features = table.features.joined()
    weights = len(rows) / (2 * np.bincount(gold_N))
    unit_N = _units(rows, index)
    fold_N = _folds(unit_N, gold_N, generator)
    values, variances = [], []
    for fold in range(FOLDS):
        held = fold_N == fold
        if len(set(gold_N[held].tolist())) < 2 or len(set(gold_N[~held].tolist())) < 2:
            continue
        weight, bias = _fit(features[~held], gold_N[~held], weights)
        value, variance = auc(features[held] @ weight + bias, gold_N[held], unit_N[held])
        values.append(value)
        variances.append(variance)
    if not values:
        return None
    overlap = 1 + len(values) / (FOLDS - 1)
    mean, error = float(np.mean(values)), np.sqrt(overlap * sum(variances)) / len(values)
    half = NormalDist().inv_cdf((1 + level) / 2) * error
    weight, _ = _fit(features, gold_N, weights)
    return Drift(
        sets,
        Estimate(mean, max(0.0, float(mean - half)), min(1.0, float(mean + half))),
        (len(parts[0]), len(parts[1])),
        len(rows) < len(first) + len(second),
        _words(features, gold_N, weight, table.vocabulary),
    )


def _drawn(rows: Sequence[Example], generator: np.random.Generator) -> list[Example]:
    if len(rows) <= MOST_ROWS:
        return list(rows)
    return [rows[place] for place in np.sort(generator.permutation(len(rows))[:MOST_ROWS]).tolist()]


def _units(rows: Sequence[Example], index: DuplicateIndex | None) -> Ints:
    """Return the unit of each row: rows of a group, equal texts and near-duplicates are one."""
    units = splits.units(rows)
    if index is not None:
        units, _ = splits.near_units(rows, units, index)
    unit_N = np.zeros(len(rows), np.intp)
    for number, places in enumerate(units):
        unit_N[places] = number
    return unit_N


def _folds(unit_N: Ints, gold_N: Ints, generator: np.random.Generator) -> Ints:
    """Return the fold of each row, a unit in one; each set is spread over all folds."""
    _, leaders, place_N = np.unique(unit_N, return_index=True, return_inverse=True)
    fold_U = np.zeros(len(leaders), np.intp)
    for known in (0, 1):
        of_set = np.flatnonzero(gold_N[leaders] == known)
        fold_U[generator.permutation(of_set)] = np.arange(len(of_set)) % FOLDS
    return np.asarray(fold_U[place_N])


def _fit(features: Any, gold_N: Ints, weights: Floats) -> tuple[Floats, float]:
    """Return the weights of a logistic regression, and its bias."""
    weight, bias, _ = newton.fit(ColumnBlocks([features]), gold_N, weights[gold_N], 2, STRENGTH, 100)
    return np.asarray(weight[0], np.float64), float(bias[0])


def auc(scores_N: Floats, gold_N: Ints, unit_N: Ints) -> tuple[float, float]:
    """Return the area under the ROC curve, and its variance, computed with ranks.

    The variance is that of DeLong et al. (1988) where every row is a unit of its own, and else that of Obuchowski
    (1997).
    """
    positive, negative = scores_N[gold_N == 1], scores_N[gold_N == 0]
    m, n = len(positive), len(negative)
    ranks_N = _ranks(np.concatenate([positive, negative]))
    above_M = (ranks_N[:m] - _ranks(positive)) / n
    below_N = 1 - (ranks_N[m:] - _ranks(negative)) / m
    value = float(above_M.mean())
    error_N = np.zeros(len(scores_N))
    for known, part in ((1, above_M), (0, below_N)):
        error_N[gold_N == known] = (part - value) / np.sqrt(max(1, len(part) * (len(part) - 1)))
    return value, float(np.square(np.bincount(unit_N, error_N)).sum())


def _ranks(values_N: Floats) -> Floats:
    """Return ranks from 1, of equal values their mean."""
    _, places_N, counts = np.unique(values_N, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[places_N], np.float64)


def _words(features: Any, gold_N: Ints, weight: Floats, vocabulary: Sequence[str]) -> tuple[DriftWord, ...]:
    """Return the words whose weight, times the difference of their mean value, is largest in favour of each set."""
    has = features.copy()
    has.data[:] = 1
    means, shares = ([np.asarray(m[gold_N == k].mean(axis=0)).ravel() for k in (0, 1)] for m in (features, has))
    gap_V = weight * (means[1] - means[0])
    words = []
    for sign in (1, -1):
        order = np.lexsort((np.arange(len(gap_V)), -np.where(sign * weight > 0, gap_V, 0)))[:WORDS]
        for place in order.tolist():
            if sign * weight[place] > 0 and gap_V[place] > 0:
                ngram = vocabulary[place]
                word = personal_data.masked(ngram.removeprefix(SECOND))
                share = float(shares[0][place]), float(shares[1][place])
                words.append(DriftWord(word, ngram.startswith(SECOND), share))
    return tuple(words)


def label_shift(first: Sequence[Example], second: Sequence[Example]) -> LabelShift | None:
    """Return how much the shares of single labels differ between two sets; None where there are none to compare."""
    counts = [Counter(row.label for row in rows if row.label is not None) for rows in (first, second)]
    labels = sorted({*counts[0], *counts[1]})
    if len(labels) < 2 or not all(counts):
        return None
    table = np.array([[count[label] for label in labels] for count in counts], np.float64)
    shares = table / table.sum(axis=1, keepdims=True)
    widest = int(np.argmax(np.abs(shares[1] - shares[0])))
    return LabelShift(
        distribution_shift.total_variation(table),
        distribution_shift.chi_squared_p(table),
        labels[widest],
        (float(shares[0][widest]), float(shares[1][widest])),
    )
