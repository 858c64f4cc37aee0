"""Agreement of annotators, against published and hand-made figures."""

from __future__ import annotations

import numpy as np
import pytest

from tunesmith.auditing import annotator_agreement
from tunesmith.evaluation.intervals import Confidence

CONFIDENCE = Confidence(resamples=200)


def test_alpha_of_krippendorffs_own_example() -> None:
    """Four observers, twelve units with missing values (Krippendorff 2011, section C): nominal alpha is 0.743."""
    units = ["111", "2223", "3333", "3333", "2222", "1234", "4444", "1112", "2222", "555", "11", "3"]
    counts = np.array([[unit.count(label) for label in "12345"] for unit in units], dtype=float)
    assert annotator_agreement.alpha(counts) == pytest.approx(0.743, abs=5e-4)


def test_alpha_of_perfect_and_of_undefined_agreement() -> None:
    assert annotator_agreement.alpha(np.array([[3.0, 0], [0, 3]])) == 1
    assert np.isnan(annotator_agreement.alpha(np.array([[3.0, 0], [3, 0]])))
    assert np.isnan(annotator_agreement.alpha(np.array([[1.0, 0], [0, 1]])))


def test_auroc_counts_ties_half() -> None:
    assert annotator_agreement.auroc(np.array([1.0, 2, 3]), np.array([False, True, True])) == 1
    assert annotator_agreement.auroc(np.array([1.0, 1, 1]), np.array([False, True, True])) == 0.5
    assert np.isnan(annotator_agreement.auroc(np.array([1.0, 1]), np.array([True, True])))


def test_rows_without_votes_do_not_count() -> None:
    votes = [{"a": 3}, {"a": 1, "b": 2}, None, {"b": 1, "a": 1}]
    found = annotator_agreement.measure(votes, ["a", "a", "b", "b"], np.array([0.9, 0.1, 0.0, 0.2]), CONFIDENCE)
    assert (found.rows, found.votes, found.disagreement, found.contradicted) == (3, 8, 2, 1)
    assert found.for_given.value == pytest.approx((1 + 1 / 3 + 1 / 2) / 3)
    assert found.auroc is not None
    assert found.auroc.value == 1


@pytest.mark.parametrize(("votes", "label"), [({"a": 2, "b": 1}, "a"), ({"a": 1, "b": 1}, None), ({}, None)])
def test_the_majority(votes: dict[str, int], label: str | None) -> None:
    assert annotator_agreement.majority(votes) == label
