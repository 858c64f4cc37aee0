"""The names of tasks, methods and metrics that a recipe may have. What they mean is in `pipeline`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

TASKS = ["classification", "multilabel", "regression", "instruction"]
METHODS = ["linear", "probe", "encoder", "encoder:contrastive", "generator", "endpoint"]
VARIANTS = {
    "untuned": {"adapter.kind": "none", "train.num_train_epochs": "0", "train.max_steps": "null"},
    "full": {"adapter.kind": "none"},
    "lora": {"adapter.kind": "lora"},
    "qlora": {"adapter.kind": "qlora"},
}
"""What follows a method's name behind a colon -> settings."""
DECIDING: dict[str, tuple[str, ...]] = {
    "classification": ("macro_f1", "accuracy", "balanced_accuracy", "mcc", "log_loss", "mae", "qwk", "within_one"),
    "multilabel": ("macro_f1", "micro_f1", "mean_average_precision", "log_loss"),
    "regression": ("rmse", "mae", "r2", "pearson", "spearman"),
    "instruction": ("loss",),
}
"""Metrics that may select the best checkpoint, by task; unless set, the first."""
BestMetric = Literal[
    "macro_f1",
    "accuracy",
    "balanced_accuracy",
    "mcc",
    "log_loss",
    "micro_f1",
    "mean_average_precision",
    "rmse",
    "mae",
    "r2",
    "pearson",
    "spearman",
    "loss",
    "qwk",
    "within_one",
]
ComparedMetric = Literal[
    "accuracy", "macro_f1", "balanced_accuracy", "mcc", "log_loss", "brier", "mae", "qwk", "within_one", "cost"
]

OF_PROBABILITIES = ("log_loss", "brier", "mean_average_precision")
"""The metrics among these that need the probabilities of labels."""


@dataclass(frozen=True, slots=True)
class OneOf:
    """Checks that a setting is one of some names, to which others may have been added."""

    names: Sequence[str]

    def __call__(self, value: str) -> str:
        """Return the value. Raises ValueError for an unknown name."""
        if value not in self.names:
            *most, last = (repr(name) for name in self.names)
            raise ValueError(f"input should be {', '.join(most)} or {last}")
        return value


@dataclass(frozen=True, slots=True)
class MethodName(OneOf):
    """Checks the name of a method. A variant is refused with the settings that it stands for."""

    def __call__(self, value: str) -> str:
        """Return the value. Raises ValueError for an unknown name."""
        name, _, variant = value.partition(":")
        if value not in self.names and name in self.names and variant in VARIANTS:
            settings = " ".join(f"{setting}={content}" for setting, content in VARIANTS[variant].items())
            raise ValueError(f"input should be method={name} {settings} (only compare's --methods takes variants)")
        return OneOf.__call__(self, value)
