"""What is learned for each text: how it is encoded for a loss, and how the outputs of a model are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tunesmith import records
from tunesmith.recipe import Decide
from tunesmith.tasks.classification import SingleLabel
from tunesmith.tasks.decisions import Decision
from tunesmith.tasks.multilabel import MultiLabel
from tunesmith.tasks.regression import Number
from tunesmith.types import Example

NUMBER = "value"
"""What the one output for a number is called in a model's configuration, which wants a name for each."""
OWN = ("target_mean", "target_scale", "thresholds", "decision")
"""Entries of a configuration that transformers does not know."""


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

    def weights(self, examples: Sequence[Example], setting: Any) -> NDArray[np.float64]:
        """Return the weight of each label in a loss, by `train.class_weights` and the training rows."""

    def predictions(self, examples: Sequence[Example], logits_NK: NDArray[np.float64]) -> list[Any]:
        """Return what a model's outputs say of the examples. Raises ModelError where they are not finite."""

    def decides(self, settings: Decide) -> bool:
        """Return whether validation rows choose anything, such as thresholds."""

    def decide(self, rows: Sequence[Any], settings: Decide, seed: int) -> tuple[Target, Any]:
        """Return the target with what these validation rows choose, and a record of how; None where there is none."""

    def rows(self, examples: Sequence[Example], predicted: Sequence[Any]) -> list[Any]:
        """Return the predictions of labelled examples beside what the data has."""


def to_config(target: Target) -> dict[str, Any]:
    """Return a target as entries of a transformers configuration, which names the outputs by `id2label`."""
    names = dict(enumerate(target.labels or (NUMBER,)))
    return {"id2label": names, "label2id": {name: index for index, name in names.items()}} | _entries(target)


def of_config(config: Mapping[str, Any]) -> Target:
    """Return the target that `to_config` wrote; of configurations from elsewhere, one label."""
    names = config["id2label"]
    return _target(tuple(names[key] for key in sorted(names, key=int)), config)


def write_config(config: Any, target: Target) -> None:
    """Set the entries of `to_config` in a transformers configuration, and remove those of other targets."""
    entries = to_config(target)
    for name in OWN:
        if name in vars(config) and name not in entries:
            delattr(config, name)
    config.update(entries)


def to_settings(target: Target) -> dict[str, Any]:
    """Return a target as the settings of a saved regression hold it: its labels, of a number none."""
    return {"labels": target.labels} | _entries(target)


def of_settings(content: Mapping[str, Any]) -> Target:
    """Return the target that `to_settings` wrote."""
    kind = {} if content["labels"] else {"problem_type": Number.problem_type}
    return _target(tuple(content["labels"]), kind | dict(content))


def _entries(target: Target) -> dict[str, Any]:
    entries: dict[str, Any] = {"problem_type": target.problem_type}
    if isinstance(target, Number):
        entries |= {"target_mean": target.mean, "target_scale": target.scale}
    if isinstance(target, MultiLabel):
        entries["thresholds"] = target.thresholds
    if isinstance(target, SingleLabel) and target.decision is not None:
        entries["decision"] = records.dump(target.decision)
    return entries


def _target(labels: tuple[str, ...], entries: Mapping[str, Any]) -> Target:
    if entries.get("problem_type") == Number.problem_type:
        return Number(entries.get("target_mean", 0.0), entries.get("target_scale", 1.0))
    if entries.get("problem_type") == MultiLabel.problem_type:
        return MultiLabel(labels, tuple(entries.get("thresholds", ())))
    decision = entries.get("decision")
    return SingleLabel(labels, None if decision is None else records.load(Decision, decision, "the model's decision"))
