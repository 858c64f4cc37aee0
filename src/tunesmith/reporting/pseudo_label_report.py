"""The report on pseudo-labels: what was kept, what was not and why, and what a threshold costs."""

from __future__ import annotations

from tunesmith.reporting import page
from tunesmith.reporting.charts import histogram, trade_off
from tunesmith.reporting.format import NOTHING, level, share
from tunesmith.reporting.markdown import plain, sign, table
from tunesmith.reporting.schema import PseudoLabelReport


def html(report: PseudoLabelReport) -> str:
    """Return the report as one self-contained page."""
    pictures = [("Rows by agreement", "from 0 to 100%", histogram(report.histogram, "Rows by agreement"))]
    if report.curve and report.chosen:
        curve = trade_off(report.curve, report.chosen.threshold, "Precision over coverage")
        pictures.append(
            (
                "Precision and coverage",
                "on the test rows of the run" if report.from_test else "on the rows that have a label of their own",
                curve,
            )
        )
    return page.render("pseudo_labels.html.j2", report=report, verdict=headline(report), pictures=pictures)


def markdown(report: PseudoLabelReport) -> str:
    """Return the same tables in Markdown."""
    reasons = [[plain(reason), f"{count:,}"] for reason, count in report.left_out.items()]
    parts = [
        f"# Pseudo-labels: {plain(report.title)}",
        f"**{plain(headline(report))}**",
        table(["Rows", "Number"], [["read", f"{report.rows:,}"], ["kept", f"{report.kept:,}"], *reasons]),
    ]
    if report.curve:
        head = ["Threshold", "Kept", "Coverage", "Precision", f"{level(report.confidence)} interval"]
        rows = []
        for point in report.curve:
            right = point.precision
            cells = [share(right.value), f"[{share(right.low)}, {share(right.high)}]"] if right else [NOTHING] * 2
            rows.append([f"{point.threshold:.4g}", f"{point.kept:,}", share(point.coverage), *cells])
        parts += ["## Precision and coverage", table(head, rows)]
    return "\n\n".join([*parts, sign(report)]) + "\n"


def headline(report: PseudoLabelReport) -> str:
    """Return what was kept, how much of it is right where that is known, and what the labels cost."""
    if (costs := report.endpoint) is None:
        return _kept(report)
    price = "" if costs.price is None else f", price {costs.price:.4g}"
    tokens = f"{costs.prompt_tokens:,} prompt and {costs.completion_tokens:,} completion tokens"
    return f"{_kept(report)} Bought from {costs.model}: {tokens}{price}."


def _kept(report: PseudoLabelReport) -> str:
    kept = f"{report.kept:,} of {report.rows:,} rows kept, at an agreement of at least {share(report.threshold)}."
    if report.chosen is None:
        return f"{kept} No row has a label of its own, so how many are right is not known."
    right = report.chosen.precision
    if right is None:
        of = (
            "test rows of the run would be kept" if report.from_test else "rows with a label of their own is among them"
        )
        return f"{kept} None of the {report.labelled:,} {of}."
    if report.from_test:
        return (
            f"{kept} No row has a label of its own. Of the {report.labelled:,} test rows of the run, "
            f"{share(report.chosen.coverage)} would be kept, and of these {share(right.value)} "
            f"[{share(right.low)}, {share(right.high)}] are right."
        )
    return (
        f"{kept} {report.labelled:,} rows have a label of their own: {share(report.chosen.coverage)} of them are kept, "
        f"and of these {share(right.value)} [{share(right.low)}, {share(right.high)}] are right."
    )
