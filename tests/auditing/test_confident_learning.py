"""Confident learning: the joint of the paper, and a ranking that finds planted noise."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tunesmith.auditing import confident_learning
from tunesmith.auditing.annotator_agreement import auroc
from tunesmith.auditing.confident_learning import NoiseModel

Floats = NDArray[np.float64]
Index = NDArray[np.intp]


def planted(kind: str, rate: float, rows: int = 6000, labels: int = 4, seed: int = 0) -> tuple[Floats, Index, Index]:
    """Probabilities of a good model, given labels and true labels."""
    draw = np.random.default_rng(seed)
    true_N = draw.integers(labels, size=rows)
    given_N = true_N.copy()
    wrong = draw.choice(rows, int(rate * rows), replace=False)
    steps = draw.integers(1, labels, size=len(wrong)) if kind == "any" else 1
    given_N[wrong] = (true_N[wrong] + steps) % labels
    # logits of the true label, and what a model learns of the noise on top of it
    share_KK = np.zeros((labels, labels))
    np.add.at(share_KK, (true_N, given_N), 1)
    share_KK /= share_KK.sum(axis=1, keepdims=True)
    scores_NK = draw.normal(size=(rows, labels)) + 3.0 * np.eye(labels)[true_N]
    clean_NK = np.exp(scores_NK) / np.exp(scores_NK).sum(axis=1, keepdims=True)
    return clean_NK @ share_KK, given_N, true_N


def test_the_joint_of_the_paper() -> None:
    """Worked by hand: thresholds 0.7 and 0.6; the third row is confidently of label 1, the last of none."""
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7], [0.5, 0.5]])
    given = np.array([0, 0, 0, 1, 1])
    assert confident_learning.thresholds(probabilities, given) == pytest.approx([0.7, 0.6])
    assert confident_learning.confident_joint(probabilities, given) == pytest.approx(np.array([[2, 1], [0, 2]]))


def test_a_label_without_rows_has_no_threshold_and_no_rows() -> None:
    probabilities, given = np.array([[0.5, 0.4, 0.1], [0.2, 0.7, 0.1]]), np.array([0, 1])
    joint = confident_learning.confident_joint(probabilities, given)
    assert joint.sum() == 2
    assert not joint[2].any()
    assert np.isfinite(NoiseModel.fit(probabilities, given).posterior(probabilities, given)).all()


@pytest.mark.parametrize("kind", ["any", "next"])
@pytest.mark.parametrize("rate", [0.0, 0.05, 0.2])
def test_the_share_of_planted_noise(kind: str, rate: float) -> None:
    probabilities, given, _ = planted(kind, rate)
    suspects = confident_learning.suspects(probabilities, np.log(probabilities), given)
    assert suspects.mean() == pytest.approx(rate, abs=0.04)


@pytest.mark.parametrize(("kind", "better"), [("any", -0.005), ("next", 0.005)])
def test_confusions_that_repeat_make_the_ranking_better(kind: str, better: float) -> None:
    """Against the plain probability of the given label, which knows nothing of which labels are confused."""
    probabilities, given, true = planted(kind, 0.2)
    posterior = NoiseModel.fit(probabilities, given).posterior(probabilities, given)
    rows = np.arange(len(given))
    plain = auroc(-probabilities[rows, given], given != true)
    assert auroc(-posterior[rows, given], given != true) >= plain + better


def test_rows_in_another_order_get_the_same_posterior() -> None:
    probabilities, given, _ = planted("next", 0.1, rows=500)
    order = np.random.default_rng(1).permutation(len(given))
    posterior = NoiseModel.fit(probabilities, given).posterior(probabilities, given)
    other = NoiseModel.fit(probabilities[order], given[order]).posterior(probabilities[order], given[order])
    assert np.abs(other - posterior[order]).max() < 1e-12
