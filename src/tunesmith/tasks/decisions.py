"""Decisions: how the probabilities of labels become a label, chosen on validation rows and kept with the model.

Shapes: N rows, K labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tunesmith.errors import RecipeError
from tunesmith.recipe import Decide, DecisionTarget
from tunesmith.records import omitted_if_none
from tunesmith.tasks import calibration
from tunesmith.tasks.calibration import Calibration, CalibrationFit, Floats, Places

Flags = NDArray[np.bool_]
NEVER = 1.5
"""A threshold that no probability reaches."""
MOST_LOG_ODDS = 30.0
"""Beyond these, probabilities cannot be told from 0 and 1."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """A label is given from this probability on; below, the most probable of the others is."""

    label: str
    probability: float


@dataclass(frozen=True, slots=True)
class Decision:
    """What was chosen on validation rows."""

    calibration: Calibration | None = omitted_if_none()
    threshold: Threshold | None = omitted_if_none()
    costs: tuple[tuple[float, ...], ...] | None = omitted_if_none()
    """What predicting a label (column) for a label (row) costs, where the lowest expected cost decides."""
    abstain_below: float | None = omitted_if_none()
    """Top probability below which a prediction is marked as abstained."""
    set_above: float | None = omitted_if_none()
    """Probability from which a label belongs to the predicted set; the most probable one always does."""

    def probabilities(self, logits_NK: Floats) -> Floats:
        """Return probabilities, N x K."""
        if self.calibration is None:
            return np.exp(calibration.log_softmax(logits_NK))
        return self.calibration.apply(logits_NK)

    def labels(self, probabilities_NK: Floats, labels: Sequence[str]) -> Places:
        """Return the place of each row's label."""
        if self.costs is not None:
            return np.asarray((probabilities_NK @ np.array(self.costs)).argmin(axis=1), dtype=np.intp)
        if self.threshold is None:
            return np.asarray(probabilities_NK.argmax(axis=1), dtype=np.intp)
        return with_threshold(probabilities_NK, labels.index(self.threshold.label), self.threshold.probability)

    def abstains(self, probabilities_NK: Floats) -> Flags | None:
        """Return which predictions are marked as abstained; None where none is."""
        return None if self.abstain_below is None else probabilities_NK.max(axis=1) < self.abstain_below

    def sets(self, probabilities_NK: Floats) -> Flags | None:
        """Return which labels belong to each row's set, N x K; None where there are no sets."""
        if self.set_above is None:
            return None
        top_N1 = probabilities_NK.max(axis=1, keepdims=True)
        return np.asarray((probabilities_NK >= self.set_above) | (probabilities_NK == top_N1), dtype=np.bool_)


@dataclass(frozen=True, slots=True)
class DecisionFit:
    """decision.json: what was chosen on validation rows, and from what."""

    decision: Decision
    rows: int
    calibration: CalibrationFit | None = omitted_if_none()
    remarks: tuple[str, ...] = ()
    """What could not be reached."""


class LabelSet(Protocol):
    """The labels of a task, and the number of each where they have an order."""

    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def values(self) -> tuple[float, ...] | None: ...


def choose(probabilities_NK: Floats, gold_N: Places, among: LabelSet, settings: Decide, seed: int) -> DecisionFit:
    """Choose all that the settings ask for on validation rows."""
    labels = among.labels
    logits_NK = np.log(np.maximum(probabilities_NK, calibration.SMALLEST))
    calibrated, notes, remarks = None, None, []
    if settings.calibration != "none":
        calibrated, notes = calibration.choose(logits_NK, gold_N, settings.calibration, seed)
        remarks += [notes.reason] if notes.reason else []
    p_NK = Decision(calibrated).probabilities(logits_NK)
    threshold, expected = None, None
    if settings.costs is not None:
        costs_KK = cost_matrix(labels, settings.costs, among.values)
        if len(labels) == 2:
            threshold = Threshold(labels[1], _cheapest(p_NK, gold_N, costs_KK))
        else:
            expected = tuple(tuple(row) for row in costs_KK.tolist())
    elif settings.target is not None:
        k = place(labels, settings.target.label, "decide.target")
        probability, remark = _reaching(p_NK[:, k], gold_N == k, settings.target)
        threshold = Threshold(labels[k], probability)
        remarks += [remark] if remark else []
    decision = Decision(calibrated, threshold, expected)
    limit, covered = None, None
    if settings.abstain is not None:
        right_N = decision.labels(p_NK, labels) == gold_N
        limit, remark = _limit(p_NK.max(axis=1), right_N, settings.abstain.accuracy, settings.abstain.coverage)
        remarks += [remark] if remark else []
    if settings.conformal is not None:
        covered = _set_above(p_NK[np.arange(len(gold_N)), gold_N], settings.conformal)
    decision = Decision(calibrated, threshold, expected, limit, covered)
    return DecisionFit(decision, len(gold_N), notes, tuple(remarks))


def with_threshold(probabilities_NK: Floats, k: int, threshold: float) -> Places:
    """Return places of labels: `k` from the threshold on, below it the most probable of the others."""
    others_NK = probabilities_NK.copy()
    others_NK[:, k] = -1
    return np.where(probabilities_NK[:, k] >= threshold, k, others_NK.argmax(axis=1))


def cost_matrix(labels: Sequence[str], costs: Any, values: Sequence[float] | None = None) -> Floats:
    """Return what predicting a label (column) for a label (row) costs, K x K, by `decide.costs`.

    Raises RecipeError for labels that are not among these, and for distances of labels that have no order.
    """
    if isinstance(costs, Mapping):
        costs_KK = 1 - np.eye(len(labels))
        for gold, row in costs.items():
            for predicted, cost in row.items():
                costs_KK[place(labels, gold, "decide.costs"), place(labels, predicted, "decide.costs")] = cost
        return costs_KK
    if values is None:
        raise RecipeError(
            f"decide.costs is {costs}, and the labels have no order",
            expected="labels that are numbers, or data.label_order",
            found=", ".join(labels[:5]),
            do="set data.label_order, or give the cost of each mistake",
        )
    distance_KK: Floats = np.abs(np.subtract.outer(np.array(values), np.array(values)))
    return distance_KK if costs == "absolute" else distance_KK**2


def place(labels: Sequence[str], label: str, setting: str) -> int:
    """Return the place of a label that a setting names. Raises RecipeError where it is not a label of the data."""
    if label not in labels:
        do = "use the labels of the data"
        raise RecipeError(f"{setting} names {label!r}", expected=", ".join(labels[:20]), found=label, do=do)
    return labels.index(label)


def _cheapest(p_N2: Floats, gold_N: Places, costs_KK: Floats) -> float:
    """Return the threshold of the second of two labels: where its calibrated probability makes both cost the same.

    That is the best one of calibrated probabilities (Elkan 2001), and all rows tell how far these are from it. The
    threshold with the lowest cost on the rows at hand follows the noise of the few near it (docs/decisions.md).
    """
    from scipy.optimize import brentq

    false, missed = costs_KK[0, 1] - costs_KK[0, 0], costs_KK[1, 0] - costs_KK[1, 1]
    if false <= 0 or missed <= 0:  # one of the labels costs nothing wherever it is given
        return 0.0 if false <= 0 else NEVER
    calibrated = calibration.fit(np.log(np.maximum(p_N2, calibration.SMALLEST)), gold_N, "vector")

    def excess(log_odds: float) -> float:
        logs_12 = calibration.log_softmax(np.array([[0.0, log_odds]]))
        return float(calibrated.apply(logs_12)[0, 1] - false / (false + missed))

    if excess(-MOST_LOG_ODDS) >= 0 or excess(MOST_LOG_ODDS) <= 0:
        return 0.0 if excess(-MOST_LOG_ODDS) >= 0 else NEVER
    return float(1 / (1 + np.exp(-brentq(excess, -MOST_LOG_ODDS, MOST_LOG_ODDS))))


def _reaching(probability_N: Floats, known_N: Flags, target: DecisionTarget) -> tuple[float, str | None]:
    """Return the threshold that reaches a precision with the most rows, or a recall with the fewest."""
    order = np.argsort(-probability_N, kind="stable")
    sorted_N, hits_N = probability_N[order], np.cumsum(known_N[order])
    apart_N = np.append(sorted_N[:-1] > sorted_N[1:], True)
    precision_N, recall_N = hits_N / np.arange(1, len(order) + 1), hits_N / max(1, int(known_N.sum()))
    figure_N, least = (recall_N, target.recall) if target.precision is None else (precision_N, target.precision)
    reached_N = apart_N & (figure_N >= (least or 0))
    name, remark = "recall" if target.precision is None else "precision", None
    if not reached_N.any():
        best = int(np.where(apart_N, precision_N, -1).argmax())
        wanted = f"decide.target: no threshold reaches this {name} of {target.label!r} on {len(order)} validation rows"
        remark = f"{wanted}, {int(known_N.sum())} of which have it; the highest precision is {precision_N[best]:.3f}"
    else:
        best = int(np.flatnonzero(reached_N)[-1 if target.precision is not None else 0])
    return _below(sorted_N, best), remark


def _limit(
    confidence_N: Floats, right_N: Flags, accuracy: float | None, coverage: float | None
) -> tuple[float, str | None]:
    """Return the confidence from which rows are answered."""
    order = np.argsort(-confidence_N, kind="stable")
    sorted_N = confidence_N[order]
    apart_N = np.append(sorted_N[:-1] > sorted_N[1:], True)
    answered_N = np.arange(1, len(order) + 1)
    if coverage is not None:
        return _below(sorted_N, min(len(order), ceil(coverage * len(order))) - 1), None
    accuracy_N = np.cumsum(right_N[order]) / answered_N
    reached = np.flatnonzero(apart_N & (accuracy_N >= (accuracy or 0)))
    if len(reached):
        return _below(sorted_N, reached[-1]), None
    best = int(np.where(apart_N, accuracy_N, -1).argmax())
    wanted = f"decide.abstain: no confidence reaches an accuracy of {accuracy:g} on validation"
    return _below(sorted_N, best), f"{wanted}; the highest is {accuracy_N[best]:.3f}"


def _set_above(of_gold_N: Floats, coverage: float) -> float:
    """Return the probability that the gold label reaches in `coverage` of the rows, with the correction for few rows.

    Split conformal prediction with the score 1 - p (Sadinle et al. 2019); 0, which takes every label, where there are
    too few rows for such a coverage.
    """
    N = len(of_gold_N)
    rank = ceil((N + 1) * coverage)
    return 0.0 if rank > N else _below(-np.sort(-of_gold_N), rank - 1)


def _below(falling_N: Floats, last: int) -> float:
    """Return the middle between a value and the next lower one: rounding does not move a row across."""
    lower_N = falling_N[falling_N < falling_N[last]]
    return float((falling_N[last] + (lower_N[0] if len(lower_N) else 0.0)) / 2)
