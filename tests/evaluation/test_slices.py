"""Slices: scores equal to those of their rows alone, exact and permutation tests, order, and columns of many values."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from tunesmith.evaluation import intervals, multilabel_scores, slices, value_scores
from tunesmith.evaluation.intervals import Confidence, Estimate
from tunesmith.types import MultilabelPredictionRow, PredictionRow, ValuePredictionRow

CONFIDENCE = Confidence(resamples=500, seed=0)


def rows_of(right: list[bool]) -> list[PredictionRow]:
    return [PredictionRow(str(n), "a" if hit else "b", (0.5, 0.5), "a") for n, hit in enumerate(right)]


def test_shares_have_wilsons_interval_and_the_exact_test() -> None:
    """120 rows, 90 right; of the 30 rows of one slice 15."""
    right = [True] * 15 + [False] * 15 + [True] * 75 + [False] * 15
    scores = slices.score(slices.accuracy(rows_of(right)), {"source": ["web"] * 30 + ["app"] * 90}, CONFIDENCE)
    web, app = scores.slices
    assert (scores.metric, scores.rows, scores.tested) == ("accuracy", 120, 2)
    assert (web.column, web.value, web.rows, web.rest) == ("source", "web", 30, pytest.approx(75 / 90))
    assert web.estimate == Estimate.share(15, 30, 0.95)
    lower = sum(comb(90, k) * comb(30, 30 - k) for k in range(16)) / comb(120, 30)
    assert web.p == pytest.approx(2 * lower, rel=1e-9)
    assert app.p == pytest.approx(web.p, rel=1e-9)  # the same question
    assert [web.p_holm, app.p_holm] == pytest.approx(intervals.holm([web.p, app.p]))


def test_permutations_agree_with_the_exact_test() -> None:
    draw = np.random.default_rng(3)
    squared = draw.random((200, 1)) < 0.7
    values = {"column": draw.choice(["x", "y", "z"], 200).tolist()}
    share = slices.SliceMetric("accuracy", squared.astype(float), lambda means_BC: means_BC[:, 0], is_share=True)
    mean = slices.SliceMetric("accuracy", squared.astype(float), lambda means_BC: means_BC[:, 0])
    exact, drawn = (slices.score(metric, values, Confidence(resamples=4000)) for metric in (share, mean))
    for one, other in zip(exact.slices, drawn.slices, strict=True):
        assert (one.value, one.estimate.value) == (other.value, other.estimate.value)
        assert other.p == pytest.approx(one.p, abs=0.04)


def test_slices_drawn_at_random_seldom_differ() -> None:
    draw = np.random.default_rng(0)
    metric = slices.rmse([ValuePredictionRow(str(n), value, 0.0) for n, value in enumerate(draw.normal(size=120))])
    columns = {str(n): draw.permutation(["a"] * 40 + ["b"] * 80).tolist() for n in range(100)}
    scores = slices.score(metric, columns, Confidence(resamples=200))
    assert sum(each.p < 0.05 for each in scores.slices) / len(scores.slices) < 0.09
    assert all(each.p_holm > 0.05 for each in scores.slices)


def test_numbers_and_sets_of_labels_are_scored_as_their_rows_alone() -> None:
    draw = np.random.default_rng(1)
    values = ["odd" if n % 3 else "even" for n in range(90)]
    numbers = [ValuePredictionRow(str(n), *draw.normal(size=2)) for n in range(90)]
    labels, sets = ("a", "b", "c"), [("a",), ("a", "b"), (), ("c",), ("b", "c")]
    multi = [
        MultilabelPredictionRow(str(n), sets[draw.integers(5)], (0.5, 0.5, 0.5), sets[draw.integers(5)])
        for n in range(90)
    ]
    for metric, rows, score in (
        (slices.rmse(numbers), numbers, lambda rows: value_scores.score(rows, CONFIDENCE)),
        (slices.micro_f1(multi), multi, lambda rows: multilabel_scores.score(rows, labels, CONFIDENCE)),
    ):
        for each in slices.score(metric, {"parity": values}, CONFIDENCE).slices:
            of_slice = [row for row, value in zip(rows, values, strict=True) if value == each.value]
            others = [row for row, value in zip(rows, values, strict=True) if value != each.value]
            expected = score(of_slice).headline[metric.name]
            assert (each.estimate.value, each.estimate.low, each.estimate.high) == pytest.approx(
                (expected.value, expected.low, expected.high)
            )
            assert each.rest == pytest.approx(score(others).headline[metric.name].value)


def test_the_worst_come_first_and_small_slices_last_untested() -> None:
    right = [True] * 30 + [True, False] * 15 + [False] * 19
    values = ["good"] * 30 + ["middling"] * 30 + ["few"] * 19
    scores = slices.score(slices.accuracy(rows_of(right)), {"source": values}, CONFIDENCE)
    assert [(each.value, each.rows, each.p is None) for each in scores.slices] == [
        ("middling", 30, False),
        ("good", 30, False),
        ("few", 19, True),
    ]
    assert scores.tested == 2
    errors = [ValuePredictionRow(str(n), 1.0 if n < 25 else 5.0, 0.0) for n in range(50)]
    scores = slices.score(slices.rmse(errors), {"half": ["near"] * 25 + ["far"] * 25}, CONFIDENCE)
    assert [each.value for each in scores.slices] == ["far", "near"]


def test_a_slice_of_all_rows_is_not_tested() -> None:
    (whole,) = slices.score(slices.accuracy(rows_of([True] * 40)), {"source": ["web"] * 40}, CONFIDENCE).slices
    assert (whole.rest, whole.p, whole.p_holm) == (None, None, None)


def test_of_many_values_the_rarest_share_a_slice() -> None:
    values = [f"user {n}" for n in range(60)] + [f"user {n}" for n in range(50)] + [""] * 30
    scores = slices.score(slices.accuracy(rows_of([True] * 140)), {"user": values}, CONFIDENCE)
    sizes = {each.value: each.rows for each in scores.slices}
    assert len(sizes) == slices.MOST_VALUES + 1
    assert (sizes["(empty)"], sizes["user 3"], sizes["11 other values"]) == (30, 2, 12)


def test_lengths_are_cut_at_their_quartiles() -> None:
    found = slices.quartiles([*range(1, 101)])
    assert list(dict.fromkeys(found)) == [
        "1 to 25 characters",
        "26 to 50 characters",
        "51 to 75 characters",
        "76 to 100 characters",
    ]
    assert slices.quartiles([7] * 30 + [1000]) == ["7 to 7 characters"] * 30 + ["1,000 to 1,000 characters"]
