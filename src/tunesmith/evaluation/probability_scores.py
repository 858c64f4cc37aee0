"""Scores of the probabilities of labels. Shapes: N rows, K labels, B resamples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunesmith.errors import RunError
from tunesmith.evaluation import intervals
from tunesmith.evaluation.intervals import Floats, Index
from tunesmith.tasks import calibration
from tunesmith.types import Prediction

HIGHER_IS_BETTER = {"log_loss": False, "brier": False, "ece": False}

CELLS_AT_ONCE = 1 << 22
"""Probabilities (rows x labels) checked and summed at once: 32 MB."""


@dataclass(frozen=True, slots=True)
class ProbabilityColumns:
    """What the scores need of each row's probabilities, N each."""

    confidence: Floats
    """The top probability."""
    top_right: Index
    """1 where the label with the top probability is right; where costs or a threshold decide, another may be given."""
    log_loss: Floats
    squared_error: Floats
    """Summed over the K probabilities: 0 to 2."""


def columns(
    predictions: Sequence[Prediction], gold_N: Index, predicted_N: Index, labels: Sequence[str]
) -> ProbabilityColumns | None:
    """Return the columns; None unless every prediction has probabilities: those of some rows say nothing of the rest.

    gold, predicted: places among the labels, K for no label. Raises RunError where the probabilities do not fit the
    labels, or are invalid.
    """
    for prediction in predictions:
        if len(prediction.probabilities) not in (0, len(labels)):
            raise RunError(
                f"the prediction of {prediction.id} does not fit the labels",
                expected=f"{len(labels)} probabilities, one per label",
                found=str(len(prediction.probabilities)),
                do="score predictions with the labels of the run that made them",
            )
    if not all(prediction.probabilities for prediction in predictions):
        return None
    confidence, of_truth, squared_error = np.empty((3, len(gold_N)))
    top_right = np.zeros(len(gold_N), dtype=np.intp)
    step = max(1, CELLS_AT_ONCE // len(labels))
    for start in range(0, len(gold_N), step):
        rows = slice(start, start + step)
        probabilities = _probabilities(predictions[rows])
        at_truth = np.arange(len(probabilities)), gold_N[rows]
        confidence[rows], of_truth[rows] = probabilities.max(axis=1), probabilities[at_truth]
        top_right[rows] = (probabilities.argmax(axis=1) == gold_N[rows]) & (predicted_N[rows] < len(labels))
        probabilities[at_truth] -= 1
        squared_error[rows] = (probabilities**2).sum(axis=1)
    # scikit-learn's clipping: a certain and wrong prediction costs 36, not infinity.
    tiny = np.finfo(np.float64).eps
    return ProbabilityColumns(confidence, top_right, -np.log(np.clip(of_truth, tiny, 1 - tiny)), squared_error)


def _probabilities(predictions: Sequence[Prediction]) -> Floats:
    """Return the predicted probabilities, N x K. RunError where they are none."""
    probabilities_NK = np.array([prediction.probabilities for prediction in predictions], dtype=np.float64)
    sums = probabilities_NK.sum(axis=1)
    # 1e-3 leaves room for probabilities that a file rounds to a few digits, and for bf16.
    good = (np.abs(sums - 1) < 1e-3) & (probabilities_NK >= 0).all(axis=1)
    if not good.all():
        place = int(np.argmin(good))
        raise RunError(
            f"{predictions[place].id}: invalid probabilities",
            expected="numbers from 0 to 1 that sum to 1",
            found=f"sum {sums[place]:.6g}, least {probabilities_NK[place].min():.6g}",
            do="look for non-finite values in the model, or for damage in the predictions file",
        )
    return probabilities_NK


def measure(table: ProbabilityColumns, draws_BN: Index) -> dict[str, Floats]:
    """Return the scores of each line of `draws_BN` (row numbers): {name: B}.

    `log_loss` is the mean of -ln p(gold), in nats; `brier` the mean over rows of the squared errors summed over
    the labels (Brier 1950, 0 to 2; for two labels twice scikit-learn's binary form); `ece` the expected calibration
    error (Guo et al. 2017): the sum over bins of |sum of (confidence - top label is right)| / N.
    """
    gaps_BN, places_BN = (table.confidence - table.top_right)[draws_BN], calibration.places(table.confidence)[draws_BN]
    sums_BM = intervals.counts(places_BN, calibration.BINS, gaps_BN)
    return {
        "log_loss": table.log_loss[draws_BN].mean(axis=1),
        "brier": table.squared_error[draws_BN].mean(axis=1),
        "ece": np.abs(sums_BM).sum(axis=1) / len(draws_BN[0]),
    }
