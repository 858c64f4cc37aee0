"""Classification: a text has one label of a fixed set."""

from __future__ import annotations

import itertools
import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tunesmith import records
from tunesmith.errors import DataError, ModelError, RecipeError
from tunesmith.recipe import Decide
from tunesmith.tasks import decisions
from tunesmith.tasks.decisions import Decision, DecisionFit
from tunesmith.types import Example, MultilabelPrediction, Prediction, PredictionRow

NUMBER = re.compile(r"[+-]?\d{1,18}(\.\d+)?")
SEPARATORS = ("|", ";", ",", "/")
"""What separates labels in one cell, where they look like lists."""


MOST_ORDERED = 20
"""Labels that are numbers, and more than this, are names of classes rather than grades."""


@dataclass(frozen=True, slots=True)
class SingleLabel:
    """One of these labels; a model has an output for each, and softmax makes them probabilities."""

    labels: tuple[str, ...]
    decision: Decision | None = None
    """What else makes a label of them, chosen on validation rows."""
    values: tuple[float, ...] | None = None
    """The number of each label, rising, where they have an order. Not kept with a model."""
    problem_type = "single_label_classification"
    row = PredictionRow

    def encode(self, examples: Sequence[Example]) -> list[int]:
        """Return the index of each example's label."""
        index = {label: i for i, label in enumerate(self.labels)}
        return [index[str(example.label)] for example in examples]

    def weights(self, examples: Sequence[Example], setting: str | Mapping[str, float]) -> NDArray[np.float64]:
        """Return the weight of each label in a loss, by `train.class_weights`."""
        return class_weights(examples, self.labels, setting)

    def predictions(self, examples: Sequence[Example], logits_NK: NDArray[np.float64]) -> list[Prediction]:
        """Return what logits say of the examples. Raises ModelError where they are not finite."""
        if self.decision is None:
            return predictions(examples, softmax(logits_NK), self.labels)
        check_finite(examples, logits_NK)
        return decided(examples, self.decision, self.decision.probabilities(logits_NK), self.labels)

    def decides(self, settings: Decide) -> bool:
        """Return whether a recipe asks for decisions."""
        return settings.is_set

    def decide(self, rows: Sequence[PredictionRow], settings: Decide, seed: int) -> tuple[SingleLabel, DecisionFit]:
        """Return the target with what was chosen on these (validation) rows, and how."""
        place = {label: k for k, label in enumerate(self.labels)}
        probabilities_NK, gold_N = (
            np.array([row.probabilities for row in rows]),
            np.array([place[row.gold] for row in rows]),
        )
        fit = decisions.choose(probabilities_NK, gold_N, self, settings, seed)
        return replace(self, decision=fit.decision), fit

    def rows(self, examples: Sequence[Example], predicted: Sequence[Prediction]) -> list[PredictionRow]:
        """Return the predictions of labelled examples beside their labels."""
        return [
            PredictionRow(**records.fields_of(Prediction, prediction), gold=str(example.label))
            for example, prediction in zip(examples, predicted, strict=True)
        ]


def gold(examples: Iterable[Example]) -> list[str]:
    """The labels of labelled examples."""
    return [str(example.label) for example in examples]


def strata(examples: Sequence[Example]) -> list[str | None]:
    """The label of each row: every split gets its share of each label."""
    return [example.label for example in examples]


def check_train(examples: Sequence[Example]) -> None:
    """Raise DataError where there is nothing to tell apart."""
    labels = {example.label for example in examples}
    if len(labels) == 1:
        raise DataError(
            "train has a single label",
            expected="at least two labels",
            found=repr(labels.pop()),
            do="check data.label and the rows",
        )


def class_weights(
    examples: Sequence[Example], labels: Sequence[str], setting: str | Mapping[str, float]
) -> NDArray[np.float64]:
    """Return one weight per label: 1 each (and of labels without examples), inverse to frequency, or as given.

    Over the examples, weights inverse to frequency have the mean 1.
    """
    if isinstance(setting, Mapping):
        if unknown := sorted(set(setting) - set(labels)):
            raise RecipeError(
                f"train.class_weights names {', '.join(unknown)}",
                expected=", ".join(labels),
                do="use the labels of the data",
            )
        return np.array([setting.get(label, 1.0) for label in labels])
    if setting == "none":
        return np.ones(len(labels))
    counts: defaultdict[str | None, float] = defaultdict(float)
    for example in examples:
        counts[example.label] += example.weight
    total = sum(counts.values())
    return np.array([total / (len(labels) * counts[label]) if counts[label] else 1.0 for label in labels])


def softmax(scores_BK: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return probabilities, one row per example, from logits or log-probabilities."""
    odds_BK = np.exp(scores_BK - scores_BK.max(axis=1, keepdims=True))
    return np.asarray(odds_BK / odds_BK.sum(axis=1, keepdims=True), dtype=np.float64)


def check_finite(examples: Sequence[Example], outputs: NDArray[np.float64]) -> None:
    """Raise ModelError unless all outputs for the examples (N x K) are finite."""
    if not (finite := np.isfinite(outputs).all(axis=1)).all():
        raise ModelError(
            f"cannot predict {examples[int(np.argmin(finite))].id}: the model's outputs are not finite",
            do="restore the model from a copy, or train again, with a lower learning rate",
        )


def predictions(
    examples: Sequence[Example], probabilities: NDArray[np.float64], labels: Sequence[str]
) -> list[Prediction]:
    """Return rows of probabilities (examples x labels) as predictions. Raises ModelError where they are not finite."""
    check_finite(examples, probabilities)
    best = probabilities.argmax(axis=1)
    return [
        Prediction(example.id, labels[winner], array("d", row.tobytes()))
        for example, winner, row in zip(examples, best, np.asarray(probabilities, dtype=np.float64), strict=True)
    ]


def decided(
    examples: Sequence[Example], decision: Decision, probabilities_NK: NDArray[np.float64], labels: Sequence[str]
) -> list[Prediction]:
    """Return probabilities as predictions, by what was chosen on validation rows."""
    chosen_N = decision.labels(probabilities_NK, labels).tolist()
    abstained_N, set_NK = decision.abstains(probabilities_NK), decision.sets(probabilities_NK)
    return [
        Prediction(
            example.id,
            labels[chosen_N[n]],
            array("d", probabilities_NK[n].tobytes()),
            abstained=None if abstained_N is None else bool(abstained_N[n]),
            label_set=None if set_NK is None else tuple(labels[k] for k in np.flatnonzero(set_NK[n]).tolist()),
        )
        for n, example in enumerate(examples)
    ]


def check_probabilities(predictions: Sequence[Prediction | MultilabelPrediction], action: str) -> None:
    """Raise ModelError, `cannot ACTION`, unless every prediction has probabilities."""
    if without := sum(not prediction.probabilities for prediction in predictions):
        raise ModelError(
            f"cannot {action}: predictions have no probabilities",
            expected="a probability for each label",
            found=f"{without:,} of {len(predictions):,} predictions without",
            do="use a method that gives probabilities; of a generator, predict.mode=score",
        )


def probability(prediction: Prediction, labels: Sequence[str]) -> float | None:
    """Return the probability of the predicted label; of a prediction that is no label, the highest; None if unknown."""
    if not prediction.probabilities:
        return None
    given = prediction.label in labels
    return prediction.probabilities[labels.index(prediction.label)] if given else max(prediction.probabilities)


def label_values(labels: Sequence[str], order: str | Sequence[str]) -> tuple[float, ...] | None:
    """Return the number of each label, by `data.label_order`; None where the labels have no order.

    labels: in their order. Labels that are no numbers are numbered from 1.
    """
    if order == "none" or len(labels) < 3:
        return None
    numeric = all(NUMBER.fullmatch(label) for label in labels)
    if order == "auto" and not (numeric and len(labels) <= MOST_ORDERED):
        return None
    values = tuple(float(label) for label in labels) if numeric else ()
    rising = all(a < b for a, b in itertools.pairwise(values))
    return values if values and rising else tuple(float(rank) for rank in range(1, len(labels) + 1))


def suggestion(labels: Sequence[str]) -> str | None:
    """Return which other task the names of labels suggest, and its settings; None for ordinary names."""
    if len(labels) > 2 and all(NUMBER.fullmatch(label) for label in labels):
        kind = "whole numbers" if all(float(label).is_integer() for label in labels) else "numbers"
        ordered = "classification with ordered labels" if label_values(labels, "auto") else "classification"
        return f"the labels are {len(labels)} {kind}: {ordered}; task=regression is possible"
    for separator in SEPARATORS:
        lists = [[part.strip() for part in label.split(separator)] for label in labels if separator in label]
        apart = {part for parts in lists for part in parts}
        uses = Counter(part for label in labels for part in {item.strip() for item in label.split(separator)})
        if lists and all(apart) and len(uses) < len(labels) and all(uses[part] > 1 for part in apart):
            return (
                f"{len(lists)} of {len(labels)} labels look like lists: task=multilabel "
                f"data.label_separator={separator} would learn {len(uses)} labels, any number for a text"
            )
    return None
