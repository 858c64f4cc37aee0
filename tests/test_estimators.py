"""The estimators in scikit-learn's own tools, with all forms of texts and targets."""

from __future__ import annotations

import doctest
import pickle
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas
import polars
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, KFold, TunedThresholdClassifierCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from tests import tiny
from tunesmith import TextClassifier, TextMultilabelClassifier, TextRegressor
from tunesmith.errors import DataError, InputError, RecipeError, RunError
from tunesmith.estimators import parameters
from tunesmith.pipeline.fitting.methods import METHODS

ROWS = tiny.texts(120)
TEXTS = [text for text, _ in ROWS]
LABELS = [label for _, label in ROWS]
NAMES = sorted(tiny.WORDS)
SETS = [[name for name in NAMES if any(word in text.split() for word in tiny.WORDS[name])] for text in TEXTS]
INDICATORS = np.array([[int(name in names) for name in NAMES] for names in SETS])
LENGTHS = [len(text.split()) for text in TEXTS]
BINARY = [label == "sport" for label in LABELS]
ESTIMATORS = [TextClassifier, TextMultilabelClassifier, TextRegressor]
TARGETS: dict[type, Any] = {TextClassifier: LABELS, TextMultilabelClassifier: SETS, TextRegressor: LENGTHS}


def test_cross_validation_clone_and_grid_search() -> None:
    classifier = TextClassifier(min_df=1)
    assert cross_val_score(classifier, TEXTS, LABELS, cv=3).mean() > 0.8
    assert clone(classifier).get_params() == classifier.get_params()
    grid = {
        "C": np.array([1e-3, 10.0]),
        "word_ngrams": [(1, 1), ()],
        "char_ngrams": [(2, 3)],
        "min_df": np.arange(1, 2),
    }
    search = GridSearchCV(classifier, grid, cv=3, error_score="raise").fit(TEXTS, LABELS)
    assert search.best_params_["C"] == 10
    assert search.best_score_ > 0.8
    own = GridSearchCV(classifier, {"overrides": [["linear.C=0.001"], ["linear.C=10"]]}, cv=3).fit(TEXTS, LABELS)
    assert own.best_params_ == {"overrides": ["linear.C=10"]}


def test_pipelines_calibration_and_tuned_thresholds() -> None:
    fold = FunctionTransformer(lambda texts: [text.upper() for text in texts])
    pipeline = make_pipeline(fold, TextClassifier(min_df=1)).fit(TEXTS, LABELS)
    assert pipeline.score(TEXTS, LABELS) > 0.9
    for method in ("sigmoid", "isotonic", "temperature"):
        calibrated = CalibratedClassifierCV(TextClassifier(min_df=1), method=method, cv=3).fit(TEXTS, LABELS)
        assert calibrated.score(TEXTS, LABELS) > 0.9
    tuned = TunedThresholdClassifierCV(TextClassifier(min_df=1), scoring="f1", cv=3).fit(TEXTS, BINARY)
    assert 0 < tuned.best_threshold_ < 1
    assert tuned.score(TEXTS, BINARY) > 0.9


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_parameters_are_settings_of_the_recipe(kind: type[Any]) -> None:
    given = {"C": np.float64(3), "word_ngrams": (), "char_ngrams": [2, 3], "min_df": np.int64(1), "random_state": 7}
    given |= {"max_length": 16, "learning_rate": 1e-3, "num_train_epochs": 2, "batch_size": 4, "model": "tiny/model"}
    if kind is not TextRegressor:
        given["class_weight"] = "balanced"
    recipe = kind(**given).set_params(overrides=["linear.lowercase=false"]).fit(TEXTS, TARGETS[kind]).recipe_
    assert (recipe.linear.C, recipe.linear.word_ngrams, recipe.linear.char_ngrams, recipe.linear.min_df) == (
        3,
        None,
        (2, 3),
        1,
    )
    assert (recipe.seed, recipe.linear.lowercase, recipe.model.name_or_path) == (7, False, "tiny/model")
    assert (recipe.model.max_length, recipe.train.learning_rate, recipe.train.num_train_epochs) == (16, 1e-3, 2)
    assert recipe.train.per_device_train_batch_size == 4
    assert recipe.train.class_weights == ("none" if kind is TextRegressor else "balanced")
    plain = kind().fit(TEXTS, TARGETS[kind]).recipe_
    assert (plain.seed, plain.linear.C, plain.linear.min_df) == (42, 1.0 if kind is TextRegressor else 10.0, 2)


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_every_parameter_and_attribute_is_documented(kind: type[Any]) -> None:
    names = {field.name for field in fields(kind)}
    assert names >= set(parameters.SETTINGS) - {"class_weight"}
    fitted = [name for name in vars(kind(min_df=1).fit(TEXTS, TARGETS[kind])) if name.endswith("_")]
    assert all(f"\n{name} : " in kind.__doc__ for name in names)
    assert all(
        f"{name} : " in kind.__doc__ or f"{name}, " in kind.__doc__ or f", {name}" in kind.__doc__ for name in fitted
    )
    examples = doctest.DocTestParser().get_doctest(kind.__doc__, {}, kind.__name__, None, None)
    assert examples.examples
    assert doctest.DocTestRunner().run(examples).failed == 0


def test_the_seed_may_come_from_a_generator(tmp_path: Path) -> None:
    seeds = [TextClassifier(random_state=np.random.RandomState(n)).fit(TEXTS, LABELS).recipe_.seed for n in (1, 1, 2)]
    assert seeds[0] == seeds[1] != seeds[2]
    TextClassifier(random_state=np.random.RandomState(1)).fit(TEXTS, LABELS).save(tmp_path / "saved")
    assert TextClassifier.load(tmp_path / "saved").random_state == seeds[0]


# --- texts and targets


@pytest.mark.parametrize("method", ["probe", "encoder"])
@pytest.mark.parametrize("kind", ESTIMATORS)
def test_neural_methods_save_and_load(
    kind: type[Any], method: str, tiny_models: Callable[[str], Path], tmp_path: Path
) -> None:
    estimator = kind(method, model=tiny_models("bert"), overrides=["max_steps=3"], max_length=32)
    estimator.fit(TEXTS, TARGETS[kind])
    output = getattr(estimator, "predict_proba", estimator.predict)
    expected = output(TEXTS)
    assert expected.shape == ((120,) if kind is TextRegressor else (120, 3))
    estimator.save(tmp_path / "saved")
    loaded = kind.load(tmp_path / "saved")
    np.testing.assert_array_equal(getattr(loaded, output.__name__)(TEXTS), expected)
    assert loaded.get_params() == estimator.get_params() | {"model": str(estimator.model)}


def test_numbers_as_classes_have_an_order(tiny_models: Callable[[str], Path]) -> None:
    classifier = TextClassifier("encoder", model=tiny_models("bert"), overrides=["max_steps=1", "loss=ordinal"])
    assert classifier.fit(TEXTS, [NAMES.index(label) for label in LABELS]).predict(TEXTS).dtype == int
    with pytest.raises(RecipeError, match="labels have no order"):
        classifier.fit(TEXTS, LABELS)


def test_labels_come_back_as_they_were(tmp_path: Path) -> None:
    numbers = np.array([{"sport": 10, "tech": 2, "world": -1}[label] for label in LABELS])
    for labels in (numbers, numbers.astype(float), numbers > 0, np.array(LABELS), np.array(LABELS, dtype=object)):
        classifier = TextClassifier(min_df=1).fit(TEXTS, labels)
        assert classifier.classes_.tolist() == sorted(set(labels.tolist()))
        predicted = classifier.predict(TEXTS)
        assert predicted.dtype == labels.dtype
        assert np.mean(predicted == labels) > 0.9
        classifier.save(tmp_path / "saved")
        loaded = TextClassifier.load(tmp_path / "saved")
        assert loaded.classes_.dtype == labels.dtype
        assert loaded.predict(TEXTS).tolist() == predicted.tolist()


def test_class_weights_are_given_by_class() -> None:
    numbers = [int(label == "sport") for label in LABELS]
    plain, heavy = (
        TextClassifier(min_df=1, C=0.01, class_weight=weight).fit(TEXTS, numbers).predict_proba(TEXTS)[:, 1].mean()
        for weight in (None, {1: 50.0})
    )
    assert heavy > plain + 0.1
    sets = TextMultilabelClassifier(C=0.01, class_weight={1: 50.0}).fit(TEXTS, INDICATORS).predict_proba(TEXTS)
    assert sets[:, 1].mean() > sets[:, 0].mean() + 0.1
    with pytest.raises(RecipeError, match="names 2"):
        TextClassifier(class_weight={2: 1.0}).fit(TEXTS, numbers)


def test_pairs_are_rows_of_two_columns() -> None:
    pairs = list(zip(TEXTS, LABELS, strict=True))
    table = pandas.DataFrame(pairs, columns=["text", "topic"])
    classifier = TextClassifier(min_df=1).fit(table, LABELS)
    assert classifier.score(table, LABELS) == 1.0
    assert (classifier.n_features_in_, list(classifier.feature_names_in_)) == (2, ["text", "topic"])
    expected = classifier.predict_proba(table)
    for same in (pairs, polars.DataFrame(pairs, schema=["text", "topic"], orient="row"), table.to_numpy()):
        np.testing.assert_array_equal(clone(classifier).fit(same, LABELS).predict_proba(same), expected)
    with pytest.raises(ValueError, match="feature names should match"):
        classifier.predict(table[["topic", "text"]])
    with pytest.raises(InputError, match="2 in each row, as in fit"):
        classifier.predict(TEXTS)
    with pytest.raises(InputError, match="1 of 2 rows are pairs"):
        classifier.predict([("a", "b"), "c"])


@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function"])
def test_no_texts_have_no_predictions(method: str) -> None:
    for kind in (TextClassifier, TextMultilabelClassifier):
        assert len(getattr(kind().fit(TEXTS, TARGETS[kind]), method)([])) == 0


# --- decisions


def test_decisions_of_two_classes_follow_the_threshold() -> None:
    classifier = TextClassifier(min_df=1, C=0.1).fit(TEXTS, BINARY)
    probability = classifier.predict_proba(TEXTS)[:, 1]
    np.testing.assert_array_equal(classifier.predict(TEXTS), probability > 0.5)
    np.testing.assert_allclose(classifier.decision_function(TEXTS), np.log(probability / (1 - probability)))
    np.testing.assert_allclose(np.exp(classifier.predict_log_proba(TEXTS)[:, 1]), probability)
    cut = float(np.quantile(probability, 0.2))
    np.testing.assert_array_equal(classifier.set_params(threshold=cut).predict(TEXTS), probability >= cut)
    for wrong in (classifier.set_params(threshold=2), TextClassifier(threshold=0.5).fit(TEXTS, BINARY)):
        with pytest.raises(InputError, match="cannot decide with threshold"):
            wrong.fit(TEXTS, LABELS)


def test_decisions_of_many_classes_are_log_probabilities() -> None:
    classifier = TextClassifier().fit(TEXTS, LABELS)
    decided = classifier.decision_function(TEXTS)
    np.testing.assert_array_equal(decided, classifier.predict_log_proba(TEXTS))
    np.testing.assert_array_equal(classifier.classes_[decided.argmax(axis=1)], classifier.predict(TEXTS))


# --- sets of labels


def test_sets_of_labels_are_predicted_in_the_form_that_was_fitted(tmp_path: Path) -> None:
    classifier = TextMultilabelClassifier(min_df=1).fit(TEXTS, SETS)
    expected, sets = classifier.predict_proba(TEXTS), classifier.predict(TEXTS)
    assert classifier.classes_.tolist() == NAMES
    assert sets[0] == [name for name, probability in zip(NAMES, expected[0], strict=True) if probability >= 0.5]
    table = pandas.DataFrame(INDICATORS, columns=NAMES, index=range(5, 125))
    forms: list[tuple[Any, Callable[[Any], Any]]] = [
        (pandas.Series(SETS), list),
        (polars.Series(SETS), list),
        ([set(names) for names in SETS], list),
        (INDICATORS, np.ndarray.tolist),
        (INDICATORS.tolist(), np.ndarray.tolist),
        (INDICATORS > 0, np.ndarray.tolist),
        (table, lambda frame: frame.to_numpy().tolist()),
        (polars.DataFrame(table), lambda frame: frame.to_numpy().tolist()),
    ]
    for y, listed in forms:
        same = clone(classifier).fit(TEXTS, y)
        np.testing.assert_array_equal(same.predict_proba(TEXTS), expected)
        assert listed(same.predict(TEXTS)) == (sets if listed is list else [[int(n in s) for n in NAMES] for s in sets])
        assert same.score(TEXTS, y) == classifier.score(TEXTS, SETS) > 0.9
        same.save(tmp_path / "saved")
        loaded = TextMultilabelClassifier.load(tmp_path / "saved")
        assert type(loaded.predict(TEXTS)) is type(same.predict(TEXTS))
        assert listed(loaded.predict(TEXTS)) == listed(same.predict(TEXTS))
    texts = pandas.Series(TEXTS, index=range(50, 170))
    framed = clone(classifier).fit(TEXTS, table).predict(texts)
    assert list(framed.columns) == NAMES
    assert framed.index.equals(texts.index)
    assert clone(classifier).fit(TEXTS, INDICATORS > 0).predict(TEXTS).dtype == bool


def test_thresholds_of_labels() -> None:
    classifier = TextMultilabelClassifier(min_df=1).fit(TEXTS, SETS)
    probabilities = classifier.predict_proba(TEXTS)
    for threshold, each in ((0.3, [0.3] * 3), ({"tech": 0.9}, [0.5, 0.9, 0.5]), ([0.1, 0.2, 0.9], [0.1, 0.2, 0.9])):
        predicted = classifier.set_params(threshold=threshold).predict(TEXTS)
        assert predicted == [[n for n, p, t in zip(NAMES, row, each, strict=True) if p >= t] for row in probabilities]
    np.testing.assert_allclose(classifier.decision_function(TEXTS), np.log(probabilities / (1 - probabilities)))
    for wrong in ({"art": 0.5}, [0.5, 0.5], 7.0):
        with pytest.raises(InputError, match="cannot decide with threshold"):
            classifier.set_params(threshold=wrong).predict(TEXTS)


def test_scores_of_label_sets_count_labels_that_were_not_fitted() -> None:
    classifier = TextMultilabelClassifier(min_df=1).fit(TEXTS, SETS)
    right = classifier.predict(TEXTS)
    assert classifier.score(TEXTS, right) == 1.0
    assert classifier.score(TEXTS, [["art"], *right[1:]]) == pytest.approx(119 / 120)
    assert cross_val_score(TextMultilabelClassifier(min_df=1), TEXTS, INDICATORS, cv=3).mean() > 0.6
    assert cross_val_score(TextMultilabelClassifier(min_df=1), TEXTS, SETS, cv=KFold(3)).mean() > 0.6


def test_a_column_without_rows_is_a_label_that_is_never_predicted() -> None:
    table = np.hstack([INDICATORS, np.zeros((120, 1), dtype=int)])
    for weight in (None, "balanced"):
        classifier = TextMultilabelClassifier(class_weight=weight).fit(TEXTS, table)
        assert classifier.predict(TEXTS)[:, 3].sum() == 0


# --- numbers


def test_regression_of_texts_and_pairs() -> None:
    regressor = TextRegressor(min_df=1)
    assert regressor.fit(TEXTS, LENGTHS).score(TEXTS, LENGTHS) > 0.8
    counts = TextRegressor(min_df=1, word_ngrams=(1, 1), overrides=["vectorizer=count"])
    assert cross_val_score(counts, TEXTS, LENGTHS, cv=3).mean() > 0.8
    pairs = pandas.DataFrame({"first": TEXTS, "second": TEXTS[::-1]})
    assert regressor.fit(pairs, pandas.Series(LENGTHS)).predict(pairs).shape == (120,)
    np.testing.assert_allclose(regressor.fit(TEXTS, [3] * 120).predict(TEXTS[:2]), 3)


# --- weights of rows


@pytest.mark.parametrize("vectorizer", ["tfidf", "count"])
@pytest.mark.parametrize("kind", ESTIMATORS)
def test_rows_of_integer_weights_are_repeated_rows(kind: type[Any], vectorizer: str) -> None:
    weights = np.random.default_rng(0).integers(0, 4, 120)
    repeated = [i for i, weight in enumerate(weights) for _ in range(weight)]
    estimator = kind(min_df=1, overrides=[f"vectorizer={vectorizer}"])
    first = clone(estimator).fit(TEXTS, TARGETS[kind], sample_weight=weights)
    second = clone(estimator).fit([TEXTS[i] for i in repeated], [TARGETS[kind][i] for i in repeated])
    output = "predict" if kind is TextRegressor else "predict_proba"
    np.testing.assert_allclose(getattr(first, output)(TEXTS), getattr(second, output)(TEXTS), rtol=2e-3, atol=2e-3)
    plain = clone(estimator).fit(TEXTS, TARGETS[kind])
    assert np.abs(getattr(first, output)(TEXTS) - getattr(plain, output)(TEXTS)).max() > 0.02


def test_weights_are_checked() -> None:
    with pytest.raises(ValueError, match="Negative"):
        TextClassifier().fit(TEXTS, LABELS, sample_weight=[-1] * 120)
    with pytest.raises(ValueError, match=r"expected \(120,\)"):
        TextClassifier().fit(TEXTS, LABELS, sample_weight=[1] * 119)
    with pytest.raises(RecipeError, match="expected: method linear, probe"):
        TextClassifier("generator:untuned").fit(TEXTS, LABELS, sample_weight=[1] * 120)


# --- files


def test_what_is_saved_loads_with_its_parameters(tmp_path: Path) -> None:
    classifier = TextClassifier(min_df=1, word_ngrams=(1, 1), class_weight={np.True_: np.float32(2)}, threshold=0.4)
    classifier.fit(TEXTS, BINARY).save(tmp_path / "deep" / "saved")
    loaded = TextClassifier.load(tmp_path / "deep" / "saved")
    assert loaded.class_weight == {True: 2.0}
    assert loaded.get_params() == classifier.get_params()
    np.testing.assert_array_equal(loaded.predict_proba(TEXTS), classifier.predict_proba(TEXTS))
    assert loaded.recipe_ == classifier.recipe_
    with pytest.raises(RunError, match=r"use TextClassifier\.load"):
        TextRegressor.load(tmp_path / "deep" / "saved")
    with pytest.raises(RunError, match="not a saved estimator"):
        TextClassifier.load(tmp_path / "deep")
    with pytest.raises(RunError, match="not a saved estimator"):
        classifier.save(tmp_path / "deep")
    (tmp_path / "deep" / "saved" / "model" / "linear.json").write_text("{}")
    with pytest.raises(RunError, match="damaged"):
        TextClassifier.load(tmp_path / "deep" / "saved")
    with pytest.raises(NotFittedError):
        TextClassifier().save(tmp_path / "other")


@pytest.mark.parametrize("method", ["linear", "probe", "encoder"])
def test_fitted_estimators_can_be_pickled(method: str, tiny_models: Callable[[str], Path], tmp_path: Path) -> None:
    classifier = TextClassifier(method, model=str(tiny_models("bert")), overrides=["max_steps=1"]).fit(TEXTS, LABELS)
    joblib.dump(classifier, tmp_path / "classifier.joblib")
    for same in (joblib.load(tmp_path / "classifier.joblib"), pickle.loads(pickle.dumps(classifier))):
        np.testing.assert_array_equal(same.predict_proba(TEXTS), classifier.predict_proba(TEXTS))


# --- errors


def test_bad_input_is_explained() -> None:
    for kind in ESTIMATORS:
        with pytest.raises(NotFittedError):
            kind().predict(TEXTS)
    for labels, problem in (
        ([[label, label] for label in LABELS], "1d array"),
        (LABELS[:-1], "120 texts, 119 targets"),
        (["a"] * 120, "same label"),
        ([None, *LABELS[1:]], "labels are missing"),
        (pandas.Series([pandas.NA, *LABELS[1:]], dtype=object), "labels are missing"),
        ([float("nan"), *[0.0, 1.0, 2.0] * 39, 1.0, 2.0], "NaN"),
        (np.linspace(0, 1, 120), "continuous"),
        (None, "target y is None"),
    ):
        with pytest.raises(ValueError, match=problem):
            TextClassifier().fit(TEXTS, labels)
    for sets in (LABELS, INDICATORS * 2, [[]] * 120, INDICATORS[:, 0], [["a"], ["b", None]] * 60, [[1], [0, 1]] * 60):
        with pytest.raises(InputError, match="cannot read labels"):
            TextMultilabelClassifier().fit(TEXTS, sets)
    with pytest.raises(InputError, match="no row has a label"):
        TextMultilabelClassifier().fit(TEXTS, INDICATORS * 0)
    with pytest.raises(ValueError, match="NaN"):
        TextRegressor().fit(TEXTS, [float("nan"), *LENGTHS[1:]])
    with pytest.raises(DataError, match="cannot read row 1"):
        TextClassifier().fit(["good", None], [0, 1])
    with pytest.raises(InputError, match="there are no texts"):
        TextClassifier().fit([], [])
    with pytest.warns(DataConversionWarning):
        TextRegressor().fit(TEXTS, np.array(LENGTHS)[:, None])


def test_bad_parameters_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong, problem in (
        ({"C": -1}, "linear.C: input should be greater than 0"),
        ({"method": "forest"}, "no method 'forest'"),
        ({"overrides": ["task=regression"]}, "have no effect here"),
        ({"overrides": ["data.text=body"]}, "have no effect here"),
        ({"overrides": ["decide.calibration=temperature"]}, "have no effect here"),
    ):
        with pytest.raises(RecipeError, match=problem):
            TextClassifier(**wrong).fit(TEXTS, LABELS)
    monkeypatch.setattr(METHODS["linear"], "tasks", ("classification",))
    with pytest.raises(RecipeError, match="linear cannot learn task regression"):
        TextRegressor().fit(TEXTS, LENGTHS)
