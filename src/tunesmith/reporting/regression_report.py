"""The report on predicted numbers, of one method or several: an HTML page and its Markdown twin. Pure functions."""

from __future__ import annotations

from tunesmith.reporting import page
from tunesmith.reporting.format import chance, directed, estimate, figure, signed_estimate
from tunesmith.reporting.markdown import cost_table, data_parts, plain, quote, sign, table
from tunesmith.reporting.schema import RegressionReport, RegressionResult

DECIDING, BESIDE = "rmse", "spearman"
"""The metrics of the first table: the one that the tests decide by, and one that does not depend on the unit."""


def html(report: RegressionReport) -> str:
    """Return one self-contained page, without scripts and without any request to the outside."""
    from tunesmith.reporting import charts

    def ends(name: str) -> list[float]:
        return [end for m in report.methods for e in [m.scores.headline[name]] for end in (e.low, e.high)]

    gaps = [pair.differences[DECIDING] for pair in report.pairs]
    curves = [method.curve for method in report.methods]
    return page.render(
        "regression.html.j2",
        report=report,
        shown=(DECIDING, BESIDE),
        residuals=residuals,
        pictures=charts.laid_over(curves, [method.validation for method in report.methods])
        if len(list(filter(None, curves))) > 1
        else [],
        axes={
            DECIDING: charts.axis(ends(DECIDING), low=0),
            BESIDE: charts.axis(ends(BESIDE), least=0.04, low=-1, high=1),
        },
        gap_axis=charts.axis([0.0, *(end for gap in gaps for end in (gap.low, gap.high))]),
    )


def markdown(report: RegressionReport) -> str:
    """Return the tables that matter, for a terminal, a pull request or an issue."""
    metrics = list(report.methods[0].scores.headline)
    scores = ([plain(m.name), *(estimate(name, m.scores.headline[name]) for name in metrics)] for m in report.methods)
    by_split = [
        [
            plain(m.name),
            *(figure(DECIDING, known[DECIDING] if known else None) for known in (m.train, m.validation)),
            figure(DECIDING, m.scores.headline[DECIDING].value),
        ]
        for m in report.methods
        if m.train
    ]
    parts = [
        f"# {plain(report.title)}",
        f"**{plain(report.verdict)}**",
        f"## {'Comparison' if len(report.methods) > 1 else 'Scores and costs'}",
        table(["Method", *map(directed, metrics)], scores),
        baseline_sentence(report),
        *([table(["RMSE", "Train", "Validation", "Test"], by_split)] if by_split else []),
        cost_table(report.methods),
    ]
    if report.pairs:
        head = ["Pair", *(f"{directed(name)} difference" for name in metrics), "p", "p (Holm)", "Significant"]
        pairs = (
            [
                f"{plain(pair.a)} − {plain(pair.b)}",
                *(signed_estimate(name, pair.differences[name]) for name in metrics),
                chance(pair.differences[DECIDING].p),
                chance(pair.differences[DECIDING].p_holm),
                "yes" if pair.distinguishable else "no",
            ]
            for pair in report.pairs
        )
        parts += ["## Pairs", table(head, pairs), "p is that of the RMSE."]
    if len(report.methods) == 1 and report.methods[0].worst:
        parts.append("## Largest errors")
        for row in report.methods[0].worst[:3]:
            parts.append(f"- {quote(row.text)}\n  - {row.gold:g}, predicted: {row.predicted:.4g}")
    return "\n\n".join([*parts, "## Data", *data_parts(report.data), sign(report)]) + "\n"


def residuals(method: RegressionResult) -> list[tuple[float, float]]:
    """Return predictions and their errors."""
    return [(predicted, predicted - gold) for gold, predicted in method.points]


def baseline_sentence(report: RegressionReport) -> str:
    """Return what always answering the mean of the test rows would reach."""
    baseline = report.methods[0].scores.baseline_rmse
    return f"Always answering the mean of the test rows would have an RMSE of {figure(DECIDING, baseline)}."
