"""Multi-label classification: a text has any number of labels of a fixed set, perhaps none."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tunesmith.errors import DataError
from tunesmith.tasks import classification
from tunesmith.types import Example, MultilabelPrediction, MultilabelPredictionRow

Floats = NDArray[np.float64]
HALF = 0.5
"""The threshold of a label where none was chosen."""


@dataclass(frozen=True, slots=True)
class MultiLabel:
    """Any of these labels; a model has an output for each, and the logistic function makes them probabilities."""

    labels: tuple[str, ...]
    thresholds: tuple[float, ...] = ()
    """The probability from which each label is predicted; 0.5 each unless they are given."""
    problem_type = "multi_label_classification"
    row = MultilabelPredictionRow

    def __post_init__(self) -> None:
        if not self.thresholds:
            object.__setattr__(self, "thresholds", (HALF,) * len(self.labels))

    def encode(self, examples: Sequence[Example]) -> list[list[float]]:
        """Return 0 or 1 for each label of each example."""
        return [[float(known) for known in row] for row in gold(examples, self.labels)]

    def weights(self, examples: Sequence[Example], setting: str | Mapping[str, float]) -> Floats:
        """Return the weight of each label where it applies; `balanced` is rows without it over rows with it, and
        1 of a label that every row has, or none."""
        if isinstance(setting, Mapping):
            return classification.class_weights(examples, self.labels, setting)
        if setting == "none":
            return np.ones(len(self.labels))
        weights_N = np.array([example.weight for example in examples])
        with_K = weights_N @ gold(examples, self.labels)
        without_K = weights_N.sum() - with_K
        ratios_K: Floats = np.divide(without_K, with_K, out=np.ones(len(with_K)), where=(with_K > 0) & (without_K > 0))
        return ratios_K

    def log_odds(self, examples: Sequence[Example], weights_K: Floats) -> Floats:
        """Return the log-odds of each label in a loss with these weights, before a text is read; half a row is added.

        An output layer that begins there does not have to learn first that most labels are rare (Lin et al. 2017, 3.3).
        """
        weights_N = np.array([example.weight for example in examples])
        with_K = weights_N @ gold(examples, self.labels) + 0.5
        odds_K: Floats = np.log(weights_K * with_K) - np.log(weights_N.sum() + 1 - with_K)
        return odds_K

    def predictions(self, examples: Sequence[Example], logits_NK: Floats) -> list[MultilabelPrediction]:
        """Return what logits say of the examples. Raises ModelError where they are not finite."""
        classification.check_finite(examples, logits_NK)
        probabilities_NK = 1 / (1 + np.exp(-np.clip(logits_NK, -700, 700)))
        thresholds = np.array(self.thresholds)
        return [
            MultilabelPrediction(
                example.id,
                tuple(self.labels[k] for k in np.flatnonzero(row_K >= thresholds)),
                array("d", row_K.tobytes()),
            )
            for example, row_K in zip(examples, probabilities_NK, strict=True)
        ]

    def rows(
        self, examples: Sequence[Example], predicted: Sequence[MultilabelPrediction]
    ) -> list[MultilabelPredictionRow]:
        """Return the predictions of labelled examples beside their labels, in the order of `labels`."""
        known = gold(examples, self.labels)
        return [
            MultilabelPredictionRow(p.id, p.labels, p.probabilities, tuple(self.labels[k] for k in np.flatnonzero(row)))
            for p, row in zip(predicted, known, strict=True)
        ]

    def certainty(self, prediction: MultilabelPrediction) -> float:
        """Return how sure the prediction is of its least certain label: 0.5 at the threshold, 1 at probability 0 or 1.

        In between it is linear, so that of a label with threshold 0.5 it is the probability of what was predicted.
        """
        pairs = zip(prediction.probabilities, self.thresholds, strict=True)
        return min(float(np.interp(probability, (0, at, 1), (1, HALF, 1))) for probability, at in pairs)

    def decides(self, settings: object) -> bool:
        """Return True: thresholds are always chosen."""
        return True

    def decide(self, rows: Sequence[MultilabelPredictionRow], settings: object, seed: int) -> tuple[MultiLabel, None]:
        """Return the target with the thresholds that give each label its highest F1 on these (validation) rows.

        Of equal ones the middle of the range; a label that no row has keeps 0.5, and one of probability 0 is never
        predicted.
        """
        probabilities_NK = np.array([row.probabilities for row in rows])
        known_NK = indicators([row.gold for row in rows], self.labels)
        return replace(self, thresholds=tuple(map(_best_threshold, known_NK.T, probabilities_NK.T))), None


def _best_threshold(known_N: NDArray[np.bool_], probability_N: Floats) -> float:
    if not known_N.any() or not probability_N.any():
        return HALF
    order = np.argsort(-probability_N, kind="stable")
    sorted_N, hits_N = probability_N[order], np.cumsum(known_N[order])
    f1_N = 2 * hits_N / (np.arange(1, len(order) + 1) + known_N.sum())
    # rows of one probability are predicted together
    f1_N[:-1][sorted_N[:-1] == sorted_N[1:]] = -1
    f1_N[sorted_N == 0] = -1
    last = int(f1_N.argmax())
    below = sorted_N[last + 1] if last + 1 < len(sorted_N) else 0.0
    return float((sorted_N[last] + below) / 2)


def gold(examples: Sequence[Example], labels: Sequence[str]) -> NDArray[np.bool_]:
    """Return N x K: which of the labels each example has."""
    return indicators([example.labels or () for example in examples], labels)


def indicators(sets: Sequence[Sequence[str]], labels: Sequence[str]) -> NDArray[np.bool_]:
    """Return N x K: which of K labels each of N sets has. Raises KeyError for a label that is not among them."""
    places = {label: k for k, label in enumerate(labels)}
    known_NK = np.zeros((len(sets), len(labels)), dtype=bool)
    for n, names in enumerate(sets):
        known_NK[n, [places[name] for name in names]] = True
    return known_NK


def strata(examples: Sequence[Example]) -> list[tuple[str, ...]]:
    """The rarest label of each row, as a stratum of its own."""
    counts = Counter(label for example in examples for label in example.labels or ())
    return [
        (min(example.labels, key=lambda label: (counts[label], label)),) if example.labels else ()
        for example in examples
    ]


def check_train(examples: Sequence[Example]) -> None:
    """Raise DataError where no row has a label."""
    if not any(example.labels for example in examples):
        raise DataError(
            "no row of train has a label", expected="rows with labels", found="none", do="check data.label and the rows"
        )
