"""Decisions: thresholds, costs, abstaining and sets, chosen on some rows and right on others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from tunesmith.errors import RecipeError
from tunesmith.recipe import Decide
from tunesmith.tasks import decisions
from tunesmith.tasks.calibration import Floats, Places
from tunesmith.tasks.classification import SingleLabel
from tunesmith.tasks.decisions import Decision, DecisionFit

SPAM = SingleLabel(("ham", "spam"))
GRADES = SingleLabel(("1", "2", "3", "4"), values=(1.0, 2.0, 3.0, 4.0))


def rows(number: int, classes: int = 2, seed: int = 0) -> tuple[Floats, Places]:
    """Calibrated probabilities, and labels drawn from them."""
    draw = np.random.default_rng(seed)
    p_NK = draw.dirichlet([0.3] * classes, size=number)
    return p_NK, np.array([draw.choice(classes, p=p_K) for p_K in p_NK])


def choose(p_NK: Floats, gold_N: Places, among: SingleLabel = SPAM, **asked: Any) -> DecisionFit:
    return decisions.choose(p_NK, gold_N, among, Decide(**asked), seed=0)


def test_costs_move_the_threshold_to_where_calibrated_probabilities_have_it() -> None:
    p_NK, gold_N = rows(5000)
    costs: Any = {"ham": {"spam": 10}, "spam": {"ham": 1}}
    fit = choose(p_NK, gold_N, costs=costs)
    threshold = fit.decision.threshold
    assert threshold is not None
    assert threshold.label == "spam"
    assert threshold.probability == pytest.approx(10 / 11, abs=0.05)
    fresh_NK, fresh_N = rows(5000, seed=1)
    costs_KK = decisions.cost_matrix(SPAM.labels, costs)
    ours, plain = fit.decision.labels(fresh_NK, SPAM.labels), fresh_NK.argmax(axis=1)
    assert costs_KK[fresh_N, ours].mean() < 0.8 * costs_KK[fresh_N, plain].mean()


def test_equal_costs_leave_the_most_probable_label() -> None:
    p_NK, gold_N = rows(5000)
    for target, probabilities_NK in ((SPAM, p_NK), (GRADES, rows(500, 4)[0])):
        gold = gold_N if target is SPAM else rows(500, 4)[1]
        fit = choose(probabilities_NK, gold, target, costs={})
        assert (fit.decision.labels(probabilities_NK, target.labels) == probabilities_NK.argmax(axis=1)).mean() > 0.97


def test_the_least_expected_cost_decides_between_several_labels() -> None:
    p_NK, gold_N = rows(4000, 4)
    absolute = choose(p_NK, gold_N, GRADES, costs="absolute").decision.labels(p_NK, GRADES.labels)
    median = (np.cumsum(p_NK, axis=1) < 0.5).sum(axis=1)
    assert (absolute == median).all()  # the median has the least expected distance
    distance = np.abs(np.subtract.outer(np.arange(4), np.arange(4)))
    assert distance[gold_N, absolute].mean() < distance[gold_N, p_NK.argmax(axis=1)].mean()
    quadratic = choose(p_NK, gold_N, GRADES, costs="quadratic").decision.labels(p_NK, GRADES.labels)
    assert (np.abs(quadratic - (p_NK @ np.arange(4))) <= 0.5 + 1e-9).all()  # the mean has the least squared distance


def test_a_precision_is_reached_with_the_most_rows() -> None:
    p_NK, gold_N = rows(3000)
    for precision in (0.8, 0.95, 0.99):
        fit = choose(p_NK, gold_N, target={"label": "spam", "precision": precision})
        chosen = fit.decision.labels(p_NK, SPAM.labels) == 1
        assert (gold_N[chosen] == 1).mean() >= precision
        lower = np.sort(p_NK[~chosen, 1])[-1]
        with_more = p_NK[:, 1] >= lower
        assert (gold_N[with_more] == 1).mean() < precision or not fit.remarks
    recall = choose(p_NK, gold_N, target={"label": "spam", "recall": 0.9})
    assert (recall.decision.labels(p_NK, SPAM.labels)[gold_N == 1] == 1).mean() == pytest.approx(0.9, abs=0.01)


def test_what_cannot_be_reached_is_said() -> None:
    gold_N = np.arange(100) % 2
    p_NK = np.full((100, 2), 0.5)
    fit = choose(p_NK, gold_N, target={"label": "spam", "precision": 0.9}, abstain={"accuracy": 0.9})
    assert "no threshold reaches this precision of 'spam' on 100 validation rows" in fit.remarks[0]
    assert "no confidence reaches an accuracy of 0.9" in fit.remarks[1]
    with pytest.raises(RecipeError, match="names 'spma'"):
        choose(p_NK, gold_N, target={"label": "spma", "precision": 0.9})
    with pytest.raises(RecipeError, match="labels have no order"):
        choose(p_NK, gold_N, costs="absolute")
    with pytest.raises(RecipeError, match=r"decide\.costs names 'eggs'"):
        choose(p_NK, gold_N, costs={"spam": {"eggs": 2}})


def test_abstaining_reaches_accuracy_and_coverage() -> None:
    p_NK, gold_N = rows(4000, 3)
    target = SingleLabel(("a", "b", "c"))
    fit = choose(p_NK, gold_N, target, abstain={"accuracy": 0.95})
    fresh_NK, fresh_N = rows(4000, 3, seed=5)
    abstains = fit.decision.abstains(fresh_NK)
    assert abstains is not None
    right = fresh_NK.argmax(axis=1) == fresh_N
    assert right.mean() < 0.85
    assert right[~abstains].mean() == pytest.approx(0.95, abs=0.02)
    covered = choose(p_NK, gold_N, target, abstain={"coverage": 0.6}).decision.abstains(fresh_NK)
    assert covered is not None
    assert (~covered).mean() == pytest.approx(0.6, abs=0.03)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.8, 0.9, 0.95]))
def test_sets_have_the_right_label_as_often_as_stated(seed: int, coverage: float) -> None:
    p_NK, gold_N = rows(1000, 4, seed)
    wrong_NK = p_NK**3 / (p_NK**3).sum(axis=1, keepdims=True)  # overconfident: the guarantee does not need calibration
    decision = choose(wrong_NK[:500], gold_N[:500], GRADES, conformal=coverage).decision
    sets_NK = decision.sets(wrong_NK[500:])
    assert sets_NK is not None
    share = sets_NK[np.arange(500), gold_N[500:]].mean()
    # beta-binomial: five standard deviations
    assert share > coverage - 5 * np.sqrt(2 * coverage * (1 - coverage) / 500)
    assert sets_NK.any(axis=1).all()


def test_too_few_rows_for_a_coverage_take_every_label() -> None:
    p_NK, gold_N = rows(8)
    decision = choose(p_NK, gold_N, conformal=0.95).decision
    sets_NK = decision.sets(rows(20, seed=3)[0])
    assert sets_NK is not None
    assert sets_NK.all()


def test_a_threshold_below_gives_the_next_label() -> None:
    p_NK = np.array([[0.1, 0.5, 0.4], [0.05, 0.9, 0.05], [0.6, 0.3, 0.1]])
    assert decisions.with_threshold(p_NK, 1, 0.8).tolist() == [2, 1, 0]


def test_a_decision_is_read_as_it_was_written() -> None:
    from tunesmith.tasks import text_targets

    p_NK, gold_N = rows(400)
    asked: Any = {"costs": {"ham": {"spam": 10}}, "abstain": {"coverage": 0.9}, "conformal": 0.9}
    for method in ("temperature", "sigmoid", "vector", "isotonic"):
        decision = choose(p_NK, gold_N, calibration=method, **asked).decision
        target = SingleLabel(SPAM.labels, decision)
        assert text_targets.of_settings(text_targets.to_settings(target)) == target
        assert isinstance(decision, Decision)
        config = {key: value for key, value in text_targets.to_config(target).items() if key != "id2label"}
        assert text_targets.of_config(config | {"id2label": {"0": "ham", "1": "spam"}}) == target
