"""The report on predicted numbers, of one method or several. Pure functions, no files."""

from __future__ import annotations

from tunesmith.reporting import metric_report
from tunesmith.reporting.format import figure
from tunesmith.reporting.markdown import quote
from tunesmith.reporting.schema import RegressionReport, RegressionResult


def html(report: RegressionReport) -> str:
    """Return one self-contained page, without scripts and without any request to the outside."""
    return metric_report.html(report, "regression.html.j2", ("rmse", "spearman"), residuals=residuals)


def markdown(report: RegressionReport) -> str:
    """Return the tables that matter, for a terminal, a pull request or an issue."""
    worst = report.methods[0].worst[:3] if len(report.methods) == 1 else ()
    details = [f"- {quote(row.text)}\n  - {row.gold:g}, predicted: {row.predicted:.4g}" for row in worst]
    if details:
        details.insert(0, "## Largest errors")
    return metric_report.markdown(report, "rmse", baseline_sentence(report), details)


def residuals(method: RegressionResult) -> list[tuple[float, float]]:
    """Return predictions and their errors."""
    return [(predicted, predicted - gold) for gold, predicted in method.points]


def baseline_sentence(report: RegressionReport) -> str:
    """Return what always answering the mean of the test rows would reach."""
    baseline = report.methods[0].scores.baseline_rmse
    return f"Always answering the mean of the test rows would have an RMSE of {figure('rmse', baseline)}."
