"""What reports say about learning curves, and that of an audit about rows to label next."""

from __future__ import annotations

from tunesmith.auditing.active_labelling import ActiveLabellingAudit
from tunesmith.auditing.learning_curves import LearningCurveAudit, MethodCurve
from tunesmith.evaluation.intervals import Estimate
from tunesmith.reporting.format import NAMES, NOTHING, chance, estimate, level, quantity, signed, signed_figure
from tunesmith.reporting.markdown import code, plain, quote, table
from tunesmith.reporting.schema import Report


def rows(curves: LearningCurveAudit) -> list[tuple[str, list[Estimate | None]]]:
    """Return the scores of every method for each number of training rows that any of them was trained on.

    The first line has the scores that hold for any number.
    """
    levels = [method.level for method in curves.methods]
    scores = [{point.rows: point.score for point in method.points} for method in curves.methods]
    counts = sorted({count for each in scores for count in each})
    lines = [(f"{count:,}", [of_one.get(count) for of_one in scores]) for count in counts]
    return [("any", levels), *lines] if any(levels) else lines


def figures(curves: LearningCurveAudit) -> tuple[list[str], list[list[str]]]:
    """Return these scores as the head of a table, and its rows."""
    lines = [[count, *(estimate(curves.metric, score) for score in scores)] for count, scores in rows(curves)]
    return ["Training rows", *(method.method for method in curves.methods)], lines


def about(curves: LearningCurveAudit) -> str:
    """Return what the scores are."""
    return (
        f"{NAMES[curves.metric]} on {curves.test_rows:,} test rows, mean over {len(curves.seeds)} seeds, with "
        f"{level(curves.confidence)} intervals over test rows and seeds."
    )


def gain(curves: LearningCurveAudit, method: MethodCurve) -> str:
    """Return what twice the rows would bring: +1.1 points [+0.4, +1.9], or −0.12 [−0.2, −0.05] of an RMSE."""
    if method.gain is None:
        return NOTHING
    ends = (method.gain.value, method.gain.low, method.gain.high)
    if curves.higher_is_better:
        value, low, high = (signed(100 * end, 1) for end in ends)
        return f"{value} points [{low}, {high}]"
    value, high, low = (signed_figure(curves.metric, -end) for end in ends)
    return f"{value} [{low}, {high}]"


def law(method: MethodCurve) -> str:
    """Return a power law as a formula."""
    fitted = method.law
    if fitted is None:
        return NOTHING
    return (
        f"{quantity(fitted.floor)} + {quantity(fitted.scale)} n^−{fitted.exponent:.2f}, from {fitted.from_rows:,} rows"
    )


def curve_parts(curves: LearningCurveAudit) -> list[str]:
    """Return the learning curves in Markdown."""
    head, lines = figures(curves)
    said = []
    for method in curves.methods:
        told = [f"nothing is said: {plain(method.rejected)}", "", "", ""]
        if method.rejected is None and method.p is not None:
            with_twice = estimate(curves.metric, method.band[-1].score)
            told = [with_twice, gain(curves, method), plain(law(method)), chance(method.p)]
        if method.level is None:
            said.append([plain(method.method), *told])
    twice = ["Method", f"With {2 * curves.train_rows:,} rows", "Gain", "Error with n rows", "p"]
    return ["## Learning curve", about(curves), table(list(map(plain, head)), lines), table(twice, said)]


def markdown(report: Report) -> list[str]:
    """Return the learning curves of a comparison, and what they say; nothing where there are none."""
    if (curves := report.learning_curve) is None:
        return []
    title, *parts = curve_parts(curves)
    return [title, "\n".join(f"- {plain(finding.headline)}" for finding in curves.findings), *parts]


def labelling_parts(chosen: ActiveLabellingAudit) -> list[str]:
    """Return the rows to label next in Markdown."""
    left_out = (
        f"{chosen.chosen:,} of {chosen.pool:,} rows of {code(chosen.source)} are in {code(chosen.file)}; "
        f"{chosen.same_as_labelled:,} with the text of a labelled row and {chosen.repeated:,} with that of another "
        "unlabelled one were left out."
    )
    lines = [
        f"- {code(row.id)}: {plain(row.predicted)}, {plain(row.reason)}: {quote(row.text)}" for row in chosen.shown
    ]
    return ["## Which rows to label next", left_out, "\n".join(lines)]
