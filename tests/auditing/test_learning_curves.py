"""Power laws of learning curves: what they say came true where it was hidden, and nothing is said where none holds."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from tunesmith.auditing import learning_curves, power_law
from tunesmith.auditing.learning_curves import CurveMetric, LearningCurveAudit, MeasuredCurve, MeasuredLevel
from tunesmith.evaluation.intervals import Confidence, Estimate

ACCURACY = CurveMetric("accuracy", "accuracy", higher_is_better=True)
SEEDS = (1, 2, 3)
TEST_ROWS, DRAWS = 1000, 300
Law = Callable[[float], float]


def curve(law: Law, rows: int, seed: int, method: str = "linear") -> tuple[MeasuredCurve, float]:
    """Accuracies of a method whose true error is `law`, and its accuracy with twice the rows.

    Which test rows are wrong differs a little between trainings, and what the rows at hand teach is better or worse
    than the law for all of their parts alike.
    """
    draw = np.random.default_rng(seed)
    hardness_N = np.random.default_rng(0).random(TEST_ROWS)  # one test split for all
    draws_BN = np.random.default_rng(0).integers(TEST_ROWS, size=(DRAWS, TEST_ROWS))
    luck = draw.normal(0, 0.5)

    def right(count: float, own: float, share: float) -> np.ndarray:
        error = law(count) + (luck * np.sqrt(share) + own * np.sqrt(1 - share)) / np.sqrt(count)
        ranks_N = np.argsort(np.argsort(hardness_N + draw.normal(0, 0.1, TEST_ROWS))) / TEST_ROWS
        return (ranks_N >= error).astype(float)

    sizes = learning_curves.sizes(rows, labels=4)
    scores, resampled = np.zeros((len(SEEDS), len(sizes))), np.zeros((len(SEEDS), len(sizes), DRAWS))
    for s, size in enumerate(sizes):
        for r in range(len(SEEDS)):
            if size == rows and r:  # all rows are the same rows for every seed
                scores[r, s], resampled[r, s] = scores[0, s], resampled[0, s]
                continue
            right_N = right(size, draw.normal(0, 0.5), size / rows)
            scores[r, s], resampled[r, s] = right_N.mean(), right_N[draws_BN].mean(axis=1)
    later = right(2 * rows, draw.normal(0, 0.5), 0.5).mean()
    return MeasuredCurve(method, sizes, scores, resampled), float(later)


def audited(*curves: MeasuredCurve | MeasuredLevel, metric: CurveMetric = ACCURACY) -> LearningCurveAudit:
    return learning_curves.audit_curves(curves, metric, TEST_ROWS, SEEDS, Confidence(0.95, DRAWS, 42))


@pytest.mark.parametrize("law", [lambda n: 0.08 + 1.2 * n**-0.5, lambda n: 0.02 + 0.9 * n**-0.3, lambda n: 0.2])
def test_what_the_band_says_of_hidden_rows_comes_true(law: Law) -> None:
    believed = covered = gained = expected = 0
    for seed in range(25):
        measured, later = curve(law, 4000, seed)
        (method,) = audited(measured).methods
        if method.rejected is None and method.gain is not None:
            believed += 1
            score = method.band[-1].score
            covered += score.low <= later <= score.high
            gained += method.gain.low <= later - measured.scores[:, -1].mean() <= method.gain.high
            expected += method.gain.low <= law(4000) - law(8000) <= method.gain.high
    assert believed >= 20
    assert covered >= 0.9 * believed
    assert gained >= 0.88 * believed
    assert expected >= 0.95 * believed


@pytest.mark.parametrize(
    "law", [lambda n: 0.3 - 0.15 * (n > 700), lambda n: 0.1 + 1.0 * n**-0.5 + 0.1 * np.sin(2 * np.log(n))]
)
def test_nothing_is_said_where_no_power_law_holds(law: Law) -> None:
    audits = [audited(curve(law, 4000, seed)[0]) for seed in range(20)]
    silent = [audit for audit in audits if audit.methods[0].gain is None]
    assert len(silent) >= 17
    for audit in silent:
        assert audit.methods[0].band == ()
        assert "cannot be told" in audit.findings[0].headline


def test_a_law_begins_where_learning_begins() -> None:
    """With few rows a model guesses: 0.75 wrong of four labels. The law is that of more rows."""
    found = [
        method.law
        for seed in range(10)
        for method in audited(curve(lambda n: min(0.75, 0.05 + 12 * n**-0.6), 8000, seed)[0]).methods
        if method.rejected is None
    ]
    assert len(found) >= 7
    assert min(law.from_rows for law in found) >= 62
    assert np.median([law.exponent for law in found]) == pytest.approx(0.6, abs=0.15)


def test_where_methods_cross() -> None:
    """The errors are equal at 1,000 rows."""
    flat, _ = curve(lambda n: 0.2 + 0.5 * (n**-0.5 - 1000**-0.5), 8000, 1, "linear")
    steep, _ = curve(lambda n: 0.2 + 5.0 * (n**-0.5 - 1000**-0.5), 8000, 2, "encoder")
    audit = audited(flat, steep)
    (crossing,) = audit.crossings
    assert (crossing.method, crossing.overtaken) == ("encoder", "linear")
    assert crossing.rows.low <= 1000 <= crossing.rows.high
    assert crossing.rows.high < 8000
    headline = audit.findings[-1].headline
    assert headline.startswith("encoder overtakes linear at about ")
    assert audited(steep, flat).crossings[0].method == "encoder"
    assert audited(flat, flat).crossings == ()


def level(error: float, seed: int = 7, method: str = "endpoint:small") -> MeasuredLevel:
    """The accuracy of a method with this error on the same test rows."""
    draws_BN = np.random.default_rng(0).integers(TEST_ROWS, size=(DRAWS, TEST_ROWS))
    right_N = np.random.default_rng(seed).permutation(TEST_ROWS) >= round(error * TEST_ROWS)
    return MeasuredLevel(method, float(right_N.mean()), right_N[draws_BN].mean(axis=1))


def test_where_a_method_overtakes_one_that_learns_nothing() -> None:
    """The errors are equal at 294 rows."""
    audits = [audited(level(0.15), curve(lambda n: 0.08 + 1.2 * n**-0.5, 4000, seed)[0]) for seed in range(14)]
    crossings = [crossing for audit in audits for crossing in audit.crossings]
    assert len(crossings) >= 11
    assert {(crossing.method, crossing.overtaken) for crossing in crossings} == {("linear", "endpoint:small")}
    assert sum(crossing.rows.low <= 294 <= crossing.rows.high for crossing in crossings) >= len(crossings) - 1
    assert np.median([crossing.rows.value for crossing in crossings]) == pytest.approx(294, rel=0.2)
    first = audits[0]
    assert first.methods[0].level == Estimate.of(0.85, level(0.15).resampled, 0.95)
    assert first.methods[0].points == ()
    assert (first.train_rows, len(first.gains)) == (4000, 1)


def test_methods_cross_where_no_law_holds() -> None:
    """The first is better from 700 rows on, at once: between 500 and 1,000, the sizes beside."""
    for seed in range(5):
        audit = audited(curve(lambda n: 0.35 - 0.25 * (n > 700), 4000, seed)[0], level(0.22))
        assert audit.methods[0].gain is None
        (crossing,) = audit.crossings
        assert 500 <= crossing.rows.low <= crossing.rows.value <= crossing.rows.high <= 1000


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (0.02, "endpoint:small is better than linear at every size, from 32 training rows to 4,000."),
        (0.5, "linear is better than endpoint:small at every size, from 32 training rows to 4,000."),
        (0.1, "endpoint:small is better than linear up to about N training rows; with more, that may be chance."),
        (0.28, "linear is better than endpoint:small from about N training rows on; with fewer, that may be chance."),
    ],
)
def test_who_is_better_where_nobody_is_overtaken(error: float, said: str) -> None:
    audit = audited(curve(lambda n: 0.08 + 1.2 * n**-0.5, 4000, 3)[0], level(error))
    assert audit.crossings == ()
    (comparison,) = audit.comparisons
    assert re.sub(r"(?<=about )[\d,]+", "N", comparison.headline) == said


def test_equal_methods_do_not_cross() -> None:
    for seed in range(20):
        pair = [curve(lambda n: 0.08 + 1.2 * n**-0.5, 4000, 2 * seed + k, f"method {k}")[0] for k in range(2)]
        assert audited(*pair).crossings == ()
    audit = audited(level(0.2, method="a"), level(0.1, method="b"), pair[0])
    assert len(audit.comparisons) == 2  # the two that learn nothing are compared by a test elsewhere


def test_errors_that_are_not_shares() -> None:
    measured, _ = curve(lambda n: 0.08 + 1.2 * n**-0.5, 4000, 0)
    rmse = MeasuredCurve("probe", measured.rows, 40 * (1 - measured.scores), 40 * (1 - measured.resampled))
    audit = audited(rmse, metric=CurveMetric("rmse", "RMSE", higher_is_better=False))
    (method,), (same,) = audit.methods, audited(measured).methods
    assert method.gain is not None
    assert same.gain is not None
    assert method.gain.value == pytest.approx(40 * same.gain.value)
    assert method.law.exponent == same.law.exponent
    assert "RMSE lower by" in audit.findings[0].headline
    assert audit.methods[0].band[-1].score.value < audit.methods[0].band[0].score.value


def test_equal_input_gives_equal_bits() -> None:
    measured, _ = curve(lambda n: 0.08 + 1.2 * n**-0.5, 4000, 0)
    assert audited(measured) == audited(measured)


def test_fit_finds_a_law_without_noise() -> None:
    rows_S = np.array([50.0, 100, 200, 400, 800, 1600])
    index = 40
    exponent = power_law.EXPONENTS[index]
    laws = power_law.fit(rows_S, (0.07 + 1.5 * rows_S**-exponent)[None], np.ones(6))
    assert laws.exponent[0] == exponent
    assert (laws.floor[0], laws.scale[0]) == pytest.approx((0.07, 1.5), rel=1e-6)
    rising = power_law.fit(rows_S, (0.1 + 1e-4 * rows_S)[None], np.ones(6))
    assert rising.scale[0] == 0  # more rows never make a law worse


@pytest.mark.parametrize(("rows", "labels"), [(80, 2), (300, 3), (4000, 4), (15100, 151), (650_000, 5)])
def test_sizes(rows: int, labels: int) -> None:
    assert learning_curves.sizes(rows, labels, 10)[:: len(learning_curves.sizes(rows, labels, 10)) - 1] == (
        max(10, labels),
        rows,
    )
    sizes = learning_curves.sizes(rows, labels)
    assert 6 <= len(sizes) <= 8
    assert sizes[-1] == rows
    assert sizes[0] >= max(10, labels)
    factors = [b / a for a, b in pairwise(sizes)]
    assert max(factors) / min(factors) < 1.15
    assert max(factors) < 2.6
