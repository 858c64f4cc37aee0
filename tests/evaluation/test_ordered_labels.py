"""Scores of ordered labels: those of scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, mean_absolute_error

from tunesmith.evaluation import metrics
from tunesmith.evaluation.intervals import Confidence
from tunesmith.types import NO_LABEL, Prediction

LABELS, VALUES = ("1", "2", "4", "8"), (1.0, 2.0, 4.0, 8.0)


def predicted(names: list[str]) -> list[Prediction]:
    return [
        Prediction(str(n), name, tuple(float(label == name) for label in LABELS) if name else (0.25,) * 4)
        for n, name in enumerate(names)
    ]


def test_scores_are_those_of_scikit_learn() -> None:
    draw = np.random.default_rng(0)
    gold_N, guess_N = draw.integers(4, size=200), draw.integers(4, size=200)
    gold, guess = ([LABELS[k] for k in places] for places in (gold_N, guess_N))
    scores = metrics.score(gold, predicted(guess), LABELS, Confidence(resamples=200), VALUES).headline
    assert scores["mae"].value == pytest.approx(mean_absolute_error(list(map(float, gold)), list(map(float, guess))))
    assert scores["qwk"].value == pytest.approx(cohen_kappa_score(gold_N, guess_N, weights="quadratic"))
    assert scores["within_one"].value == pytest.approx((np.abs(gold_N - guess_N) <= 1).mean())
    for name in ("mae", "qwk", "within_one"):
        assert scores[name].low <= scores[name].value <= scores[name].high
    assert "mae" not in metrics.score(gold, predicted(guess), LABELS, Confidence(resamples=100)).headline


def test_no_label_is_as_wrong_as_can_be() -> None:
    assert metrics.headline(["1", "4"], predicted([NO_LABEL, NO_LABEL]), LABELS, VALUES)["mae"] == (7 + 4) / 2


def test_one_rank_alone_is_no_agreement_beyond_chance() -> None:
    assert metrics.headline(["2", "2"], predicted(["2", "2"]), LABELS, VALUES)["qwk"] == 0
