"""What the parts of an audit look at, and what was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypedDict

from tunesmith.pipeline.part_training import PartTrainer
from tunesmith.recipe import Recipe
from tunesmith.runs import Run
from tunesmith.types import Splits


@dataclass(frozen=True, slots=True)
class CurveSettings:
    """What a learning curve is made of; None for the defaults."""

    methods: tuple[str, ...] | None = None
    """As in `compare --methods`; by default those that are fitted in little time."""
    seeds: tuple[int, ...] | None = None
    """Of the orders in which rows are taken, and of the trainings; by default three."""
    smallest: int | None = None
    """Rows of the smallest part, for each label there is; by default an eighth to a 128th of all rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPlan:
    """plan.json: what an audit does with recipe.yaml, so that one that was stopped goes on."""

    method: str = "probe"
    """Gives the probabilities by which wrong labels, and rows to label, are found; as in `compare --methods`."""
    paraphrases: float | None = None
    """The cosine similarity from which rows are similar in meaning; None where that is not looked for."""
    learning_curve: CurveSettings | None = None
    unlabelled: str | None = None
    """Rows of which `next_rows` are chosen to be labelled next."""
    next_rows: int = 100
    cleaning_gain: bool = False
    """Whether to train without the rows whose labels are suspect, and test the difference."""
    review_jsonl: bool = False
    """Whether to write the review file as JSON Lines too."""
    loss_outliers: bool = False
    """Whether to look for responses that the base model predicts oddly well or badly."""
    recipe: str = ""
    """SHA-256 of recipe.yaml."""
    fingerprint: str = ""
    """Of the data; empty until it has been read."""


class AuditOptions(TypedDict, total=False):
    """What may be asked of `audit` by name: the fields of a plan, some of them in other forms too, and settings."""

    method: str
    paraphrases: bool | float
    learning_curve: bool | CurveSettings
    unlabelled: object
    next_rows: int
    cleaning_gain: bool
    review_jsonl: bool
    loss_outliers: bool
    task: str
    text_column: str
    text_pair_column: str
    label_column: str
    split: Mapping[str, object]


@dataclass(frozen=True)
class AuditInput:
    """A recipe, its rows as training would see them, the folder that the audit writes into, and what was asked for."""

    recipe: Recipe
    splits: Splits
    folder: Run
    plan: AuditPlan
    trainers: dict[str, PartTrainer] = field(default_factory=dict)
    """Those that were asked for, by method: no text is embedded for two parts of an audit."""

    def trainer(self, method: str) -> PartTrainer:
        """Return what trains a method, as `compare --methods` names it, on parts of the training rows."""
        if method not in self.trainers:
            self.trainers[method] = PartTrainer.of(self.recipe, self.splits, method)
        return self.trainers[method]
