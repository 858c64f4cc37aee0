"""Texts as features, for the similarity of texts: what the last layer of a predictor reads, or a bag of words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.protocols import Embedding
from tunesmith.recipe import Linear
from tunesmith.types import Example

Floats = NDArray[np.float64]
Index = NDArray[np.intp]


@dataclass(frozen=True)
class TextFeatures:
    """Training rows and held-out rows as features. No label has entered them but through a trained encoder."""

    train: Any
    """N x D: a CSR matrix of bags of words, or an array of embeddings."""
    held_out: Any
    """M x D."""

    @classmethod
    def of(
        cls, predictor: object, train: Sequence[Example], held_out: Sequence[Example], settings: Linear
    ) -> TextFeatures:
        """Return the features of rows."""
        features = table(predictor, [*train, *held_out], settings)
        return cls(features[: len(train)], features[len(train) :])

    @property
    def kind(self) -> str:
        """What they are, for people."""
        return "embeddings" if isinstance(self.train, np.ndarray) else "words"

    def similarities(self, rows: Index, *, held_out: bool) -> Floats:
        """Return the cosine similarity of some rows to every training row: rows x N."""
        units_ND = _unit(self.train)
        chosen = _unit(self.held_out[rows]) if held_out else units_ND[rows]
        product = chosen @ units_ND.T
        return np.asarray(product if isinstance(product, np.ndarray) else product.toarray(), dtype=np.float64)


def table(predictor: object, examples: Sequence[Example], settings: Linear) -> Any:
    """Return what the predictor's last layer reads, examples x features; the TF-IDF of the texts where it does not say.

    An array, or a CSR matrix.
    """
    from scipy import sparse

    from tunesmith.models import vectorizer

    if isinstance(predictor, Embedding):
        return predictor.embeddings(examples)
    vectorized = vectorizer.vectorize(examples, settings)
    return vectorized.features.joined() if vectorized.vocabulary else sparse.csr_matrix(np.ones((len(examples), 1)))


def _unit(features: Any) -> Any:
    """Return the rows with length 1; rows of zeros stay as they are."""
    if isinstance(features, np.ndarray):
        return features / _nonzero(np.sqrt((features**2).sum(axis=1)))
    lengths_N1 = _nonzero(np.sqrt(np.asarray(features.multiply(features).sum(axis=1))))
    return features.multiply(1 / lengths_N1).tocsr()


def _nonzero(lengths: Floats) -> Floats:
    lengths_N1 = lengths.astype(np.float64).reshape(-1, 1)
    lengths_N1[lengths_N1 == 0] = 1
    return lengths_N1
