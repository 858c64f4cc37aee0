"""Vocabulary and values against scikit-learn's CountVectorizer and TfidfTransformer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer

from tests import tiny
from tunesmith.models import vectorizer
from tunesmith.models.ngrams import BagOfWords
from tunesmith.recipe import Linear
from tunesmith.types import Example

SETTINGS: list[dict[str, Any]] = [
    {},
    {"vectorizer": "count", "word_ngrams": (2, 4)},
    {"char_ngrams": (2, 4), "min_df": 3},
    {"word_ngrams": None, "char_ngrams": (1, 5), "lowercase": False},
    {"max_features": 50, "char_ngrams": (1, 3)},
    {"max_features": 33, "word_ngrams": (1, 3), "min_df": 1},
]


def texts(pairs: bool) -> list[Example]:
    draw = np.random.default_rng(0)
    rows = [f"{text} {'É' * int(draw.integers(3))} b2_c, D. {text[:9]}" for text, _ in tiny.texts(120)]
    rows[5], rows[6], rows[-1] = "", "! ?", "a"
    return [Example(str(i), row, rows[-i] if pairs and i % 3 else None) for i, row in enumerate(rows)]


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("at_once", [40, 1 << 22])
def test_vocabulary_and_values_are_those_of_scikit_learn(
    settings: dict[str, Any], pairs: bool, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectorizer, "TOKENS_AT_ONCE", at_once)
    monkeypatch.setattr(vectorizer, "ENTRIES_PER_BLOCK", 10 * at_once)
    linear, examples = Linear(**settings), texts(pairs)
    table = vectorizer.vectorize(examples, linear)
    count = CountVectorizer(
        analyzer=BagOfWords(linear), min_df=linear.min_df, max_features=linear.max_features, dtype=np.float64
    )
    expected = count.fit_transform(examples)
    if linear.vectorizer == "tfidf":
        transform = TfidfTransformer(sublinear_tf=True)
        expected = transform.fit_transform(expected)
    assert sorted(table.vocabulary) == sorted(count.vocabulary_)
    order = [count.vocabulary_[gram] for gram in table.vocabulary]
    if table.idf is not None:
        np.testing.assert_allclose(table.idf, transform.idf_[order])
    assert abs(table.features.joined() - expected[:, order]).max() < 1e-6


def test_nothing_to_count_is_an_empty_vocabulary() -> None:
    assert vectorizer.vectorize([Example("x", "!"), Example("y", "")], Linear()).vocabulary == []
