"""A linear model that counts the n-grams of the texts it predicts once, for many models of the same texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith import records
from tunesmith.data.text_keys import text_key
from tunesmith.models import linear, vectorizer
from tunesmith.models.linear import LinearPredictor
from tunesmith.protocols import TrainResult
from tunesmith.recipe import Linear
from tunesmith.tasks.text_targets import Target
from tunesmith.types import Example, TextKey

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CountedTexts:
    """The n-grams of several lists of texts."""

    settings: Linear
    counted: dict[tuple[TextKey, ...], tuple[list[str], Any]] = field(default_factory=dict)

    def of(self, examples: Sequence[Example]) -> tuple[list[str], Any]:
        """Return all n-grams of these texts, and how often each text has each, as a CSC matrix."""
        from scipy import sparse

        key = tuple(map(text_key, examples))
        if key not in self.counted:
            every = {"vectorizer": "count", "min_df": 1, "max_features": None}
            table = vectorizer.vectorize(examples, self.settings.model_copy(update=every))
            features = table.features.joined() if table.vocabulary else sparse.csr_matrix((len(examples), 0))
            self.counted[key] = table.vocabulary, features.tocsc()
        return self.counted[key]


@dataclass(frozen=True)
class CountingPredictor(LinearPredictor):
    """A linear predictor that looks its n-grams up among counted ones; it predicts what a plain one does."""

    texts: CountedTexts

    def _logits(self, examples: Sequence[Example]) -> Floats:
        names, counts = self.texts.of(examples)
        places_G = np.array([self.vocabulary.get(name, -1) for name in names], dtype=np.int64)
        known_G = np.flatnonzero(places_G >= 0)
        columns_G, values = places_G[known_G], counts[:, known_G].tocoo()
        weights = values.data.astype(np.float64)
        if self.idf is not None:
            weights = (1 + np.log(weights)) * self.idf[columns_G[values.col]]
            squares_N = np.bincount(values.row, weights**2, minlength=len(examples))
            weights /= np.sqrt(squares_N)[values.row]
        values.data = weights
        regression = self.regression
        rows = regression.weight.T if regression.projection is None else regression.projection
        scores: Floats = values.tocsr() @ rows[columns_G]
        if regression.projection is not None:
            scores = scores @ regression.weight.T
        return regression.logits(scores, len(self.labels))


def fit(
    examples: Sequence[Example], target: Target, settings: Linear, weights: Floats, texts: CountedTexts
) -> TrainResult:
    """Do what `linear.fit` does, with a predictor that counts texts once."""
    result = linear.fit(examples, target, settings, weights)
    predictor = CountingPredictor(**records.fields_of(LinearPredictor, result.predictor), texts=texts)
    return TrainResult(predictor, result.parameters, result.trainable, result.notes)
