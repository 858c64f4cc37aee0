"""Small inline SVG pictures for the report: no library, no script; colours come from the style sheet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, inf, isfinite, log10, sqrt
from statistics import fmean
from typing import Literal

import numpy as np
from markupsafe import Markup

from tunesmith.auditing.learning_curves import BandPoint, CurvePoint, LearningCurveAudit
from tunesmith.evaluation.self_consistency import ThresholdPoint
from tunesmith.reporting.format import AnyEstimate
from tunesmith.reporting.schema import Curve
from tunesmith.tasks.calibration import CalibrationBin

Point = tuple[float, float]
Label = tuple[float, str]
"""The place of a text on an axis, from 0 to 1, and the text."""

WIDTH, LEFT, RIGHT = 360, 42, 350
MOST_POINTS = 240
"""A line of more points is thinned to means of neighbours: no screen shows more and the file stays small."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A scale from the first to the last of its ticks."""

    ticks: tuple[float, ...]

    def share(self, value: float) -> float:
        """Where `value` lies, from 0 (first tick) to 1 (last tick); what lies outside goes to the edge."""
        low, high = self.ticks[0], self.ticks[-1]
        return min(1.0, max(0.0, (value - low) / (high - low)))

    def labels(self) -> list[Label]:
        """Return each tick's share of the way and its text."""
        digits = max(0, -floor(log10(self.ticks[1] - self.ticks[0]) + 1e-9))
        return [(self.share(tick), f"{tick:,.{digits}f}".replace("-", "−")) for tick in self.ticks]


UNIT = Axis((0.0, 0.2, 0.4, 0.6, 0.8, 1.0))
"""For shares."""


def axis(values: Iterable[float], *, steps: int = 4, least: float = 1e-6, low: float = -inf, high: float = inf) -> Axis:
    """Round ticks around `values`: about `steps` of them, at least `least` wide, never outside low..high."""
    finite = [value for value in values if isfinite(value)] or [0.0, 1.0]
    start, end = min(finite), max(finite)
    margin = max(0.0, least - (end - start)) / 2
    start, end = max(low, start - margin), min(high, end + margin)
    rough = (end - start or 1.0) / steps
    power = 10.0 ** floor(log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = floor(start / step + 1e-9)
    last = max(first + 1, ceil(end / step - 1e-9))
    return Axis(tuple(round(tick * step, 10) for tick in range(first, last + 1)))


def interval(estimate: AnyEstimate, scale: Axis, title: str) -> Markup:
    """Dot and whisker, with light lines at the ticks. Widths are percentages, so that the strip fits any cell."""
    line = Markup('<line class="{}" x1="{x:.2f}%" x2="{x:.2f}%" y1="0" y2="100%"/>')
    grid = [line.format("grid" if tick else "zero", x=100 * scale.share(tick)) for tick in scale.ticks]
    low, value, high = (100 * scale.share(end) for end in (estimate.low, estimate.value, estimate.high))
    return Markup(
        '<svg class="strip" role="img" aria-label="{title}"><title>{title}</title>{grid}'
        '<line class="whisker" x1="{low:.2f}%" x2="{high:.2f}%" y1="50%" y2="50%"/>'
        '<circle class="dot" cx="{value:.2f}%" cy="50%" r="4.5"/></svg>'
    ).format(title=title, grid=Markup("").join(grid), low=low, value=value, high=high)


def ticks(scale: Axis, percent: bool = False) -> Markup:
    """The tick labels that belong to a column of `interval` strips; shares may be written as 50%."""
    text = Markup('<text x="{x:.2f}%" y="11" text-anchor="middle">{label}</text>')
    written = [(scale.share(tick), f"{100 * tick:.4g}%") for tick in scale.ticks] if percent else scale.labels()
    labels = Markup("").join(text.format(x=100 * share, label=label) for share, label in written)
    return Markup('<svg class="scale" aria-hidden="true">{labels}</svg>').format(labels=labels)


def calibration(bins: Sequence[CalibrationBin], title: str) -> Markup:
    """Reliability diagram: accuracy over confidence, a dot's area for its rows; below, the rows in each bin."""
    top, bottom, floor_y, tallest = 26, 226, 328, 54
    most = max((b.count for b in bins), default=0) or 1
    points = [
        (_across(b.confidence, UNIT), _up(b.accuracy, UNIT, top, bottom))
        for b in bins
        if b.confidence is not None and b.accuracy is not None
    ]
    body = [
        _frame(UNIT.labels(), UNIT.labels(), top, bottom),
        Markup('<line class="ideal" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(LEFT, bottom, RIGHT, top),
        _line(points, "line thin"),
        _dots(points, [2.5 + 6 * sqrt(b.count / most) for b in bins if b.count]),
    ]
    for b in bins:
        left, right = _across(b.low, UNIT) + 1.5, _across(b.high, UNIT) - 1.5
        height = tallest * b.count / most
        body.append(_bar(left, floor_y - height, right - left, height))
        if b.count:
            count = f"{b.count:,}" if b.count < 10_000 else f"{b.count / 1000:.0f} k"
            body.append(_text((left + right) / 2, floor_y - height - 4, count))
    body += [
        _text(LEFT, 12, "accuracy ↑", "start"),
        _text(LEFT, 342, "rows per bin", "start"),
        _text(RIGHT, 342, "confidence →", "end"),
    ]
    return _picture(348, title, body)


def cloud(points: Sequence[Point], title: str, across: str, up: str, *, line: Literal["equal", "zero"]) -> Markup:
    """A dot for each pair of numbers. line: the dashed one, where both are equal, or at height 0."""
    top, bottom = 26, 306
    xs, ys = [x for x, _ in points], [y for _, y in points]
    x_axis, y_axis = (axis([*xs, *ys]), axis([*xs, *ys])) if line == "equal" else (axis(xs), axis([*ys, 0.0]))
    places = [(_across(x, x_axis), _up(y, y_axis, top, bottom)) for x, y in points]
    zero = _up(0.0, y_axis, top, bottom)
    ends = (bottom, top) if line == "equal" else (zero, zero)
    body = [
        _frame(x_axis.labels(), y_axis.labels(), top, bottom),
        Markup('<line class="ideal" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(LEFT, ends[0], RIGHT, ends[1]),
        Markup('<g class="cloud">{}</g>').format(_dots(places, [2.2] * len(places))),
        _text(LEFT, 12, f"{up} ↑", "start"),
        _text(RIGHT, 338, f"{across} →", "end"),
    ]
    return _picture(344, title, body)


def graph(rows: Sequence[object], across: str, up: str, title: str, chosen: Point | None = None) -> Markup:
    """One field of rows over another, which is a share; a dot at what was chosen."""
    top, bottom = 26, 226
    points = [(getattr(row, across), getattr(row, up)) for row in rows]
    heights = axis([0.0, *(y for _, y in points)], low=0)
    places = [(_across(x, UNIT), _up(y, heights, top, bottom)) for x, y in points]
    body = [_frame(UNIT.labels(), heights.labels(), top, bottom), _line(places, "line")]
    if chosen is not None:
        body.append(_dots([(_across(chosen[0], UNIT), _up(chosen[1], heights, top, bottom))], [4.5]))
    body += [_text(LEFT, 12, f"{spoken(up)} ↑", "start"), _text(RIGHT, bottom + 34, f"{spoken(across)} →", "end")]
    return _picture(bottom + 40, title, body)


def learning_curves(curves: LearningCurveAudit, name: str) -> Markup:
    """Scores over training rows, by factors, with their intervals; from where a power law holds, the law and its band.

    A method that learns nothing from training rows is a level line with a band. A dashed upright line marks the rows
    that there are: what lies behind it is what the law says.
    """
    top, bottom = 26, 266
    shown: list[CurvePoint | BandPoint] = []
    for method in curves.methods:
        shown += [*method.points, *method.band]
    rows = [point.rows for point in shown]
    low, high = log10(min(rows)), log10(max(rows))
    marks = [factor * 10**power for power in range(10) for factor in (1, 2, 5)]
    marks = [mark for mark in marks if low <= log10(mark) <= high]
    marks = marks if len(marks) <= 8 else [mark for mark in marks if str(mark)[0] == "1"]
    levels = [method.level for method in curves.methods if method.level]
    known = [*(point.score for point in shown), *levels]
    scores = axis([end for score in known for end in (score.low, score.high)], least=0.02)

    def place(count: int, score: float) -> Point:
        return LEFT + (RIGHT - LEFT) * (log10(count) - low) / (high - low), _up(score, scores, top, bottom)

    labels = [((log10(mark) - low) / (high - low), f"{mark:,}") for mark in marks]
    body = [_frame(labels, scores.labels(), top, bottom)]
    now = place(curves.train_rows, 0)[0]
    rule = Markup('<line class="ideal" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>')
    body.append(rule.format(now, top, bottom))
    group = Markup('<g class="m{} d{}">{}</g>')
    for number, method in enumerate(curves.methods):
        band: Sequence[BandPoint] = method.band
        if method.level:
            band = [BandPoint(count, method.level) for count in (min(rows), max(rows))]
        edge = [place(p.rows, p.score.high) for p in band] + [place(p.rows, p.score.low) for p in band[::-1]]
        outline = " ".join(f"{x:.1f},{y:.1f}" for x, y in edge)
        parts = [Markup('<polygon class="band" points="{}"/>').format(outline)] if band else []
        before = [place(p.rows, p.score.value) for p in method.points if not band or p.rows < band[0].rows]
        parts.append(_line([*before, *(place(p.rows, p.score.value) for p in band)], "line"))
        whisker = Markup('<line class="whisker" x1="{0:.1f}" x2="{0:.1f}" y1="{1:.1f}" y2="{2:.1f}"/>')
        for point in method.points:
            x, y = place(point.rows, point.score.low)
            parts.append(whisker.format(x, y, place(point.rows, point.score.high)[1]))
        parts.append(_dots([place(p.rows, p.score.value) for p in method.points], [3.5] * len(method.points)))
        body.append(group.format(number % 10, number % 4, Markup("").join(parts)))
    body += [_text(LEFT, 12, name, "start"), _text(RIGHT, bottom + 34, "training rows →", "end")]
    methods = " and ".join(method.method for method in curves.methods)
    return _picture(bottom + 40, f"{name} of {methods} over training rows", body)


def _bar(x: float, y: float, width: float, height: float) -> Markup:
    bar = Markup('<rect class="bar" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>')
    return bar.format(x, y, width, height)


def curve(trained: Curve, best_step: float | None, title: str) -> Markup:
    """Training loss over steps and, in a panel of its own below, the validation metric."""
    named = (("training loss", trained.loss), (f"validation {spoken(trained.validation_metric)}", trained.validation))
    panels = [(name, points) for name, points in named if points]
    steps = axis([0.0, *(step for _, points in panels for step, _ in points)], least=1, low=0)
    tall = 276 / max(1, len(panels))
    body = []
    for place, (name, points) in enumerate(panels):
        top = 26 + place * tall
        bottom = top + tall - 46
        values = axis([value for _, value in points], steps=3, least=0.02)
        body += [_frame(steps.labels(), values.labels(), top, bottom), _text(LEFT, top - 10, name, "start")]
        body.append(_series(points, steps, values, (top, bottom)))
        if best_step is not None:
            rule = Markup('<line class="ideal" x1="{0:.1f}" x2="{0:.1f}" y1="{1:.1f}" y2="{2:.1f}"/>')
            body.append(rule.format(_across(best_step, steps), top, bottom))
    return _picture(310, title, [*body, _text(RIGHT, 303, "step →", "end")])


def laid_over(trainings: Sequence[Curve | None], scores: Sequence[Mapping[str, float] | None] = ()) -> list[Markup]:
    """One picture of all training losses, one of the validation metric; none where nothing trained in steps.

    scores: on the validation split; a method without steps has a horizontal line at its score. Runs that were judged by
    different metrics share no second picture.
    """
    curves = [(place, curve) for place, curve in enumerate(trainings) if curve]
    metrics = {curve.validation_metric for _, curve in curves}
    losses = [(place, curve.loss) for place, curve in curves if curve.loss]
    pictures = [_overlay(losses, [], "training loss")] if losses else []
    validations = [(place, curve.validation) for place, curve in curves if curve.validation]
    if validations and len(metrics) == 1:
        (metric,) = metrics
        levels = [
            (place, known[metric])
            for place, known in enumerate(scores)
            if known and metric in known and not trainings[place]
        ]
        pictures.append(_overlay(validations, levels, f"validation {spoken(metric)}"))
    return pictures


def key(place: int) -> Markup:
    """The line of the method at `place`, for a legend."""
    line = Markup('<svg class="key m{} d{}" viewBox="0 0 26 8" aria-hidden="true">{}</svg>')
    return line.format(place % 10, place % 4, _line([(1, 4), (25, 4)], "line"))


def _overlay(series: Sequence[tuple[int, Sequence[Point]]], levels: Sequence[tuple[int, float]], name: str) -> Markup:
    top, bottom = 26, 246
    steps = axis([0.0, *(step for _, points in series for step, _ in points)], least=1, low=0)
    heights = [value for _, points in series for _, value in points] + [value for _, value in levels]
    values = axis(heights, least=0.02)
    body = [_frame(steps.labels(), values.labels(), top, bottom)]
    body += [_text(LEFT, 12, name, "start"), _text(RIGHT, 280, "step →", "end")]
    drawn = [(place, _series(points, steps, values, (top, bottom))) for place, points in series]
    for place, value in levels:
        height = _up(value, values, top, bottom)
        drawn.append((place, _line([(LEFT, height), (RIGHT, height)], "line")))
    group = Markup('<g class="m{} d{}">{}</g>')
    body += [group.format(place % 10, place % 4, line) for place, line in drawn]
    return _picture(286, f"{name} of {len(drawn)} methods over steps", body)


def scatter(groups: Sequence[Sequence[Point]], across: str, up: str) -> Markup:
    """Points of several groups, both axes by factors, with the line x = y."""
    top, bottom = 26, 246
    points = [(place, x, y) for place, group in enumerate(groups) for x, y in group]
    most = max([2.0, *(value for _, x, y in points for value in (x, y))])
    # 0, 1, 2, 5, 10, 20, ...: as far as needed; half way to the next tick is half the way
    ends = [0.0, *(factor * 10.0**power for power in range(7) for factor in (1, 2, 5))]
    scale = ends[: next(i for i, end in enumerate(ends) if end >= most) + 1]
    shares = np.linspace(0, 1, len(scale)).tolist()
    labels = [(share, f"{tick:,.0f}") for share, tick in zip(shares, scale, strict=True)]
    body = [_frame(labels, labels, top, bottom)]
    body += [_text(LEFT, 12, f"{up} ↑", "start"), _text(RIGHT, 280, f"{across} →", "end")]
    body.append(Markup('<line class="ideal" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(LEFT, bottom, RIGHT, top))
    dot = Markup('<circle class="point m{}" cx="{:.1f}" cy="{:.1f}" r="2.6"/>')
    for place, x, y in points:
        right, high = (float(np.interp(value, scale, shares)) for value in (x, y))
        body.append(dot.format(place % 10, LEFT + (RIGHT - LEFT) * right, bottom - (bottom - top) * high))
    return _picture(286, f"{up} over {across}", body)


def spoken(metric: str) -> str:
    """Return the name of a metric as a title has it."""
    return metric.replace("_", " ").replace("f1", "F1")


def _series(points: Sequence[Point], steps: Axis, values: Axis, box: tuple[float, float]) -> Markup:
    """Values over steps as a line, thinned to means of neighbours; with dots where they are few."""
    width = ceil(len(points) / MOST_POINTS) or 1
    groups = [points[start : start + width] for start in range(0, len(points), width)]
    places = [
        (_across(fmean(step for step, _ in group), steps), _up(fmean(value for _, value in group), values, *box))
        for group in groups
    ]
    return _line(places, "line") + (_dots(places, [3.0] * len(places)) if len(places) <= 40 else Markup(""))


def _across(value: float, scale: Axis) -> float:
    return LEFT + (RIGHT - LEFT) * scale.share(value)


def _up(value: float, scale: Axis, top: float, bottom: float) -> float:
    return bottom - (bottom - top) * scale.share(value)


def _frame(x: Sequence[Label], y: Sequence[Label], top: float, bottom: float) -> Markup:
    line = Markup('<line class="grid" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>')
    parts = []
    for share, label in y:
        height = bottom - (bottom - top) * share
        parts += [line.format(LEFT, height, RIGHT, height), _text(LEFT - 6, height + 3.5, label, "end")]
    for share, label in x:
        place = LEFT + (RIGHT - LEFT) * share
        parts += [line.format(place, bottom, place, bottom + 4), _text(place, bottom + 16, label)]
    return Markup("").join(parts)


def _line(points: Sequence[Point], name: str) -> Markup:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return Markup('<polyline class="{}" points="{}"/>').format(name, path)


def _dots(points: Sequence[Point], sizes: Sequence[float]) -> Markup:
    dot = Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="{:.1f}"/>')
    return Markup("").join(dot.format(x, y, size) for (x, y), size in zip(points, sizes, strict=True))


def _text(x: float, y: float, text: str, anchor: str = "middle") -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, text)


def _picture(height: int, title: str, body: Sequence[Markup]) -> Markup:
    return Markup(
        '<svg class="picture" viewBox="0 0 {} {}" role="img" aria-label="{title}"><title>{title}</title>{}</svg>'
    ).format(WIDTH, height, Markup("").join(body), title=title)


def histogram(counts: Sequence[int], title: str, high: float = 100) -> Markup:
    """Counts in bins of equal width from 0 to `high`; each bar has its count where all have room, else the highest."""
    top, bottom = 26, 186
    scale = Axis(tuple(high * tick / 5 for tick in range(6)))
    most = max(counts, default=0) or 1
    width = high / max(1, len(counts))
    roomy = 6 * len(f"{most:,}") <= (RIGHT - LEFT) * width / high
    bars = [
        _bar(
            _across(place * width, scale) + 0.8,
            bottom - (bottom - top) * count / most,
            (RIGHT - LEFT) * width / high - 1.6,
            (bottom - top) * count / most,
        )
        for place, count in enumerate(counts)
    ]
    labels = [
        _text(_across((place + 0.5) * width, scale), bottom - (bottom - top) * count / most - 4, f"{count:,}")
        for place, count in enumerate(counts)
        if count and (roomy or count == most)
    ]
    marks = [_text(_across(tick, scale), bottom + 16, f"{tick:g}") for tick in scale.ticks]
    base = Markup('<line class="zero" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(LEFT, RIGHT, bottom, bottom)
    return _picture(bottom + 30, title, [*bars, base, *labels, *marks])


def trade_off(points: Sequence[ThresholdPoint], chosen: float, title: str) -> Markup:
    """Precision over coverage with its interval as a band; a ring at the point that was `chosen` (a threshold)."""
    top, bottom = 26, 226
    known = sorted((point for point in points if point.precision), key=lambda point: point.coverage)
    lows = [point.precision.low for point in known if point.precision]
    values = axis([*lows, 1.0], steps=4, least=0.1, low=0, high=1)

    def places(end: str) -> list[Point]:
        return [
            (_across(point.coverage, UNIT), _up(getattr(point.precision, end), values, top, bottom)) for point in known
        ]

    outline = " ".join(f"{x:.1f},{y:.1f}" for x, y in [*places("low"), *places("high")[::-1]])
    sizes = [6.0 if point.threshold == chosen else 3.0 for point in known]
    body = [
        _frame(UNIT.labels(), values.labels(), top, bottom),
        Markup('<polygon class="bar" points="{}"/>').format(outline),
        _line(places("value"), "line"),
        _dots(places("value"), sizes),
        _text(LEFT, 12, "precision ↑", "start"),
        _text(RIGHT, bottom + 34, "coverage →", "end"),
    ]
    return _picture(bottom + 40, title, body)
