"""Scores at growing training sizes, and what more rows would bring by the power law that they follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import ceil, log2

import numpy as np

from tunesmith.auditing import power_law
from tunesmith.auditing.curve_crossings import Crossing, ErrorPath, PathComparison
from tunesmith.auditing.findings import Finding
from tunesmith.auditing.power_law import Errors, FittedLaw, Floats, PowerLaw
from tunesmith.evaluation.intervals import Confidence, Estimate
from tunesmith.records import omitted_if_none

FEWEST, MOST = 6, 8
"""Sizes of a curve."""
RANGE = 8
"""The largest size is at least this many times the smallest: three doublings."""
LEAST_ROWS = 10
"""The smallest size, unless there are more labels, or it is given."""
HORIZON = 2.0
"""How far a law is trusted beyond the rows that there are: to twice as many."""
HALF = 0.6
"""Sizes up to this share of the rows are about half of them, or fewer."""
BAND_POINTS = 41
LITTLE = 0.005
"""A gain below half a point that may be none is called little."""


@dataclass(frozen=True, slots=True)
class CurveMetric:
    """What the curves show."""

    name: str
    spoken: str
    """Its name in a sentence."""
    higher_is_better: bool

    def error(self, score: Floats) -> Floats:
        """Return what falls as a model learns: 1 - score where higher is better."""
        return 1 - score if self.higher_is_better else score


@dataclass(frozen=True)
class MeasuredCurve:
    """Scores of one method. Shapes: R seeds, S sizes, B draws of the test rows."""

    method: str
    rows: tuple[int, ...]
    scores: Floats
    """R x S."""
    resampled: Floats
    """R x S x B."""


@dataclass(frozen=True)
class MeasuredLevel:
    """The score of a method that learns nothing from the training rows."""

    method: str
    score: float
    resampled: Floats
    """On each draw of the test rows: B."""


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One size."""

    rows: int
    """Training rows."""
    score: Estimate
    """Mean over seeds; the interval is over test rows and seeds."""
    seeds: tuple[float, ...]
    """The score of each seed."""


@dataclass(frozen=True, slots=True)
class BandPoint:
    """What the law says of one size."""

    rows: int
    score: Estimate
    """With the interval for a single training on this number of rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodCurve:
    """The learning curve of one method."""

    method: str
    level: Estimate | None = omitted_if_none()
    """The score of a method that learns nothing from the training rows, which has nothing else here."""
    points: tuple[CurvePoint, ...] = ()
    law: PowerLaw | None = None
    p: float | None = None
    """How often noise alone is as far from a power law as these scores are."""
    rejected: str | None = omitted_if_none()
    """Why the law is not believed, and nothing is said about more rows; None where it holds."""
    band: tuple[BandPoint, ...] = ()
    """The law from the size where it begins to HORIZON times the rows; empty where it does not hold."""
    gain: Estimate | None = omitted_if_none()
    """How much better the score of a training with twice the rows is; None where the law does not hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningCurveAudit:
    """Scores at growing training sizes, as numbers."""

    metric: str
    higher_is_better: bool
    train_rows: int
    test_rows: int
    seeds: tuple[int, ...]
    confidence: float
    """Level of the intervals."""
    methods: tuple[MethodCurve, ...]
    crossings: tuple[Crossing, ...]
    gains: tuple[Finding, ...] = ()
    """What more rows would bring each method that learns."""
    comparisons: tuple[Finding, ...] = ()
    """Of each two methods where they cross, or which is better."""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All that the curves say."""
        return (*self.gains, *self.comparisons)


def least_rows(labels: int, smallest: int | None = None) -> int:
    """Return how many training rows a learning curve needs."""
    return RANGE * max(smallest or LEAST_ROWS, labels)


def sizes(rows: int, labels: int, smallest: int | None = None) -> tuple[int, ...]:
    """Return FEWEST to MOST sizes up to `rows`, each by the same factor larger than the last: 2 where the rows suffice.

    labels: the rows that it takes to have every label; the smallest size has no fewer. rows: at least `least_rows`.
    smallest: the smallest size, however large the factor then is.
    """
    start = max(labels, smallest or max(LEAST_ROWS, ceil(rows / 2 ** (MOST - 1))))
    count = min(MOST, max(FEWEST, 3 + int(log2(rows / start))))
    return tuple(round(size) for size in np.geomspace(start, rows, count))


def audit_curves(
    measured: Sequence[MeasuredCurve | MeasuredLevel],
    metric: CurveMetric,
    test_rows: int,
    seeds: Sequence[int],
    confidence: Confidence,
) -> LearningCurveAudit:
    """Fit a law to each curve, and say what more rows would bring and where methods cross. Equal input, equal bits.

    The draws of the test rows are the same for all methods.
    """
    train_rows = max(curve.rows[-1] for curve in measured if isinstance(curve, MeasuredCurve))
    methods, paths = [], []
    for place, curve in enumerate(measured):
        if isinstance(curve, MeasuredLevel):
            score = Estimate.of(curve.score, curve.resampled, confidence.level)
            methods.append(MethodCurve(method=curve.method, level=score))
            paths.append(ErrorPath.of_level(curve.method, metric.error(curve.resampled)))
        else:
            method, path = _fitted(curve, metric, confidence, place)
            methods.append(method)
            paths.append(path)
    learning = [pair for pair in combinations(paths, 2) if pair[0].sizes or pair[1].sizes]
    compared = [PathComparison.of(*pair, confidence.level) for pair in learning]
    return LearningCurveAudit(
        metric=metric.name,
        higher_is_better=metric.higher_is_better,
        train_rows=train_rows,
        test_rows=test_rows,
        seeds=tuple(seeds),
        confidence=confidence.level,
        methods=tuple(methods),
        crossings=tuple(crossing for pair in compared if (crossing := pair.crossing(confidence.level))),
        gains=tuple(_finding(method, metric, train_rows) for method in methods if method.level is None),
        comparisons=tuple(_comparison(pair, train_rows, confidence.level) for pair in compared),
    )


def _fitted(
    curve: MeasuredCurve, metric: CurveMetric, confidence: Confidence, place: int
) -> tuple[MethodCurve, ErrorPath]:
    generator = np.random.Generator(np.random.PCG64([confidence.seed, place]))
    rows_S = np.array(curve.rows, dtype=np.float64)
    errors = Errors.of(rows_S, metric.error(curve.scores), metric.error(curve.resampled), generator)
    fitted = power_law.fit_from(errors)
    rejected = _rejected(fitted, errors, confidence.level)
    last, level = curve.rows[-1], confidence.level
    band: list[BandPoint] = []
    gain = None
    if rejected is None:
        places = np.geomspace(fitted.law.from_rows, HORIZON * last, BAND_POINTS)
        for rows in sorted({*(round(place) for place in places), last}):
            low, high = fitted.band(rows, level)
            band.append(BandPoint(rows, _score(metric, fitted.law.error(rows), low, high)))
        most = float(errors.mean[-1])  # no more can be gained than there is
        gained_B = fitted.gains(last, HORIZON * last)
        value = min(most, fitted.law.error(last) - fitted.law.error(HORIZON * last))
        gain = Estimate.of(value, np.minimum(gained_B, most), level)
    points = []
    for s, rows in enumerate(curve.rows):
        low, high = np.quantile(np.maximum(errors.drawn[:, s], 0), [(1 - level) / 2, (1 + level) / 2])
        mean = float(errors.mean[s])
        score = _score(metric, mean, min(float(low), mean), max(float(high), mean))
        points.append(CurvePoint(rows, score, tuple(curve.scores[:, s].tolist())))
    method = MethodCurve(
        method=curve.method,
        points=tuple(points),
        law=fitted.law,
        p=fitted.p,
        rejected=rejected,
        band=tuple(band),
        gain=gain,
    )
    return method, ErrorPath.of_curve(curve.method, errors, None if rejected else fitted, HORIZON * last)


def _rejected(fitted: FittedLaw, errors: Errors, level: float) -> str | None:
    """Return why a law is not believed; None where it is.

    It must not be further from the scores than noise would be, and what would have been said with about half of the
    rows must have come true.
    """
    if len(errors.rows) < power_law.FEWEST_SIZES:
        return f"there are only {len(errors.rows)} different sizes"
    if fitted.p < power_law.REJECTED:
        return f"the scores are not on a power law (p = {fitted.p:.3f})"
    half_S = errors.rows <= HALF * errors.rows[-1]
    before = power_law.fit_from(errors.part(half_S), power_law.FEWEST_SIZES - 1)
    if half_S.sum() < power_law.FEWEST_SIZES - 1 or before.p < power_law.REJECTED:
        return "the scores with up to about half of the rows are not on a power law"
    low, high = before.band(float(errors.rows[-1]), level)
    if not low <= errors.mean[-1] <= high:
        return "the law of the scores with up to about half of the rows misses the score with all of them"
    return None


def _score(metric: CurveMetric, error: float, low: float, high: float) -> Estimate:
    """Return an error with its interval as a score."""
    return Estimate(1 - error, 1 - high, 1 - low) if metric.higher_is_better else Estimate(error, low, high)


def _comparison(pair: PathComparison, rows: int, level: float) -> Finding:
    """Say where one of two methods overtakes the other, or is better."""
    if crossing := pair.crossing(level):
        headline = crossing.sentence(rows)
        do = f"Take {crossing.overtaken} with fewer rows and {crossing.method} with more, unless costs decide."
    elif lead := pair.lead(rows):
        headline, do = lead.sentence(), f"Take {lead.method} there, unless costs decide."
    else:
        headline = f"{pair.first.method} and {pair.second.method} cannot be told apart with any number of rows."
        do = "Let costs decide; more test rows tell smaller differences."
    return Finding(headline=headline, severity="note", do=do)


def _finding(method: MethodCurve, metric: CurveMetric, rows: int) -> Finding:
    if method.gain is None:
        return Finding(
            headline=f"What more rows would bring {method.method} cannot be told: {method.rejected}.",
            severity="note",
            do="Look at its curve; more seeds (--seeds) or more test rows make it smoother.",
        )
    twice = f"doubling the training rows ({rows:,} to {int(HORIZON * rows):,})"
    gain = _gain(method.gain, metric)
    if metric.higher_is_better and method.gain.value < LITTLE and method.gain.low <= 0:
        return Finding(
            headline=f"More rows would bring {method.method} little: {twice}, {gain}.",
            severity="note",
            do="Look for wrong labels, or try another method, before labelling more of the same kind.",
        )
    return Finding(
        headline=f"{method.method}: {twice} would bring {gain}.",
        severity="note",
        do="If that is worth the labelling, --unlabelled FILE says which rows to label first.",
    )


def _gain(gain: Estimate, metric: CurveMetric) -> str:
    """+1.1 points of accuracy [0.4, 1.9]; RMSE lower by 0.12 [0.05, 0.2]."""
    if metric.higher_is_better:
        return f"+{100 * gain.value:.1f} points of {metric.spoken} [{100 * gain.low:.1f}, {100 * gain.high:.1f}]"
    return f"{metric.spoken} lower by {gain.value:.3g} [{gain.low:.3g}, {gain.high:.3g}]"
