"""What sweep.json holds."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.evaluation.metrics import ClassificationScores
from tunesmith.evaluation.multilabel_scores import MultilabelScores
from tunesmith.evaluation.responses import GenerationScores
from tunesmith.evaluation.value_scores import RegressionScores
from tunesmith.manifest import Costs
from tunesmith.reporting.header import Header
from tunesmith.reporting.schema import Curve


@dataclass(frozen=True, slots=True)
class Trial:
    """One training of a sweep."""

    run: str
    """The name of its run directory."""
    values: dict[str, str]
    """What was tried, by setting."""
    score: float
    """The metric that ranks, on the validation split."""
    costs: Costs
    curve: Curve | None

    @property
    def name(self) -> str:
        """What a legend calls it."""
        return self.run


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepReport(Header):
    """sweep.json."""

    metric: str
    higher_is_better: bool
    axes: tuple[str, ...]
    """The settings that vary."""
    failed: tuple[str, ...]
    trials: tuple[Trial, ...]
    """Best first."""
    test: ClassificationScores | MultilabelScores | RegressionScores | GenerationScores | None
    """scores.json of the best trial."""
