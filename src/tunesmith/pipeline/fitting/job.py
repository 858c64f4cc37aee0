"""What training one method needs, whatever the method."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith import extensions, processes
from tunesmith.manifest import LogEntry
from tunesmith.recipe import Recipe
from tunesmith.runs import Run
from tunesmith.tasks.text_targets import Target
from tunesmith.types import Splits


@dataclass(frozen=True, slots=True)
class Metrics:
    """The metrics of a task."""

    higher_is_better: Mapping[str, bool]
    """Those that may decide between checkpoints and between trials, and which way is better."""
    headline: Callable[[Sequence[Any], Any], dict[str, float]]
    """Measures predictions beside what the data has: the rows of a `Target`, and the target."""
    of_training: tuple[str, str]
    """What evaluations during training say of training rows: its name in the log, and the headline metric."""


class SilentRun(Run):
    """A run directory that another process writes: of what this one would write, nothing happens."""

    def write(self, name: str, content: object, *, signed: bool = False) -> Path:
        return self.path / name

    def log(self, entry: LogEntry) -> None:
        pass

    def cut_metrics(self, lines: int) -> None:
        pass

    def write_predictions(self, split: str, rows: Iterable[object]) -> None:
        pass


@dataclass(frozen=True)
class Job:
    """A recipe, its rows, and its run directory."""

    recipe: Recipe
    splits: Splits
    run: Run
    metrics: Metrics
    target: Target
    """What is learned for each text; of instructions, whose answers are learned, no label."""

    def weights(self) -> Any:
        """Return the weights of the labels in a loss, one per label."""
        return self.target.weights(self.splits.train, self.recipe.train.class_weights)

    def headline(self, rows: Sequence[Any]) -> dict[str, float]:
        """Return the headline metrics of predictions beside what the data has."""
        return self.metrics.headline(rows, self.target)

    def loss(self) -> Any:
        """Return the user's function of `train.loss`; None for a loss that is built in."""
        name = self.recipe.train.loss
        return None if name is None or ":" not in name else extensions.load(name, "train.loss")

    def decide_once(self, name: str, decide: Callable[[], Any]) -> Any:
        """Return what the first process decides, which is the same in all processes and in a resumed run.

        decide: returns a value that JSON can hold; the manifest keeps it under `name`.
        """
        known = self.run.decision(name)
        if known is None and processes.is_main():
            known = decide()
            self.run.record_decision(name, known)
        return json.loads(processes.agree(json.dumps(known)))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the manifest keeps of an evaluation; the predictions are in the run."""

    validation: dict[str, float] | None
    """Metrics of the validation split, where there is one."""
    predicted: int
    """Test rows that were predicted."""
    train: dict[str, float] | None = None
    """Metrics of training rows drawn at random."""
