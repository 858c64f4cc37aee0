"""The report of a sweep: every trial in the order of its validation score, and the winner's test scores."""

from __future__ import annotations

from tunesmith.reporting import charts, format, page
from tunesmith.reporting.format import NAMES
from tunesmith.reporting.markdown import plain, sign, table
from tunesmith.reporting.sweep_schema import SweepReport

MOST_CURVES = 8
"""Best trials whose loss curves are laid over each other."""


def html(report: SweepReport) -> str:
    """Return one self-contained page."""
    best = [trial for trial in report.trials[:MOST_CURVES] if trial.curve]
    columns, *rows = _trials(report)
    return page.render(
        "trials.html.j2",
        report=report,
        verdict=verdict(report),
        curves=charts.laid_over([trial.curve for trial in best]),
        shown=best,
        columns=columns,
        rows=rows,
        test=_test_scores(report),
    )


def markdown(report: SweepReport) -> str:
    """Return the tables that matter, for a terminal, a pull request or an issue."""
    head, *rows = ([plain(cell) for cell in row] for row in _trials(report))
    parts = [f"# Sweep: {plain(report.title)}", f"**{plain(verdict(report))}**", table(head, rows)]
    if scores := _test_scores(report):
        parts += ["## Test scores of the best trial", table(["Metric", "Value", "Interval"], scores)]
    return "\n\n".join([*parts, sign(report)]) + "\n"


def verdict(report: SweepReport) -> str:
    """Return which trial is best, in a sentence or two."""
    best = report.trials[0]
    values = ", ".join(f"{name} {value}" for name, value in best.values.items())
    failed = f" {format.counted(len(report.failed), 'trial')} failed." if report.failed else ""
    metric = NAMES.get(report.metric, report.metric)
    return (
        f"Best of {format.counted(len(report.trials), 'trial')} on validation ({metric} {best.score:.4f}): {values}. "
        f"The test split was opened for it alone.{failed}"
    )


def _trials(report: SweepReport) -> list[list[str]]:
    """Return the head of the table, and a row per trial; settings by their last name where that says which."""
    last = [name.split(".")[-1] for name in report.axes]
    axes = [short if last.count(short) == 1 else name for name, short in zip(report.axes, last, strict=True)]
    rows = [["Trial", NAMES.get(report.metric, report.metric), *axes, "Trained", "Training", "Memory"]]
    for rank, trial in enumerate(report.trials, 1):
        costs = trial.costs
        share = f"{costs.trainable / max(1, costs.parameters):.2%}"
        took = [format.seconds(costs.train_seconds), format.megabytes(costs.peak_memory_mb)]
        rows.append([str(rank), f"{trial.score:.4f}", *(trial.values[name] for name in report.axes), share, *took])
    return rows


def _test_scores(report: SweepReport) -> list[list[str]]:
    headline = report.test.headline if report.test else {}
    return [
        [format.directed(name), format.figure(name, estimate.value), format.interval(name, estimate)]
        for name, estimate in headline.items()
    ]
