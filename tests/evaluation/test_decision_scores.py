"""What decisions came to: counted by hand and by scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from tunesmith.evaluation import decision_scores
from tunesmith.evaluation.intervals import Confidence
from tunesmith.tasks.decisions import Decision, Threshold, cost_matrix
from tunesmith.types import NO_LABEL, PredictionRow

LABELS = ("ham", "spam")
COSTS = cost_matrix(LABELS, {"ham": {"spam": 10.0}})


def drawn(number: int = 300) -> list[PredictionRow]:
    draw = np.random.default_rng(0)
    spam = draw.random(number).round(2)
    gold = np.where(draw.random(number) < spam, "spam", "ham")
    return [
        PredictionRow(
            str(n),
            "spam" if p >= 0.8 else "ham",
            (1 - p, p),
            abstained=bool(max(p, 1 - p) < 0.7),
            label_set=("ham", "spam") if 0.3 < p < 0.7 else (("spam",) if p >= 0.7 else ("ham",)),
            gold=str(g),
        )
        for n, (p, g) in enumerate(zip(spam.tolist(), gold, strict=True))
    ]


def test_every_figure_is_what_counting_says() -> None:
    rows = drawn()
    decision = Decision(threshold=Threshold("spam", 0.8), abstain_below=0.7, set_above=0.3)
    scores = decision_scores.score(rows, LABELS, decision, COSTS, 0.9, Confidence(resamples=300))
    false, missed = (sum(r.label == a and r.gold == b for r in rows) for a, b in (("spam", "ham"), ("ham", "spam")))
    assert scores.costs is not None
    assert scores.costs.cost.value == pytest.approx(1000 * (10 * false + missed) / len(rows))
    assert scores.costs.saved.value == pytest.approx(scores.costs.of_most_probable.value - scores.costs.cost.value)
    assert scores.costs.saved.value > 0
    assert scores.threshold is not None
    known, spam = np.array([r.gold == "spam" for r in rows]), np.array([r.probabilities[1] for r in rows])
    assert scores.threshold.average_precision == pytest.approx(average_precision_score(known, spam))
    assert scores.threshold.roc_auc == pytest.approx(roc_auc_score(known, spam))
    assert scores.threshold.precision is not None
    assert scores.threshold.precision.value == pytest.approx(known[spam >= 0.8].mean())
    point = next(point for point in scores.threshold.curve if point.threshold == 0.8)
    assert point.cost == pytest.approx(scores.costs.cost.value)
    assert scores.abstention is not None
    answered = [r for r in rows if not r.abstained]
    assert scores.abstention.coverage.value == pytest.approx(len(answered) / len(rows))
    assert scores.abstention.accuracy is not None
    assert scores.abstention.accuracy.value == pytest.approx(np.mean([r.label == r.gold for r in answered]))
    assert scores.abstention.curve[-1].risk == pytest.approx(np.mean([r.label != r.gold for r in rows]))
    assert scores.sets is not None
    assert scores.sets.coverage.value == pytest.approx(np.mean([r.gold in (r.label_set or ()) for r in rows]))
    assert sum(scores.sets.sizes.values()) == len(rows)


def test_a_prediction_that_is_no_label_costs_the_most() -> None:
    rows = [PredictionRow("0", NO_LABEL, (0.5, 0.5), gold="ham"), PredictionRow("1", "spam", (0.1, 0.9), gold="spam")]
    assert decision_scores.row_costs(rows, LABELS, COSTS).tolist() == [10.0, 0.0]


def test_no_row_above_the_threshold_has_no_precision() -> None:
    rows = drawn(50)
    decision = Decision(threshold=Threshold("spam", 1.5))
    scores = decision_scores.score(rows, LABELS, decision, None, None, Confidence(resamples=100))
    assert scores.threshold is not None
    assert scores.threshold.precision is None
    assert scores.costs is None
