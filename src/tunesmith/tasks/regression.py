"""Regression: a text has a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunesmith.errors import DataError
from tunesmith.tasks import classification
from tunesmith.types import Example, ValuePrediction, ValuePredictionRow

BINS = 10
"""Quantile bins of the numbers, of which every split gets its share."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number, of which a model learns the distance from `mean` in units of `scale`."""

    mean: float = 0.0
    scale: float = 1.0
    problem_type = "regression"
    row = ValuePredictionRow
    labels = ()

    @classmethod
    def of(cls, examples: Sequence[Example]) -> Number:
        """Return the target of these training examples: their mean and standard deviation (1 of equal numbers)."""
        values, weights = gold(examples), [example.weight for example in examples]
        mean = float(np.average(values, weights=weights))
        return cls(mean, float(np.average((values - mean) ** 2, weights=weights)) ** 0.5 or 1.0)

    def encode(self, examples: Sequence[Example]) -> list[float]:
        """Return the standardised number of each example."""
        return [float(value) for value in (gold(examples) - self.mean) / self.scale]

    def weights(self, examples: Sequence[Example], setting: object) -> NDArray[np.float64]:
        """Return none: there are no labels to weight."""
        return np.ones(0)

    def predictions(self, examples: Sequence[Example], logits_NK: NDArray[np.float64]) -> list[ValuePrediction]:
        """Return the number that the one output says for each example. Raises ModelError where it is not finite."""
        classification.check_finite(examples, logits_NK)
        values = logits_NK[:, 0] * self.scale + self.mean
        return [ValuePrediction(example.id, value) for example, value in zip(examples, values.tolist(), strict=True)]

    def decides(self, settings: object) -> bool:
        """Return False: a number is what the model says."""
        return False

    def decide(self, rows: Sequence[ValuePredictionRow], settings: object, seed: int) -> tuple[Number, None]:
        """Return the target as it is."""
        return self, None

    def rows(self, examples: Sequence[Example], predicted: Sequence[ValuePrediction]) -> list[ValuePredictionRow]:
        """Return the predictions of examples beside the numbers that the data has."""
        return [
            ValuePredictionRow(prediction.id, prediction.value, value)
            for prediction, value in zip(predicted, gold(examples).tolist(), strict=True)
        ]


def gold(examples: Sequence[Example]) -> NDArray[np.float64]:
    """The numbers of examples that have one."""
    return np.array([example.value for example in examples], dtype=np.float64)


def strata(examples: Sequence[Example]) -> list[int]:
    """The quantile bin of each row's number; rows with equal numbers share a bin."""
    values = gold(examples)
    edges = np.quantile(values, np.arange(1, BINS) / BINS)
    bins: list[int] = np.searchsorted(edges, values).tolist()
    return bins


def check_train(examples: Sequence[Example]) -> None:
    """Raise DataError where all numbers are equal."""
    values = gold(examples)
    if values.min() == values.max():
        raise DataError(
            "train has a single number", expected="different numbers", found=f"{values[0]:g}", do="check data.label"
        )
