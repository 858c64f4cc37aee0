"""Texts as features for a regression: bags of words, or embeddings of a frozen encoder; made once for many fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.recipe import Linear, Probe
from tunesmith.tasks.text_targets import Target
from tunesmith.types import Example

if TYPE_CHECKING:
    from tunesmith.models.linear import Regression
    from tunesmith.prediction.classify import Encoder

Floats = NDArray[np.float64]
Index = NDArray[np.intp]


@dataclass(frozen=True)
class TextFeatures:
    """Training rows and held-out rows as features. No label has entered them."""

    train: Any
    """N x D: a CSR matrix of bags of words, or an array of embeddings."""
    held_out: Any
    """M x D."""
    kind: str
    """For people: `TF-IDF` or `embeddings`."""

    def similarities(self, rows: Index, *, held_out: bool) -> Floats:
        """Return the cosine similarity of some rows to every training row: rows x N."""
        chosen = _unit(self.held_out[rows]) if held_out else self._units[rows]
        product = chosen @ self._units.T
        return np.asarray(product.toarray() if hasattr(product, "toarray") else product, dtype=np.float64)

    @cached_property
    def _units(self) -> Any:
        return _unit(self.train)


def bag_of_words(train: Sequence[Example], held_out: Sequence[Example], settings: Linear) -> TextFeatures:
    """Return n-grams counted in the training rows, as `linear.fit` weighs them. Raises TrainingError for none."""
    from scipy import sparse

    from tunesmith.models import linear, vectorizer

    table = vectorizer.vectorize(train, settings)
    if not table.vocabulary:
        raise linear.no_ngram(len(train), settings)
    known = {gram: column for column, gram in enumerate(table.vocabulary)}
    rows = [linear.features_of(example, known, table.idf, settings) for example in held_out]
    ends = np.cumsum([0, *(len(columns) for columns, _ in rows)])
    columns, values = (np.concatenate([np.zeros(0), *parts]) for parts in zip(*rows, strict=True)) if rows else ((), ())
    other = sparse.csr_matrix((values, columns, ends), shape=(len(held_out), len(known)), dtype=np.float32)
    return TextFeatures(table.features.joined(), other, "n-gram counts" if table.idf is None else "TF-IDF")


def embeddings(
    encoder: Encoder, train: Sequence[Example], held_out: Sequence[Example], settings: Probe
) -> TextFeatures:
    """Return the embeddings of all rows."""
    from tunesmith.prediction import classify

    classify.check_encoder(encoder, train, settings)
    table, _ = classify.embed(encoder, [*train, *held_out], settings)
    return TextFeatures(table[: len(train)], table[len(train) :], "embeddings")


def regression(
    features: Any, examples: Sequence[Example], target: Target, settings: Linear, weights: Floats
) -> Regression:
    """Fit the regression that suits a target to features, N x D. weights: one per label."""
    from tunesmith.models import linear
    from tunesmith.models.newton import ColumnBlocks

    return linear.fit_head(ColumnBlocks([features]), examples, target, settings, weights)


def logits(fitted: Regression, features: Any, labels: int) -> Floats:
    """Return the outputs of a regression for features, M x D."""
    inner = features if fitted.projection is None else features @ fitted.projection
    return fitted.logits(np.asarray(inner @ fitted.weight.T, dtype=np.float64), labels)


def _unit(table: Any) -> Any:
    """Return the rows with length 1; rows of zeros stay as they are."""
    squares = table.multiply(table).sum(axis=1) if hasattr(table, "multiply") else (table**2).sum(axis=1)
    lengths_N1 = np.sqrt(np.asarray(squares, dtype=np.float64)).reshape(-1, 1)
    lengths_N1[lengths_N1 == 0] = 1
    return table.multiply(1 / lengths_N1).tocsr() if hasattr(table, "multiply") else table / lengths_N1
