"""Intervals cover what they say, and p values are those of the textbooks."""

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from tunesmith.evaluation import intervals
from tunesmith.evaluation.metrics import accuracy, count, every_row, macro_f1, tabulate as tabulate_rows
from tunesmith.types import Prediction


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 20), (20, 20), (7, 10), (388, 425), (12_000, 12_500)])
def test_wilson_is_scipys(successes, n, confidence):
    expected = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert intervals.wilson(successes, n, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("share", [0.5, 0.75, 0.85, 0.95])
def test_wilson_covers_the_truth(share):
    # Exact: the probability of every outcome of 300 rows whose interval holds the truth.
    held = [low <= share <= high for low, high in (intervals.wilson(k, 300, 0.95) for k in range(301))]
    assert 0.93 <= binom.pmf(np.arange(301), 300, share)[held].sum() <= 0.97


def test_the_bootstrap_covers_the_truth():
    # P(gold, predicted) of three uneven classes; 500 sets of 300 rows. The share of intervals that hold the truth has
    # a standard error of sqrt(.95 * .05 / 500) = 1%, so three of them make the band.
    joint = np.array([[0.42, 0.05, 0.03], [0.06, 0.22, 0.02], [0.04, 0.03, 0.13]])
    f1 = 2 * joint.diagonal() / (joint.sum(0) + joint.sum(1))
    truth = {"accuracy": joint.trace(), "macro_f1": f1.mean()}
    held = dict.fromkeys(truth, 0)
    generator = np.random.default_rng(7)
    for seed in range(500):
        table = tabulate(*np.divmod(generator.choice(9, size=300, p=joint.ravel()), 3))
        values = measure(table, every_row(table))
        resampled = intervals.bootstrap(lambda draws, table=table: measure(table, draws), 300, 300, seed)
        for name, value in truth.items():
            low, high = intervals.percentile(float(values[name][0]), resampled[name], 0.95)
            held[name] += low <= value <= high
    assert all(0.92 <= times / 500 <= 0.98 for times in held.values()), held


def tabulate(gold, predicted):
    predictions = [Prediction(str(row), "abc"[k], (1.0, 0.0, 0.0)) for row, k in enumerate(predicted)]
    return tabulate_rows(["abc"[k] for k in gold], predictions, "abc")


def measure(table, draws):
    counts = count(table, draws)
    return {"accuracy": accuracy(counts), "macro_f1": macro_f1(counts)}


def test_resamples_are_seeded_and_do_not_depend_on_the_chunks(monkeypatch):
    whole = np.concatenate(list(intervals.resamples(70, 30, seed=3)))
    assert whole.shape == (30, 70)
    assert whole.min() == 0
    assert whole.max() == 69
    monkeypatch.setattr(intervals, "DRAWS_AT_ONCE", 500)
    chunks = list(intervals.resamples(70, 30, seed=3))
    assert [len(chunk) for chunk in chunks] == [7, 7, 7, 7, 2]
    assert (np.concatenate(chunks) == whole).all()
    assert (np.concatenate(list(intervals.resamples(70, 30, seed=4))) != whole).any()


def test_the_percentile_interval_holds_its_value():
    resampled = np.linspace(0.0, 1.0, 1001)
    assert intervals.percentile(0.5, resampled, 0.9) == pytest.approx((0.05, 0.95))
    assert intervals.percentile(0.01, resampled, 0.9) == pytest.approx((0.01, 0.95))


@pytest.mark.filterwarnings("error")
def test_where_no_resample_defines_a_statistic_the_interval_is_the_value():
    def measure(draws_BN):  # only where all three rows were drawn
        of_draw = [4.5 if len(set(draw)) == 3 and np.all(draw[:-1] < draw[1:]) else np.nan for draw in draws_BN]
        return {"rare": np.array(of_draw), "common": draws_BN.mean(axis=1)}

    confidence = intervals.Confidence(resamples=5, seed=0)
    assert np.isnan(intervals.bootstrap(measure, 3, 5, 0)["rare"]).all()
    estimates = intervals.estimates(measure, 3, confidence, "bootstrap")
    assert estimates["rare"] == intervals.Estimate(4.5, 4.5, 4.5, "bootstrap")
    assert estimates["common"].low < 1 < estimates["common"].high
    assert intervals.percentile(0.25, np.zeros(0), 0.95) == (0.25, 0.25)


def test_bootstrap_p_is_never_zero_and_never_above_one():
    assert intervals.bootstrap_p(np.ones(1999)) == 2 / 2000
    assert intervals.bootstrap_p(-np.ones(1999)) == 2 / 2000
    assert intervals.bootstrap_p(np.zeros(1999)) == 1
    assert intervals.bootstrap_p(np.array([-1.0] * 9 + [1.0] * 90)) == pytest.approx(0.2)


@pytest.mark.parametrize(("only_a", "only_b"), [(1, 0), (3, 3), (0, 5), (9, 1), (12, 30), (400, 520), (5000, 6000)])
def test_mcnemar_is_the_exact_binomial_test(only_a, only_b):
    expected = binomtest(only_a, only_a + only_b).pvalue
    assert intervals.mcnemar_exact(only_a, only_b) == pytest.approx(expected, rel=1e-9)
    assert intervals.mcnemar_exact(only_b, only_a) == intervals.mcnemar_exact(only_a, only_b)


def test_mcnemar_by_hand():
    assert intervals.mcnemar_exact(0, 0) == 1
    assert intervals.mcnemar_exact(1, 9) == pytest.approx(2 * (1 + 10) / 2**10)


def test_holm_by_hand():
    # 0.01 x 4 = 0.04; 0.02 x 3 = 0.06; 0.022 x 2 = 0.044, lifted to 0.06; 0.7 x 1.
    assert intervals.holm([0.7, 0.01, 0.022, 0.02]) == pytest.approx([0.7, 0.04, 0.06, 0.06])
    assert intervals.holm([0.6, 0.5]) == [1.0, 1.0]
    assert intervals.holm([0.03]) == [0.03]
    assert intervals.holm([]) == []


def test_holm_is_the_step_down_definition():
    generator = np.random.default_rng(0)
    for _ in range(100):
        p = generator.random(int(generator.integers(1, 12))) ** 3
        order = np.argsort(p)
        stepped = np.maximum.accumulate(np.minimum(1, p[order] * np.arange(len(p), 0, -1)))
        expected = np.empty_like(p)
        expected[order] = stepped
        assert intervals.holm(p.tolist()) == pytest.approx(expected.tolist(), abs=0)
