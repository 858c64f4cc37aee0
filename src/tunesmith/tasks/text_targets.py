"""What is learned for each text: how it is encoded for a loss, and how the outputs of a model are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tunesmith.tasks.classification import SingleLabel
from tunesmith.tasks.regression import Number
from tunesmith.types import Example

NUMBER = "value"
"""What the one output for a number is called in a model's configuration, which wants a name for each."""


class Target(Protocol):
    """The target of a task. Predictions and rows are of the task's own types."""

    @property
    def problem_type(self) -> str:
        """Its name in transformers' configurations."""

    @property
    def row(self) -> type[Any]:
        """What `rows` are: a prediction beside what the data has."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The name of each output; none for a number, which is one output."""

    def encode(self, examples: Sequence[Example]) -> Sequence[Any]:
        """Return what a loss compares the outputs for each example with."""

    def predictions(self, examples: Sequence[Example], logits_NK: NDArray[np.float64]) -> list[Any]:
        """Return what a model's outputs say of the examples. Raises ModelError where they are not finite."""

    def rows(self, examples: Sequence[Example], predicted: Sequence[Any]) -> list[Any]:
        """Return the predictions of labelled examples beside what the data has."""


def to_config(target: Target) -> dict[str, Any]:
    """Return a target as entries of a transformers configuration; a standardised number has its mean and scale."""
    names = dict(enumerate(target.labels or (NUMBER,)))
    config = {"id2label": names, "label2id": {name: index for index, name in names.items()}}
    if isinstance(target, Number):
        config |= {"target_mean": target.mean, "target_scale": target.scale}
    return config | {"problem_type": target.problem_type}


def of_config(config: Mapping[str, Any]) -> Target:
    """Return the target that `to_config` wrote; of configurations from elsewhere, one label."""
    if config.get("problem_type") == Number.problem_type:
        return Number(config.get("target_mean", 0.0), config.get("target_scale", 1.0))
    names = config["id2label"]
    return SingleLabel(tuple(names[key] for key in sorted(names, key=int)))
