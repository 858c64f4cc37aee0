"""The score that a learning curve shows, of each task, on drawn rows: what `compare` ranks methods by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tunesmith.errors import RunError
from tunesmith.evaluation import decision_scores, metrics, multilabel_scores
from tunesmith.evaluation.intervals import Floats, Index
from tunesmith.recipe import Recipe
from tunesmith.reporting.format import in_a_sentence
from tunesmith.tasks import decisions
from tunesmith.types import MultilabelPredictionRow, PredictionRow, ResponseRow, Splits, ValuePredictionRow


@dataclass(frozen=True)
class NamedMeasure:
    """A metric, and what measures it on drawn row numbers: B x N -> B."""

    metric: str
    rows: int
    """Rows from which can be drawn."""
    measure: Callable[[Index], Floats]


def of_labels(recipe: Recipe, splits: Splits, rows: Sequence[PredictionRow]) -> NamedMeasure:
    """Return the accuracy, unless the recipe compares by another metric or has costs of mistakes.

    Raises RunError where the predictions do not have it.
    """
    metric = recipe.evaluate.metric_for_comparison or ("cost" if recipe.decide.costs else "accuracy")
    if metric == "accuracy":
        return _mean(metric, np.array([row.label == row.gold for row in rows], dtype=np.float64))
    if metric == "cost" and recipe.decide.costs is not None:
        costs_KK = decisions.cost_matrix(splits.labels, recipe.decide.costs, splits.label_values)
        return _mean(metric, decision_scores.PER * decision_scores.row_costs(rows, splits.labels, costs_KK))
    table = metrics.tabulate([row.gold for row in rows], rows, splits.labels, splits.label_values)
    if metric not in metrics.measure(table, metrics.every_row(table)):
        raise RunError(
            f"these predictions have no {in_a_sentence(metric)}, which the learning curve is to show",
            expected="probabilities, or labels with an order",
            do="set evaluate.metric_for_comparison, or leave the method out",
        )
    return NamedMeasure(metric, len(rows), lambda draws_BN: metrics.measure(table, draws_BN)[metric])


def of_label_sets(recipe: Recipe, splits: Splits, rows: Sequence[MultilabelPredictionRow]) -> NamedMeasure:
    """Return the macro F1."""
    counts_NC = multilabel_scores.tabulate(rows, splits.labels).counts()
    metric = multilabel_scores.COMPARED[0]
    return NamedMeasure(metric, len(rows), lambda draws_BN: multilabel_scores.measure_f1(counts_NC, draws_BN)[metric])


def of_values(recipe: Recipe, splits: Splits, rows: Sequence[ValuePredictionRow]) -> NamedMeasure:
    """Return the RMSE."""
    squared_N = np.array([(row.value - row.gold) ** 2 for row in rows], dtype=np.float64)
    return NamedMeasure("rmse", len(rows), lambda draws_BN: np.sqrt(squared_N[draws_BN].mean(axis=1)))


def of_responses(recipe: Recipe, splits: Splits, rows: Sequence[ResponseRow]) -> NamedMeasure:
    """Return the mean loss of the references' tokens; references that do not fit the model's input have none."""
    sums_N, counts_N = np.array([(row.loss, row.learned) for row in rows if row.learned], dtype=np.float64).T
    return NamedMeasure(
        "loss", len(sums_N), lambda draws_BN: sums_N[draws_BN].sum(axis=1) / counts_N[draws_BN].sum(axis=1)
    )


def _mean(metric: str, values_N: Floats) -> NamedMeasure:
    return NamedMeasure(metric, len(values_N), lambda draws_BN: values_N[draws_BN].mean(axis=1))
