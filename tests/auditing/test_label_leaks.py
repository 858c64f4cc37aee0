"""Words and names in texts that tell their label."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tunesmith.auditing import label_leaks
from tunesmith.types import Example

WORDS = [f"w{n}" for n in range(200)]


def rows(count: int, seed: int = 0, labels: tuple[str, ...] = ("yes", "no")) -> list[Example]:
    """Random texts, whose labels nothing tells."""
    draw = random.Random(seed)
    return [Example(f"r{n}", " ".join(draw.choices(WORDS, k=8)), label=labels[n % len(labels)]) for n in range(count)]


def with_word(examples: list[Example], word: str, label: str, part: float = 1.0) -> list[Example]:
    of_label = [row.id for row in examples if row.label == label]
    chosen = set(of_label[: round(part * len(of_label))])
    return [
        Example(row.id, f"{row.text} {word}" if row.id in chosen else row.text, label=row.label) for row in examples
    ]


def test_a_planted_word_is_found_with_its_bound_and_held_out_share() -> None:
    train, test = with_word(rows(600), "Leak", "yes"), with_word(rows(100, seed=1), "leak", "yes")
    leaks = label_leaks.find(train, test, ("no", "yes"))
    (word,) = leaks.words
    assert (word.word, word.label, word.rows, word.share, word.covered) == ("leak", "yes", 300, 1.0, 1.0)
    # (0.05 / tests)^(1 / 300) is the exact bound where no row contradicts
    assert word.bound == pytest.approx((0.05 / (2 * leaks.tested)) ** (1 / 300))
    assert word.held_out == 1.0
    assert word.where == ("r0", "r2", "r4", "r6", "r8")


def test_words_that_say_nothing_are_not_found() -> None:
    found = [label_leaks.find(rows(400, seed), [], ("no", "yes")).found for seed in range(20)]
    assert found == [0] * 20


def test_ten_rows_with_a_word_are_too_few_to_be_sure() -> None:
    train = with_word(rows(400), "leak", "yes", part=0.05)
    assert label_leaks.find(train, [], ("no", "yes")).words == ()


def test_a_word_of_a_label_that_nearly_all_rows_have_is_no_leak() -> None:
    """99% of the rows are `yes`: a word in some of them predicts it as well as no word does."""
    draw = random.Random(0)
    train = [
        Example(f"r{n}", " ".join(draw.choices(WORDS[:20], k=8)), label="no" if n % 100 == 0 else "yes")
        for n in range(2000)
    ]
    assert label_leaks.find(train, [], ("no", "yes")).words == ()


def test_a_word_of_a_number_is_found_by_its_variance() -> None:
    draw = np.random.default_rng(0)
    train = [
        Example(f"r{n}", f"{WORDS[n % 50]} {WORDS[n % 7]} {'urgent' if n % 2 else 'calm'}", value=10 * (n % 2) + noise)
        for n, noise in enumerate(draw.normal(size=400).tolist())
    ]
    words = label_leaks.find(train, [], ()).words
    assert {word.word for word in words} == {"urgent", "calm"}
    assert words[0].share > 0.9
    assert {word.word: round(word.mean or 0) for word in words} == {"urgent": 10, "calm": 0}


def test_numbers_that_do_not_vary_have_no_telling_word() -> None:
    train = [Example(f"r{n}", f"{WORDS[n % 5]} same", value=1.0) for n in range(100)]
    assert label_leaks.find(train, [], ()).words == ()


def test_each_label_of_several_is_looked_at() -> None:
    plain = rows(300)
    train = [
        Example(row.id, f"{row.text} toxic" if n % 3 == 0 else row.text, labels=("a", "bad") if n % 3 == 0 else ("a",))
        for n, row in enumerate(plain)
    ]
    assert [(word.word, word.label) for word in label_leaks.find(train, [], ("a", "bad")).words] == [("toxic", "bad")]


def test_words_of_second_texts_are_told_apart() -> None:
    train = [
        Example(row.id, row.text, f"other {WORDS[n % 9]}{' leak' if row.label == 'yes' else ''}", label=row.label)
        for n, row in enumerate(rows(400))
    ]
    (word,) = label_leaks.find(train, [], ("no", "yes")).words
    assert (word.word, word.second) == ("leak", True)


def test_long_numbers_are_masked() -> None:
    train = with_word(rows(600), "08712460324", "yes")
    assert label_leaks.find(train, [], ("no", "yes")).words[0].word == "[number]"


def test_names_of_labels_are_counted_against_chance() -> None:
    labels = ("book_flight", "Bank Account", "42", "x")
    texts = {"book_flight": "please book  FLIGHT now", "Bank Account": "nothing here", "42": "the 42", "x": "x y"}
    examples = [Example(f"{label}{n}", texts[label], label=label) for label in labels for n in range(10)]
    names = label_leaks.label_names(examples, labels)
    assert names is not None
    assert (names.count.rows, names.share) == (10, 0.5)
    assert names.by_chance == pytest.approx(10 / 40 * 10 / 20)
    assert [(name.label, name.rows, name.share, name.elsewhere) for name in names.labels] == [
        ("book_flight", 10, 1.0, 0.0)
    ]


def test_labels_without_names_have_none() -> None:
    assert label_leaks.label_names(rows(10, labels=("0", "1")), ("0", "1")) is None


def test_a_name_inside_a_word_does_not_count() -> None:
    names = label_leaks.label_names([Example("a", "the spammer", label="spam")], ("spam",))
    assert names is not None
    assert names.count.rows == 0
    marked = label_leaks.label_names([Example("a", "__label__spam buy", label="spam")], ("spam",))
    assert marked is not None
    assert marked.count.rows == 1
