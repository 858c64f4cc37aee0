"""Scores of label sets against scikit-learn, thresholds, and what paired tests find where they must, and where not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as sklearn_metrics

from tunesmith import records
from tunesmith.errors import RunError
from tunesmith.evaluation import multilabel_scores
from tunesmith.evaluation.intervals import Confidence
from tunesmith.tasks.multilabel import MultiLabel
from tunesmith.types import Example, MultilabelPredictionRow

LABELS = ("a", "b", "c", "d", "never")
CONFIDENCE = Confidence(resamples=300, seed=1)


def drawn(rows: int, noise: float, seed: int = 0) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Gold labels (the last one never) and probabilities that follow them, with ties."""
    draw = np.random.default_rng(seed)
    known = draw.random((rows, len(LABELS))) < [0.5, 0.3, 0.2, 0.05, 0]
    scores = np.where(known, 1.0, -1.0) + noise * np.random.default_rng(seed + 1).normal(size=known.shape)
    return known, np.round(1 / (1 + np.exp(-scores)), 2)


def rows(known: NDArray[np.bool_], probability: NDArray[np.float64]) -> list[MultilabelPredictionRow]:
    return [
        MultilabelPredictionRow(
            str(n),
            tuple(label for label, p in zip(LABELS, probability[n], strict=True) if p >= 0.5),
            probability[n].tolist(),
            tuple(label for label, has in zip(LABELS, known[n], strict=True) if has),
        )
        for n in range(len(known))
    ]


def test_metrics_are_those_of_scikit_learn() -> None:
    known, probability = drawn(400, 1.5)
    predicted = probability >= 0.5
    occurs = known.any(axis=0)
    expected = {
        **{
            f"{average}_f1": sklearn_metrics.f1_score(known, predicted, average=average, zero_division=0)
            for average in ("macro", "micro", "weighted")
        },
        "micro_precision": sklearn_metrics.precision_score(known, predicted, average="micro"),
        "micro_recall": sklearn_metrics.recall_score(known, predicted, average="micro"),
        "subset_accuracy": sklearn_metrics.accuracy_score(known, predicted),
        "hamming_loss": sklearn_metrics.hamming_loss(known, predicted),
        "label_ranking_ap": sklearn_metrics.label_ranking_average_precision_score(known, probability),
        "mean_average_precision": sklearn_metrics.average_precision_score(known[:, occurs], probability[:, occurs]),
        "log_loss": np.mean(
            [sklearn_metrics.log_loss(known[:, k], probability[:, k], labels=[0, 1]) for k in range(5)]
        ),
    }
    found = multilabel_scores.headline(rows(known, probability), LABELS)
    assert found == pytest.approx(expected)
    scores = multilabel_scores.score(rows(known, probability), LABELS, CONFIDENCE)
    assert {name: estimate.value for name, estimate in scores.headline.items()} == found
    assert all(estimate.low <= estimate.value <= estimate.high for estimate in scores.headline.values())
    precision, recall, f1, support = sklearn_metrics.precision_recall_fscore_support(known, predicted, zero_division=0)
    assert [s.f1 for s in scores.per_label.values()] == pytest.approx(f1)
    assert [s.precision for s in scores.per_label.values()] == pytest.approx(precision)
    assert [s.recall for s in scores.per_label.values()] == pytest.approx(recall)
    assert [s.support for s in scores.per_label.values()] == support.tolist()
    assert scores.per_label["never"].average_precision is None


def test_a_resample_is_scored_as_its_rows_are() -> None:
    table = multilabel_scores.tabulate(rows(*drawn(60, 1.5)), LABELS)
    draws = np.random.default_rng(3).integers(60, size=(4, 60))
    found = multilabel_scores.measure(table, draws)
    for b, draw in enumerate(draws):
        known, probability = table.known[draw], table.probability[draw]
        alone = multilabel_scores.headline(rows(known, probability), LABELS)
        assert {name: values[b] for name, values in found.items()} == pytest.approx(alone)


def test_without_probabilities_the_other_scores_are_the_same() -> None:
    known, probability = drawn(60, 1.5)
    given = rows(known, probability)
    whole = multilabel_scores.score(given, LABELS, CONFIDENCE)
    bare = [replace(row, probabilities=()) for row in given]
    for some, without in ((bare, 60), ([bare[0], *given[1:]], 1)):
        scores = multilabel_scores.score(some, LABELS, CONFIDENCE)
        missing = {"label_ranking_ap", "mean_average_precision", "log_loss"}
        assert whole.headline.keys() - scores.headline.keys() == missing
        assert scores.headline == {name: whole.headline[name] for name in scores.headline}
        blank = {
            label: replace(each, average_precision=None, threshold=None) for label, each in whole.per_label.items()
        }
        expected = replace(whole, headline=scores.headline, per_label=blank, without_probabilities=without)
        assert scores == expected
        assert records.load(multilabel_scores.MultilabelScores, records.dump(scores), "scores.json") == scores
    pairs = [multilabel_scores.compare({"a": some, "b": given}, LABELS, CONFIDENCE) for some in (given, bare)]
    assert pairs[0] == pairs[1]
    with pytest.raises(RunError, match=r"expected: 5 numbers from 0 to 1\n *found: 2 numbers"):
        multilabel_scores.tabulate([bare[0], replace(given[1], probabilities=(0.1, 0.2))], LABELS)


def test_pairs() -> None:
    known, close = drawn(400, 1.0)
    _, far = drawn(400, 3.0)
    methods = {"close": rows(known, close), "far": rows(known, far), "again": rows(known, close)}
    better, same, _ = multilabel_scores.compare(methods, LABELS, CONFIDENCE)
    assert better.distinguishable
    assert better.differences["macro_f1"].value > 0
    assert not same.distinguishable
    assert same.differences["micro_f1"].value == 0


def test_a_label_of_probability_0_is_never_predicted() -> None:
    """Even where predicting it always had a higher F1: of written lists, what is not written does not apply."""
    known = np.array([[True, True, True, False, False]] * 3 + [[False, True, True, False, False]])
    given = np.array([[0, 0, 1, 1, 0]] * 2 + [[0, 1, 1, 0, 0]] * 2, dtype=float)
    target, _ = MultiLabel(LABELS).decide(rows(known, given), None, 0)
    assert target.thresholds == (0.5, 0.5, 0.5, 0.5, 0.5)


def test_thresholds_have_the_highest_f1_of_all() -> None:
    known, probability = drawn(200, 2.0)
    target = MultiLabel(LABELS).decide(rows(known, probability), None, 0)[0]
    for k in range(4):
        cuts = np.unique(np.append(probability[:, k], 1.1))
        best = max(sklearn_metrics.f1_score(known[:, k], probability[:, k] >= cut) for cut in cuts)
        chosen = sklearn_metrics.f1_score(known[:, k], probability[:, k] >= target.thresholds[k])
        assert chosen == pytest.approx(best)
    assert target.thresholds[4] == 0.5
    logits = np.log(np.clip(probability, 1e-9, 1 - 1e-9) / np.clip(1 - probability, 1e-9, 1))
    examples = [Example(str(n), "text") for n in range(200)]
    labelled = target.predictions(examples, logits)
    expected = probability >= np.array(target.thresholds)
    assert [len(row.labels) for row in labelled] == expected.sum(axis=1).tolist()


def test_what_cannot_be_scored() -> None:
    good = rows(*drawn(5, 1.0))
    with pytest.raises(RunError, match="no predictions"):
        multilabel_scores.headline([], LABELS)
    with pytest.raises(RunError, match="'z' is not among the labels"):
        multilabel_scores.headline([*good, MultilabelPredictionRow("z", (), [0.5] * 5, ("z",))], LABELS)
    with pytest.raises(RunError, match="invalid probabilities"):
        multilabel_scores.headline([*good, MultilabelPredictionRow("x", (), [0.5] * 4 + [float("nan")], ())], LABELS)
