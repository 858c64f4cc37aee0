"""The metrics are scikit-learn's, to 1e-12, and scores.json has the agreed shape."""

import json
import random
import time
import tracemalloc
import warnings
from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics as sk

from tunesmith import records
from tunesmith.errors import RunError
from tunesmith.evaluation import label_pairs, metrics, ordered_labels, probability_scores
from tunesmith.evaluation.intervals import Confidence
from tunesmith.reporting import classification_report
from tunesmith.types import Prediction

CLOSE = {"rel": 1e-12, "abs": 1e-12}


def draw(seed, rows, K, missing=0):
    """Rows of random difficulty: gold, predictions, labels. `missing` labels never occur in gold, some nowhere."""
    generator = np.random.default_rng(seed)
    labels = [f"label {k:03d}" for k in range(K)]
    gold = generator.permutation(K)[: max(1, K - missing)][generator.integers(max(1, K - missing), size=rows)]
    logits = generator.normal(size=(rows, K)) * generator.choice([0.5, 3, 30])
    logits[np.arange(rows), gold] += generator.choice([0, 2, 5])
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = odds / odds.sum(axis=1, keepdims=True)
    predictions = [
        Prediction(str(n), labels[int(row.argmax())], tuple(row.tolist())) for n, row in enumerate(probabilities)
    ]
    return [labels[k] for k in gold], predictions, labels


def sets():
    shapes = np.random.default_rng(0)
    for seed in range(280):
        K = int(shapes.integers(2, 9))
        yield seed, int(shapes.integers(1, 60)), K, int(shapes.integers(0, K))
    for seed in range(20):
        yield seed, int(shapes.integers(100, 400)), 151, int(shapes.integers(0, 100))


def test_headline_is_scikit_learns():
    for shape in sets():
        gold, predictions, labels = draw(*shape)
        assert metrics.headline(gold, predictions, labels) == pytest.approx(
            headline_by_sklearn(gold, predictions, labels), **CLOSE
        ), shape


def headline_by_sklearn(gold, predictions, labels):
    predicted = [prediction.label for prediction in predictions]
    probabilities = np.array([prediction.probabilities for prediction in predictions])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about classes that are missing, which is the point here
        return {
            "accuracy": sk.accuracy_score(gold, predicted),
            "balanced_accuracy": sk.balanced_accuracy_score(gold, predicted),
            "macro_f1": sk.f1_score(gold, predicted, average="macro", zero_division=0),
            "mcc": sk.matthews_corrcoef(gold, predicted),
            "log_loss": sk.log_loss(gold, y_proba=probabilities, labels=labels),
            "brier": brier_by_sklearn(gold, probabilities, labels),
            "ece": ece_by_hand(gold, predictions),
        }


def brier_by_sklearn(gold, probabilities, labels):
    if len(labels) == 2:
        return 2 * sk.brier_score_loss(np.array(gold) == labels[1], probabilities[:, 1], labels=[False, True])
    return sk.brier_score_loss(gold, probabilities, labels=labels, scale_by_half=False)


def ece_by_hand(gold, predictions):
    top = np.array([max(prediction.probabilities) for prediction in predictions])
    right = np.array([prediction.label == label for prediction, label in zip(predictions, gold, strict=True)])
    inside = [(top > low / 10) & (top <= (low + 1) / 10) for low in range(10)]
    return sum(rows.mean() * abs(top[rows].mean() - right[rows].mean()) for rows in inside if rows.any())


def test_tables_are_scikit_learns():
    for shape in list(sets())[::4]:
        gold, predictions, labels = draw(*shape)
        predicted = [prediction.label for prediction in predictions]
        scores = metrics.score(gold, predictions, labels, Confidence(resamples=100, seed=1))
        assert np.array_equal(scores.confusion, sk.confusion_matrix(gold, predicted, labels=labels))
        for average in ("macro", "micro", "weighted"):
            expected = sk.precision_recall_fscore_support(gold, predicted, average=average, zero_division=0)[:3]
            found = [getattr(scores.averages[name], average) for name in ("precision", "recall", "f1")]
            assert found == pytest.approx(expected, **CLOSE)
        each = sk.precision_recall_fscore_support(gold, predicted, labels=labels, zero_division=0)
        for name, values in zip(("precision", "recall", "f1", "support"), each, strict=True):
            assert [getattr(entry, name) for entry in scores.per_class.values()] == pytest.approx(values, **CLOSE)
        assert [entry.predicted for entry in scores.per_class.values()] == [predicted.count(k) for k in labels]


def test_resampled_metrics_are_those_of_the_resampled_rows():
    gold, predictions, labels = draw(5, 40, 4)
    table = metrics.tabulate(gold, predictions, labels)
    draws = np.random.default_rng(1).integers(40, size=(6, 40))
    found = metrics.measure(table, draws)
    for place, rows in enumerate(draws):
        expected = metrics.headline([gold[n] for n in rows], [predictions[n] for n in rows], labels)
        assert {name: values[place] for name, values in found.items()} == pytest.approx(expected, **CLOSE)


def test_score_has_the_agreed_shape_and_equal_bits():
    gold, predictions, labels = draw(3, 200, 3)
    scores = metrics.score(gold, predictions, labels, Confidence(resamples=100, seed=11))
    assert scores == metrics.score(gold, predictions, labels, Confidence(resamples=100, seed=11))
    content = json.loads(json.dumps(records.dump(scores), allow_nan=False))
    assert records.load(metrics.ClassificationScores, content, "scores.json") == scores
    assert list(content) == [
        "rows",
        "invalid",
        "labels",
        "confidence",
        "headline",
        "averages",
        "per_class",
        "confusion",
        "calibration",
    ]
    assert (scores.rows, scores.labels, scores.confidence) == (200, tuple(labels), 0.95)
    assert list(scores.headline) == [
        name for name in metrics.HIGHER_IS_BETTER if name not in ordered_labels.HIGHER_IS_BETTER
    ]
    assert all(entry.low <= entry.value <= entry.high for entry in scores.headline.values())
    kinds = {name: entry.interval for name, entry in scores.headline.items()}
    assert kinds.pop("accuracy") == "wilson"
    assert set(kinds.values()) == {"bootstrap"}
    point = {name: entry.value for name, entry in scores.headline.items()}
    assert point == metrics.headline(gold, predictions, labels)
    other = metrics.score(gold, predictions, labels, Confidence(resamples=100, seed=12)).headline
    assert other["macro_f1"].low != scores.headline["macro_f1"].low
    assert other["accuracy"] == scores.headline["accuracy"]


def test_perfect_predictions():
    predictions = [Prediction(str(n), "ab"[n % 2], (1.0 - n % 2, float(n % 2))) for n in range(50)]
    found = metrics.headline(["ab"[n % 2] for n in range(50)], predictions, "ab")
    best = {"accuracy": 1, "balanced_accuracy": 1, "macro_f1": 1, "mcc": 1, "log_loss": 0, "brier": 0, "ece": 0}
    assert found == pytest.approx(best, abs=1e-15)


def test_one_row_and_a_certain_error_stay_finite():
    scores = metrics.score(["a"], [Prediction("1", "b", (0.0, 1.0))], ["a", "b"], Confidence(resamples=100, seed=0))
    assert scores.headline["log_loss"].value == pytest.approx(36.04, abs=0.01)
    assert scores.headline["brier"].value == 2
    assert scores.headline["accuracy"].low == 0


def test_calibration_bins_are_closed_above():
    tops = [0.6, 0.6, 0.7, 0.71, 1.0]
    predictions = [Prediction(str(n), "a", (top, 1 - top)) for n, top in enumerate(tops)]
    scores = metrics.score(["a", "b", "a", "a", "a"], predictions, ["a", "b"], Confidence(resamples=100, seed=0))
    bins = scores.calibration
    assert [entry.count for entry in bins] == [0, 0, 0, 0, 0, 2, 1, 1, 0, 1]
    assert bins[5] == metrics.CalibrationBin(low=0.5, high=0.6, count=2, confidence=0.6, accuracy=0.5)
    assert bins[0] == metrics.CalibrationBin(low=0.0, high=0.1, count=0, confidence=None, accuracy=None)


@pytest.mark.parametrize(
    ("gold", "prediction", "message"),
    [
        ([], None, "0 rows and 0 predictions"),
        (["a", "a"], Prediction("7", "a", (1.0, 0.0)), "2 rows and 1 predictions"),
        (["c"], Prediction("7", "a", (1.0, 0.0)), "gold label 'c' is not among the labels"),
        (["a"], Prediction("7", "c", (1.0, 0.0)), "predicted label 'c' is not among the labels"),
        (["a"], Prediction("7", "a", (1.0,)), "the prediction of 7 does not fit the labels"),
        (["a"], Prediction("7", "a", (0.4, 0.4)), "7: invalid probabilities"),
        (["a"], Prediction("7", "a", (1.5, -0.5)), "7: invalid probabilities"),
        (["a"], Prediction("7", "a", (float("nan"), 1.0)), "7: invalid probabilities"),
    ],
)
def test_what_cannot_be_scored_is_named(gold, prediction, message):
    with pytest.raises(RunError, match=message):
        metrics.headline(gold, [prediction] if prediction else [], ["a", "b"])


@pytest.mark.parametrize(("rows", "K"), [(12_500, 2), (5_500, 151)])
def test_two_thousand_resamples_take_seconds(rows, K):
    data = draw(0, rows, K)
    start = time.process_time()
    metrics.score(*data, Confidence(seed=0))
    assert time.process_time() - start < 5


def test_rows_without_a_label_are_wrong_as_a_class_of_their_own_would_be() -> None:
    """Against scikit-learn, which sees one more predicted class."""

    chosen = random.Random(3)
    gold = chosen.choices("ab", k=60)
    said = chosen.choices(["a", "b", ""], k=60)
    rows = [Prediction(str(i), one, (0.5, 0.5)) for i, one in enumerate(said)]
    found = metrics.score(gold, rows, ["a", "b"], Confidence(resamples=100, seed=1))
    assert found.invalid == said.count("")
    headline = {name: estimate.value for name, estimate in found.headline.items()}
    assert headline["accuracy"] == pytest.approx(sk.accuracy_score(gold, said))
    assert headline["mcc"] == pytest.approx(sk.matthews_corrcoef(gold, said))
    assert headline["macro_f1"] == pytest.approx(sk.f1_score(gold, said, labels=["a", "b"], average="macro"))
    assert found.averages["precision"].micro == pytest.approx(
        sk.precision_score(gold, said, labels=["a", "b"], average="micro")
    )
    assert sum(map(sum, found.confusion)) == 60 - said.count("")


def test_without_probabilities_the_other_scores_are_the_same() -> None:
    """Also where a single row lacks them; labels that have an order need none."""
    gold, predictions, labels = draw(4, 200, 5)
    predictions[7] = replace(predictions[7], label="")
    values, confidence = (1, 2, 3, 4, 5), Confidence(resamples=100, seed=1)
    whole = metrics.score(gold, predictions, labels, confidence, values)
    assert whole.without_probabilities is None
    assert "without_probabilities" not in records.dump(whole)
    bare = [replace(prediction, probabilities=()) for prediction in predictions]
    for given, without in ((bare, 200), ([*predictions[:-1], bare[-1]], 1)):
        scores = metrics.score(gold, given, labels, confidence, values)
        assert whole.headline.keys() - scores.headline.keys() == {"log_loss", "brier", "ece"}
        assert scores.headline == {name: whole.headline[name] for name in scores.headline}  # intervals, too
        expected = replace(whole, headline=scores.headline, calibration=(), without_probabilities=without)
        assert scores == expected
        assert scores.invalid == 1
        assert records.load(metrics.ClassificationScores, records.dump(scores), "scores.json") == scores
        assert metrics.headline(gold, given, labels).keys() == {"accuracy", "balanced_accuracy", "macro_f1", "mcc"}
    other = draw(9, 200, 5)[1]
    pairs = [label_pairs.compare(gold, {"a": rows, "b": other}, labels, confidence) for rows in (predictions, bare)]
    assert pairs[0] == pairs[1]


def test_probabilities_in_pieces_give_the_same_bits(monkeypatch):
    gold, predictions, labels = draw(1, 300, 40)
    whole = metrics.score(gold, predictions, labels, Confidence(resamples=20))
    monkeypatch.setattr(probability_scores, "CELLS_AT_ONCE", 1)
    assert metrics.score(gold, predictions, labels, Confidence(resamples=20)) == whole


def test_of_many_labels_only_the_mistakes_are_stored(monkeypatch):
    gold, predictions, labels = draw(2, 400, 60)
    predictions[0] = replace(predictions[0], label="")
    full = metrics.score(gold, predictions, labels, Confidence(resamples=20))
    listed = classification_report.confusions(full)
    monkeypatch.setattr(metrics, "FULL_CONFUSION", 59)
    sparse = metrics.score(gold, predictions, labels, Confidence(resamples=20))
    assert sparse.confusion == ()
    assert len(sparse.confusions) == np.count_nonzero(np.array(full.confusion) * (1 - np.eye(60)))
    assert sum(cell.count for cell in sparse.confusions) == sum(map(sum, full.confusion)) - np.trace(full.confusion)
    assert classification_report.confusions(sparse) == listed
    assert replace(sparse, confusion=full.confusion, confusions=None) == full


def test_scores_of_thousands_of_labels_take_little_memory():
    """The predictions are 24 MB; a confusion matrix, or one row of 0 and 1 for each label, would be 72 MB."""
    labels = [f"{k:04d}" for k in range(3000)]
    predictions = [Prediction(str(n), labels[n], np.full(3000, 1 / 3000)) for n in range(1000)]
    tracemalloc.start()
    metrics.score(labels[:1000], predictions, labels, Confidence(resamples=100))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6


def test_resamples_of_few_rows_and_thousands_of_labels_take_little_memory():
    """All 2,000 resamples at once would take four times as much."""
    labels = [f"{k:04d}" for k in range(3000)]
    predictions = [Prediction(str(n), labels[n], np.full(3000, 1 / 3000)) for n in range(30)]
    tracemalloc.start()
    metrics.score(labels[:30], predictions, labels, Confidence(resamples=2000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6
