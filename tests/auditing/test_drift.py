"""The classifier two-sample test: blind where there is nothing, and seeing where there is."""

from __future__ import annotations

import random
from itertools import chain

import numpy as np
import pytest

from tests.random_texts import text
from tunesmith.auditing import drift
from tunesmith.data import near_duplicates
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


def versions(texts: int, seed: int) -> tuple[list[Example], list[Example]]:
    """Return a random split of texts, a third of which has 6 versions; all of one text lie on one side."""
    draw = random.Random(f"versions {seed}")
    sets: tuple[list[Example], list[Example]] = ([], [])
    for number in range(texts):
        whole = text(1000 * seed + number, 12)
        copies = [f"{whole} {text(number + n, 1)}" for n in range(6)] if draw.random() < 1 / 3 else [whole]
        sets[draw.random() < 0.3].extend(Example(f"{number}.{n}", copy) for n, copy in enumerate(copies))
    return sets


def test_near_duplicates_on_one_side_do_not_tell_a_random_split_apart() -> None:
    """Of 20 splits 4 or more have a probability below 0.002. Taken for different texts the versions give each away."""
    splits = [versions(120, seed) for seed in range(20)]
    alone = [drift.compare(("a", "b"), *sets, seed=1) for sets in splits[:5]]
    assert all(result is not None and result.detected for result in alone)
    together = [drift.compare(("a", "b"), *sets, seed=1, index=near_duplicates.find(sets, 0.7)) for sets in splits]
    assert sum(result is not None and result.detected for result in together) < 4
    assert 0.46 < np.mean([result.auc.value for result in together if result is not None]) < 0.54


def test_groups_are_compared_as_one() -> None:
    """Each group has a word of its own: of groups that were not learned from, nothing can be known."""
    texts = [
        [Example(f"{row.id}.{group}", f"{row.text} group{group}", group=f"{group}") for row in rows(10, group)]
        for group in range(40)
    ]
    first, second = list(chain(*texts[:28])), list(chain(*texts[28:]))
    result = drift.compare(("a", "b"), first, second, seed=1)
    assert result is not None
    assert not result.detected


def test_the_variance_of_rows_in_units_is_that_of_resampled_units() -> None:
    draw = np.random.default_rng(0)
    unit = np.repeat(np.arange(60), draw.integers(1, 6, size=60))
    gold = (np.arange(60) % 3 == 0)[unit].astype(np.intp)
    scores = draw.normal(size=60)[unit] + 0.3 * draw.normal(size=len(unit))
    _, variance = drift.auc(scores, gold, unit)
    values = []
    for _ in range(2000):
        drawn = np.concatenate([np.flatnonzero(unit == u) for u in draw.integers(60, size=60)])
        values.append(drift.auc(scores[drawn], gold[drawn], drawn)[0])
    assert variance == pytest.approx(np.var(values), rel=0.2)
    assert drift.auc(scores, gold, np.arange(len(unit)))[1] < variance / 2


@pytest.mark.parametrize("ties", [False, True])
def test_auc_and_its_variance_are_those_of_all_pairs(ties: bool) -> None:
    draw = np.random.default_rng(0)
    scores = draw.integers(5, size=60).astype(float) if ties else draw.normal(size=60)
    gold = (draw.random(60) < 0.4).astype(np.intp)
    positive, negative = scores[gold == 1], scores[gold == 0]
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    value, variance = drift.auc(scores, gold, np.arange(60))
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
