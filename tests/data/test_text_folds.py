"""Folds take out one kind of difference each, and never all that a text says."""

from __future__ import annotations

import random

import pytest

from tunesmith.data import text_folds
from tunesmith.data.text_folds import FOLDS, between, fold


@pytest.mark.parametrize(
    ("text", "other", "folds"),
    [
        ("Hello world", "hello WORLD", ("case",)),
        ("hello  world\n", "hello world", ("white space",)),
        ("hello\u00a0world", "hello world", ("white space",)),
        ("ｈｅｌｌｏ ﬁle", "hello file", ("unicode",)),
        ("cafe\u0301 au lait", "café au lait", ("unicode",)),
        ("good movie!!!", "good movie", ("punctuation",)),
        ("<b>good</b><br />movie &amp;amp; more", "good movie & more", ("html",)),
        ("see http://a.example/x?y=1 now", "see https://b.example now", ("urls",)),
        ("mail jo@a.example please", "mail mary.x@b.example please", ("urls",)),
        ("your order 123 has shipped", "your order 9,876 has shipped", ("digits",)),
        ("HELLO, world", "hello world", ("case", "punctuation")),
    ],
)
def test_the_folds_between_two_texts_are_named(text: str, other: str, folds: tuple[str, ...]) -> None:
    assert fold(text) == fold(other)
    assert between(text, other) == folds == between(other, text)
    for left_out in folds:
        fewer = tuple(name for name in folds if name != left_out)
        assert fold(text, fewer) != fold(other, fewer)


@pytest.mark.parametrize(
    ("text", "other"),
    [
        (":)", ":("),
        ("10/10", "1/10"),
        ("text 1", "text 2"),
        ("👍", "👎"),
        ("great 👍", "great 👎"),
        ("हिन्दी", "हन्द"),
        ("中文", "中国"),
        ("<3", ">3"),
    ],
)
def test_texts_that_say_something_else_stay_different(text: str, other: str) -> None:
    assert fold(text) != fold(other)


def test_folding_twice_changes_nothing_more() -> None:
    texts = ["", " ", "A <br> b", "1", "x@y.example 12:30, <i>Ok</i>\u2028Ｎｏ", "ß ẞ SS", "\ud800 broken"]
    folded = [fold(text) for text in texts]
    assert [fold(text) for text in folded] == folded
    assert folded[:2] == ["", ""]


def test_ascii_and_other_texts_are_folded_alike() -> None:
    plain = "Dr. O'Neil-Smith paid $3.50 (twice) on 2020-01-02; see www.a.example/b_c?d=e"
    assert fold(plain) == "dr o neil smith paid 0 twice on 0 see url"
    assert fold(plain + " é") == fold(plain) + " é"
    assert set(FOLDS) == {"unicode", "html", "urls", "case", "digits", "punctuation", "white space"}
    assert text_folds.fold_punctuation("a_b") == "a b"


def test_plain_texts_are_folded_as_all_others() -> None:
    draw = random.Random(0)
    pieces = [
        *"aZ9 .,:/-!?\t\n\0\x1f_$",
        "word ",
        " 12,345.6 ",
        "10/10",
        "3rd",
        "é",
        "<b>",
        "&amp;",
        "www.a.example",
        "a@b.example",
    ]
    for length in range(400):
        text = "".join(draw.choices(pieces, [8] * 18 + [1] * (len(pieces) - 18), k=length % 40))
        one_by_one = list(FOLDS)  # no such tuple is known
        assert fold(text) == fold(text, tuple(one_by_one)), repr(text)
