"""The linear model against scikit-learn, which it was learned with and is stored without."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from tests import tiny
from tunesmith.data.labels import class_weights
from tunesmith.errors import RecipeError, TrainingError
from tunesmith.models import linear
from tunesmith.recipe import Linear
from tunesmith.types import Example

LABELS = tuple(sorted(tiny.WORDS))
TEXT = st.text(alphabet="ab Cé1_-.\n\tß", max_size=30)


@settings(max_examples=200, deadline=None)
@given(TEXT, st.sampled_from([(1, 1), (1, 2), (2, 3)]), st.sampled_from([(1, 1), (2, 4), (3, 5)]))
def test_ngrams_are_those_of_scikit_learn(text: str, words: tuple[int, int], chars: tuple[int, int]) -> None:
    ours = linear.BagOfWords(Linear(word_ngrams=words))(Example("x", text))
    assert ours == CountVectorizer(ngram_range=words).build_analyzer()(text)
    ours = linear.BagOfWords(Linear(word_ngrams=None, char_ngrams=chars))(Example("x", text))
    theirs = CountVectorizer(analyzer="char_wb", ngram_range=chars).build_analyzer()(text)
    assert sorted(ours) == sorted(f"c|{gram}" for gram in theirs)


@pytest.mark.parametrize("labels", [LABELS, LABELS[:2]])
@pytest.mark.parametrize("vectorizer", ["tfidf", "count"])
def test_probabilities_are_those_of_scikit_learn(vectorizer: str, labels: tuple[str, ...]) -> None:
    rows = tiny.texts(150, labels=labels)
    examples = [Example(str(i), text, label=label) for i, (text, label) in enumerate(rows)]
    fitted = linear.fit(examples[:100], labels, Linear(vectorizer=vectorizer), np.ones(len(labels)))
    ours = np.array([p.probabilities for p in fitted.predictor.predict(examples[100:])])
    kind = {
        "tfidf": TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True),
        "count": CountVectorizer(ngram_range=(1, 2), min_df=2),
    }[vectorizer]
    texts = [text for text, _ in rows]
    model = LogisticRegression(C=10.0, max_iter=1000)
    model.fit(kind.fit_transform(texts[:100]).astype(np.float64), [label for _, label in rows[:100]])
    theirs = model.predict_proba(kind.transform(texts[100:]))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_a_pair_keeps_its_texts_apart() -> None:
    grams = linear.BagOfWords(Linear(word_ngrams=(1, 1)))
    assert grams(Example("x", "good film", "bad film")) == ["good", "film", "2|bad", "2|film"]


def test_texts_without_known_words_get_the_prior() -> None:
    rows = [Example(str(i), text, label=label) for i, (text, label) in enumerate(tiny.texts(60))]
    predictor = linear.fit(rows, LABELS, Linear(), np.ones(3)).predictor
    first, second = predictor.predict([Example("a", "zzz"), Example("b", "!!!")])
    assert first.probabilities == second.probabilities


def test_nothing_to_count_is_explained() -> None:
    rows = [Example(str(i), "!", label=label) for i, label in enumerate(("a", "b") * 5)]
    with pytest.raises(TrainingError, match="char_ngrams"):
        linear.fit(rows, ("a", "b"), Linear(), np.ones(2))


def test_class_weights() -> None:
    rows = [Example(str(i), "x", label=label) for i, label in enumerate("aaab")]
    np.testing.assert_allclose(class_weights(rows, ("a", "b"), "balanced"), [4 / 6, 4 / 2])
    np.testing.assert_allclose(class_weights(rows, ("a", "b"), {"b": 3}), [1, 3])
    with pytest.raises(RecipeError, match="names c"):
        class_weights(rows, ("a", "b"), {"c": 3})
