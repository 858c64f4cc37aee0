"""The settings of decisions: how the probabilities of a classifier become labels."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from tunesmith.recipe.values import Section, label_keys, labelled

Share = Annotated[float, Field(gt=0, lt=1)]
Cost = Annotated[float, Field(ge=0)]
Name = Annotated[str, BeforeValidator(labelled)]


class DecisionTarget(Section):
    """What the predictions of one label are to reach."""

    label: Name
    """The label."""
    precision: Share | None = None
    """Share of the rows predicted to have the label that have it, at least."""
    recall: Share | None = None
    """Share of the rows that have the label which are predicted to have it, at least."""

    @model_validator(mode="after")
    def _one_figure(self) -> DecisionTarget:
        if (self.precision is None) == (self.recall is None):
            raise ValueError("give precision or recall: one of them is reached, the other is then as high as it can be")
        return self


class Abstain(Section):
    """When a classifier leaves a row to a person."""

    accuracy: Share | None = None
    """Accuracy that the answered rows are to reach, at least."""
    coverage: Share | None = None
    """Share of the rows that are answered."""

    @model_validator(mode="after")
    def _one_figure(self) -> Abstain:
        if (self.accuracy is None) == (self.coverage is None):
            raise ValueError("give accuracy or coverage: one of them is reached, the other follows")
        return self


class Decide(Section):
    """How the probabilities of task `classification` become labels. Everything is chosen on the validation split, by
    every method, kept with the model, and applied wherever it predicts."""

    calibration: Literal["none", "auto", "temperature", "sigmoid", "vector", "isotonic"] = "none"
    """Make probabilities say how often a label is right: by one `temperature`, or a factor and summand per label
    (`vector`), for the logits (Guo et al. 2017), by Platt's `sigmoid` or `isotonic` regression for each label. `auto`
    takes what has the lowest cross-validated log loss."""
    costs: (
        Literal["absolute", "quadratic"]
        | Annotated[dict[Name, Annotated[dict[Name, Cost], BeforeValidator(label_keys)]], BeforeValidator(label_keys)]
        | None
    ) = None
    """Predict the label with the lowest cost. `{spam: {ham: 1}, ham: {spam: 10}}`: predicting ham for spam costs 1, and
    spam for ham 10; mistakes that are not named cost 1, right labels nothing. Of ordered labels also the `absolute` or
    `quadratic` distance."""
    target: DecisionTarget | None = None
    """Predict one label only where that reaches a precision or recall: `{label: spam, precision: 0.99}`."""
    abstain: Abstain | None = None
    """Mark the predictions of low confidence as abstained, so that the others reach an accuracy (`{accuracy: 0.98}`) or
    are a share of the rows (`{coverage: 0.9}`)."""
    conformal: Share | None = None
    """Also predict a set of labels that has the right one for this share of rows (split conformal prediction)."""

    @model_validator(mode="after")
    def _one_rule(self) -> Decide:
        if self.costs is not None and self.target is not None:
            raise ValueError("costs and target exclude each other: both choose the threshold")
        return self

    @property
    def is_set(self) -> bool:
        """Whether anything is to be chosen on the validation split."""
        return self != Decide()
