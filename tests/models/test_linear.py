"""The linear model against scikit-learn, which it was learned with and is stored without."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from tests import tiny
from tunesmith.errors import RecipeError, TrainingError
from tunesmith.models import linear, low_rank, newton
from tunesmith.models.known_ngrams import MANY, KnownNgrams
from tunesmith.models.newton import ColumnBlocks
from tunesmith.models.ngrams import BagOfWords
from tunesmith.recipe import Linear
from tunesmith.tasks import text_targets
from tunesmith.tasks.classification import SingleLabel, class_weights
from tunesmith.tasks.multilabel import MultiLabel
from tunesmith.tasks.regression import Number
from tunesmith.types import Example

LABELS = tuple(sorted(tiny.WORDS))
TEXT = st.text(alphabet="ab Cé1_-.\n\tß", max_size=30)


@settings(max_examples=200, deadline=None)
@given(TEXT, st.sampled_from([(1, 1), (1, 2), (2, 3)]), st.sampled_from([(1, 1), (2, 4), (3, 5)]))
def test_ngrams_are_those_of_scikit_learn(text: str, words: tuple[int, int], chars: tuple[int, int]) -> None:
    ours = BagOfWords(Linear(word_ngrams=words))(Example("x", text))
    assert ours == CountVectorizer(ngram_range=words).build_analyzer()(text)
    ours = BagOfWords(Linear(word_ngrams=None, char_ngrams=chars))(Example("x", text))
    theirs = CountVectorizer(analyzer="char_wb", ngram_range=chars).build_analyzer()(text)
    assert sorted(ours) == sorted(f"c|{gram}" for gram in theirs)


@pytest.fixture
def at_the_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    """Newton's method goes on until float32 has no better weights."""
    monkeypatch.setattr(newton, "TOLERANCE", 1e-8)
    monkeypatch.setattr(newton, "RESIDUAL", 0.05)


@pytest.mark.parametrize("labels", [LABELS, LABELS[:2]])
@pytest.mark.parametrize("vectorizer", ["tfidf", "count"])
def test_probabilities_are_those_of_scikit_learn(
    vectorizer: str, labels: tuple[str, ...], at_the_optimum: None
) -> None:
    rows = tiny.texts(150, labels=labels)
    examples = [Example(str(i), text, label=label) for i, (text, label) in enumerate(rows)]
    fitted = linear.fit(examples[:100], SingleLabel(labels), Linear(vectorizer=vectorizer), np.ones(len(labels)))
    ours = np.array([p.probabilities for p in fitted.predictor.predict(examples[100:])])
    kind = {
        "tfidf": TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True),
        "count": CountVectorizer(ngram_range=(1, 2), min_df=2),
    }[vectorizer]
    texts = [text for text, _ in rows]
    model = LogisticRegression(C=10.0, max_iter=1000, tol=1e-9)
    model.fit(kind.fit_transform(texts[:100]).astype(np.float64), [label for _, label in rows[:100]])
    theirs = model.predict_proba(kind.transform(texts[100:]))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def many(rows: int, classes: int, seed: int = 0) -> list[Example]:
    """Texts of many classes: three words that only the class has, among words that all have."""
    draw = np.random.default_rng(seed)
    return [
        Example(
            str(row), " ".join([*(f"k{label}x{n}" for n in draw.integers(6, size=3)), *filler]), label=f"{label:05d}"
        )
        for row, label in enumerate(draw.permutation(rows) % classes)
        for filler in [[f"w{n}" for n in draw.zipf(1.5, size=5).clip(max=500)]]
    ]


def names_of(examples: list[Example]) -> tuple[str, ...]:
    return tuple(sorted({str(example.label) for example in examples}))


@pytest.mark.parametrize(
    ("rows", "features", "classes", "name"),
    [
        (10_000, 212_000, 2, "newton"),
        (650_000, 2_000_000, 5, "newton"),
        (15_100, 11_932, 151, "newton"),
        (3_000, 7_519, 1_000, "newton"),
        (30_000, 32_342, 3_000, "low-rank"),
        (100_000, 164_183, 10_000, "low-rank"),
    ],
)
def test_the_solver_follows_from_the_shape(rows: int, features: int, classes: int, name: str) -> None:
    assert linear.solver(rows, features, classes) == name


def test_more_than_a_few_classes_reach_the_multinomial_optimum(at_the_optimum: None) -> None:
    examples = many(600, 30)
    labels = names_of(examples)
    fitted = linear.fit(examples[:400], SingleLabel(labels), Linear(word_ngrams=(1, 1)), np.ones(30)).predictor
    ours = np.array([p.probabilities for p in fitted.predict(examples[400:])])
    vectorizer = TfidfVectorizer(min_df=2, sublinear_tf=True)
    model = LogisticRegression(C=10.0, max_iter=10_000, tol=1e-9)
    model.fit(vectorizer.fit_transform([e.text for e in examples[:400]]), [e.label for e in examples[:400]])
    theirs = model.predict_proba(vectorizer.transform([e.text for e in examples[400:]]))
    assert np.abs(ours - theirs).max() < 1e-4


@pytest.fixture
def without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "EXACT_MEMORY", 0)
    monkeypatch.setattr(low_rank, "STEPS", 60)


def test_low_rank_is_as_accurate_as_the_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    examples = many(1500, 100)
    labels, hits, settings = names_of(examples), [], Linear(word_ngrams=(1, 1))
    monkeypatch.setattr(low_rank, "STEPS", 100)
    for memory in (linear.EXACT_MEMORY, 0):
        monkeypatch.setattr(linear, "EXACT_MEMORY", memory)
        predictor = linear.fit(examples[:1000], SingleLabel(labels), settings, np.ones(100)).predictor
        hits.append(
            np.mean(
                [p.label == e.label for p, e in zip(predictor.predict(examples[1000:]), examples[1000:], strict=True)]
            )
        )
    exact, approximate = hits
    assert exact > 0.9
    assert approximate > exact - 0.02


@pytest.mark.usefixtures("without_memory")
def test_low_rank_predictions_are_equal_for_equal_inputs_and_when_loaded(tmp_path: Path) -> None:
    examples = many(300, 40)
    labels = names_of(examples)
    first, second = (linear.fit(examples, SingleLabel(labels), Linear(), np.ones(40)).predictor for _ in range(2))
    first.save(tmp_path)
    expected = first.predict(examples[:50])
    assert second.predict(examples[:50]) == expected
    assert linear.LinearPredictor.load(tmp_path).predict(examples[:50]) == expected
    assert [sum(p.probabilities) for p in expected] == pytest.approx([1.0] * 50)


@pytest.mark.usefixtures("without_memory")
def test_low_rank_obeys_class_weights() -> None:
    examples = [Example(str(i), "same words", label=f"{i % 30:05d}") for i in range(300)]
    weights = np.where(np.arange(30) == 7, 5.0, 1.0)
    predictor = linear.fit(examples, SingleLabel(names_of(examples)), Linear(), weights).predictor
    shares = predictor.predict(examples[:1])[0].probabilities
    np.testing.assert_allclose(shares, weights / weights.sum(), atol=5e-3)


def test_dense_features_of_many_classes_have_a_weight_each(without_memory: None) -> None:
    draw = np.random.default_rng(0)
    centres, gold = draw.normal(size=(40, 16)), np.arange(800) % 40
    features = centres[gold] + 0.3 * draw.normal(size=(800, 16))
    regression = linear.Regression.fit(ColumnBlocks([features]), gold.tolist(), Linear(), np.ones(40))
    assert regression.weight.shape == (40, 16)
    assert regression.projection is None
    assert (regression.logits(features @ regression.weight.T, 40).argmax(1) == gold).mean() > 0.95


@pytest.mark.parametrize(("memory", "name"), [(1 << 30, "Newton"), (0, "rank 128")])
def test_above_500_classes_the_solver_is_named(
    memory: int, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(linear, "EXACT_MEMORY", memory)
    monkeypatch.setattr(low_rank, "STEPS", 1)
    draw = np.random.default_rng(0)
    for classes in (500, 501):
        features = ColumnBlocks([draw.normal(size=(2 * classes, 4))])
        linear.Regression.fit(features, [*range(classes)] * 2, Linear(C=1e-3), np.ones(classes))
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "501 classes" in warning
    assert name in warning


def test_ten_thousand_classes_take_little_memory() -> None:
    """A weight for each of 10,000 classes and 20,000 features would be 1.6 GB, and an exact solver has 12 of them."""
    program = """
import json, resource
import numpy as np, scipy.sparse as sparse
from tunesmith.models import linear, low_rank
from tunesmith.models.known_ngrams import MANY, KnownNgrams
from tunesmith.models.newton import ColumnBlocks
from tunesmith.models.ngrams import BagOfWords
from tunesmith.recipe import Linear
low_rank.EPOCHS = low_rank.STEPS = 1
columns = np.random.default_rng(0).integers(20_000, size=30_000)
features = sparse.csr_matrix((np.ones(30_000), columns, np.arange(0, 30_001, 10)), shape=(3_000, 20_000))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
regression = linear.Regression.fit(ColumnBlocks([features]), list(range(3_000)), Linear(), np.ones(10_000))
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([(after - before) / 1024, regression.size]))
"""
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    megabytes, parameters = json.loads(output.splitlines()[-1])
    assert parameters == 128 * (20_000 + 10_000) + 10_000
    assert megabytes < 500


@pytest.mark.usefixtures("at_the_optimum")
@pytest.mark.parametrize("vectorizer", ["tfidf", "count"])
@pytest.mark.parametrize("setting", ["none", "balanced"])
@pytest.mark.parametrize("kind", ["two labels", "three labels", "label sets", "numbers"])
def test_a_row_of_weight_n_counts_as_n_rows(kind: str, setting: str, vectorizer: str) -> None:
    names = LABELS[:2] if kind == "two labels" else LABELS
    drawn = np.random.default_rng(0).integers(0, 4, size=90).tolist()
    weighted = [
        Example(str(i), text, label=label, labels=(label,) if i % 7 else (), value=len(text), weight=float(weight))
        for i, ((text, label), weight) in enumerate(zip(tiny.texts(90, labels=names), drawn, strict=True))
        if weight
    ]
    repeated = [replace(row, weight=1.0) for row in weighted for _ in range(int(row.weight))]
    options = Linear(vectorizer=vectorizer, min_df=1)
    outputs = []
    for rows in (weighted, repeated):
        target = {"label sets": MultiLabel(names), "numbers": Number.of(rows)}.get(kind, SingleLabel(names))
        fitted = linear.fit(rows, target, options, target.weights(rows, setting)).predictor
        predictions = fitted.predict(weighted)
        outputs.append([p.value if kind == "numbers" else list(p.probabilities) for p in predictions])
    np.testing.assert_allclose(*outputs, rtol=1e-3, atol=1e-4)


def test_targets_of_saved_regressions() -> None:
    """As they are written now, and as they were: labels alone, of numbers none."""
    targets = [SingleLabel(("a", "b")), MultiLabel(("a", "b"), (0.25, 0.5)), Number(1000.5, 12.25)]
    for target in targets:
        assert text_targets.of_settings(json.loads(json.dumps(text_targets.to_settings(target)))) == target
    assert text_targets.of_settings({"labels": ["a", "b"]}) == targets[0]
    assert text_targets.of_settings({"labels": []}) == Number()


def test_the_number_of_texts_at_once_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    examples = many(200, 30)
    predictor = linear.fit(examples, SingleLabel(names_of(examples)), Linear(), np.ones(30)).predictor
    whole = predictor.predict(examples)
    monkeypatch.setattr(linear, "SCORES_AT_ONCE", 90)
    assert predictor.predict(examples) == whole


def test_a_pair_keeps_its_texts_apart() -> None:
    grams = BagOfWords(Linear(word_ngrams=(1, 1)))
    assert grams(Example("x", "good film", "bad film")) == ["good", "film", "2|bad", "2|film"]


def test_texts_without_known_words_get_the_prior() -> None:
    rows = [Example(str(i), text, label=label) for i, (text, label) in enumerate(tiny.texts(60))]
    predictor = linear.fit(rows, SingleLabel(LABELS), Linear(), np.ones(3)).predictor
    first, second = predictor.predict([Example("a", "zzz"), Example("b", "!!!")])
    assert first.probabilities == second.probabilities


def test_nothing_to_count_is_explained() -> None:
    rows = [Example(str(i), "!", label=label) for i, label in enumerate(("a", "b") * 5)]
    with pytest.raises(TrainingError, match="char_ngrams"):
        linear.fit(rows, SingleLabel(("a", "b")), Linear(), np.ones(2))


def test_class_weights() -> None:
    rows = [Example(str(i), "x", label=label) for i, label in enumerate("aaab")]
    np.testing.assert_allclose(class_weights(rows, ("a", "b"), "balanced"), [4 / 6, 4 / 2])
    np.testing.assert_allclose(class_weights(rows, ("a", "b"), {"b": 3}), [1, 3])
    with pytest.raises(RecipeError, match="names c"):
        class_weights(rows, ("a", "b"), {"c": 3})


MIXED = st.lists(
    st.sampled_from(["ab", "cé", "Ab", "b", "1_", "ß", "Éa", ".", "\n", "ab-cd", "\xff\u0130a", "x\ud800y"]), max_size=9
)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(MIXED, MIXED), min_size=3, max_size=6),
    st.sampled_from([None, (1, 1), (1, 2), (2, 3)]),
    st.sampled_from([None, (2, 4)]),
    st.booleans(),
    st.booleans(),
)
def test_many_texts_are_counted_like_one(
    words: list[tuple[list[str], list[str]]],
    word_ngrams: tuple[int, int] | None,
    char_ngrams: tuple[int, int] | None,
    lowercase: bool,
    paired: bool,
) -> None:
    if word_ngrams is None and char_ngrams is None:
        return
    options = Linear(word_ngrams=word_ngrams, char_ngrams=char_ngrams, lowercase=lowercase)
    examples = [Example("x", " ".join(a), " ".join(b) if paired else None) for a, b in words]
    grams = sorted({gram for example in examples[:-1] for gram in BagOfWords(options)(example)})[::2]
    known = KnownNgrams({gram: number for number, gram in enumerate(grams)}, options)
    many, entries = known.count((examples * MANY)[:MANY]), 0
    for place, example in enumerate(examples * 2):
        one = known.count([example])
        assert many.lengths[place] == one.lengths[0]
        chosen = slice(entries, entries + one.lengths[0])
        assert many.numbers[chosen].tolist() == one.numbers.tolist()
        assert many.counts[chosen].tolist() == one.counts.tolist()
        entries += int(one.lengths[0])
    assert len(many.lengths) == MANY
    assert many.lengths.sum() == len(many.numbers)


def test_predictions_of_many_texts_are_those_of_one_to_the_last_bit() -> None:
    examples = [Example(str(i), text, label=label) for i, (text, label) in enumerate(tiny.texts(MANY + 50))]
    predictor = linear.fit(examples[:90], SingleLabel(LABELS), Linear(char_ngrams=(2, 3)), np.ones(3)).predictor
    assert predictor.predict(examples) == [predictor.predict([example])[0] for example in examples]
