"""The classifier two-sample test: blind where there is nothing, and seeing where there is."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tunesmith.auditing import drift
from tunesmith.types import Example

WORDS = [f"word{n}" for n in range(300)]


def rows(count: int, seed: int, extra: str = "", share: float = 1.0, label: str | None = None) -> list[Example]:
    draw = random.Random(seed)
    return [
        Example(
            f"{seed}:{n}",
            " ".join([*draw.choices(WORDS, k=12), *([extra] if extra and draw.random() < share else [])]),
            label=label,
        )
        for n in range(count)
    ]


def test_texts_of_one_kind_are_rarely_told_apart() -> None:
    """95% intervals: of 40 pairs 1 is expected to lie above a half, and 6 or more have a probability below 0.001."""
    found = [drift.compare(("a", "b"), rows(150, seed), rows(150, 1000 + seed), seed=seed) for seed in range(40)]
    assert sum(result is not None and result.detected for result in found) < 6


def test_a_word_that_half_of_the_test_texts_have_is_found_and_named() -> None:
    result = drift.compare(("train", "test"), rows(600, 1), rows(300, 2, "Covid", 0.5), seed=1)
    assert result is not None
    assert result.detected
    assert 0.7 < result.auc.value < 0.8  # at best 0.75: the other half cannot be told
    first = result.words[0]
    assert (first.word, first.shares[0]) == ("Covid", 0.0)
    assert first.shares[1] == pytest.approx(0.5, abs=0.1)
    assert result.rows == (600, 300)


def test_case_alone_can_tell_texts_apart() -> None:
    upper = [Example(row.id, row.text.upper()) for row in rows(100, 2)]
    result = drift.compare(("a", "b"), rows(100, 1), upper, seed=1)
    assert result is not None
    assert result.auc.value > 0.99


def test_equal_texts_lie_in_one_fold() -> None:
    """Otherwise a text that both sets have would be known from the other set, and AUC fall far below a half."""
    same = rows(200, 1)
    result = drift.compare(("a", "b"), same, [Example(f"b{row.id}", row.text) for row in same], seed=1)
    assert result is not None
    assert result.auc.value == pytest.approx(0.5, abs=1e-9)
    assert not result.detected


def test_few_rows_are_not_compared() -> None:
    assert drift.compare(("a", "b"), rows(29, 1), rows(500, 2), seed=1) is None


def test_texts_without_words_are_not_compared() -> None:
    empty = [Example(str(n), "?!") for n in range(40)]
    assert drift.compare(("a", "b"), empty, empty, seed=1) is None


def test_large_sets_are_drawn_from_and_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "MOST_ROWS", 100)
    first, again = (drift.compare(("a", "b"), rows(300, 1), rows(120, 2), seed=4) for _ in range(2))
    assert first == again
    assert first is not None
    assert (first.rows, first.drawn) == ((100, 100), True)


def test_words_of_second_texts_are_marked() -> None:
    first = [Example(row.id, row.text, "same") for row in rows(80, 1)]
    second = [Example(row.id, row.text, "same new") for row in rows(80, 2)]
    result = drift.compare(("a", "b"), first, second, seed=1)
    assert result is not None
    assert (result.words[0].word, result.words[0].second) == ("new", True)


@pytest.mark.parametrize("ties", [False, True])
def test_auc_and_its_variance_are_those_of_all_pairs(ties: bool) -> None:
    draw = np.random.default_rng(0)
    scores = draw.integers(5, size=60).astype(float) if ties else draw.normal(size=60)
    gold = (draw.random(60) < 0.4).astype(np.intp)
    positive, negative = scores[gold == 1], scores[gold == 0]
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    value, variance = drift.auc(scores, gold)
    assert value == pytest.approx(wins.mean())
    expected = np.var(wins.mean(1), ddof=1) / len(positive) + np.var(wins.mean(0), ddof=1) / len(negative)
    assert variance == pytest.approx(expected)


def test_shares_of_labels_are_compared() -> None:
    train = rows(80, 1, label="a") + rows(20, 2, label="b")
    test = rows(50, 3, label="a") + rows(50, 4, label="b")
    shift = drift.label_shift(train, test)
    assert shift is not None
    assert shift.distance == pytest.approx(0.3)
    assert (shift.label, shift.shares) == ("a", (0.8, 0.5))
    assert shift.p < 1e-4


def test_one_label_has_no_shift() -> None:
    assert drift.label_shift(rows(5, 1, label="a"), rows(5, 2, label="a")) is None
    assert drift.label_shift(rows(5, 1, label="a"), []) is None


def test_the_chi_squared_test_is_that_of_scipy() -> None:
    from scipy.stats import chi2_contingency

    counts = [(30, 20, 10), (10, 25, 12)]
    first, second = (
        [row for label, n in zip("abc", count, strict=True) for row in rows(n, 1, label=label)] for count in counts
    )
    shift = drift.label_shift(first, second)
    assert shift is not None
    assert shift.p == pytest.approx(chi2_contingency(counts).pvalue)
