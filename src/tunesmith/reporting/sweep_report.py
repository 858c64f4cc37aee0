"""The report of a sweep: every trial in the order of its validation score, and the winner's test scores."""

from __future__ import annotations

from tunesmith.reporting import charts, format, page
from tunesmith.reporting.markdown import plain, sign, table
from tunesmith.reporting.schema import SweepReport, Trial

MOST_CURVES = 8
"""Best trials whose loss curves are laid over each other."""


def html(report: SweepReport) -> str:
    """One self-contained page."""
    best = [trial for trial in report.trials[:MOST_CURVES] if trial.curve]
    return page.render(
        "trials.html.j2",
        report=report,
        verdict=verdict(report),
        curves=charts.laid_over(best) if best else [],
        shown=best,
        rows=[cells(trial) for trial in report.trials],
    )


def markdown(report: SweepReport) -> str:
    """The tables that matter, for a terminal, a pull request or an issue."""
    head = [*(plain(name.split(".")[-1]) for name in report.axes), f"validation {report.metric}", *COSTS]
    rows = [[*map(plain, trial.values.values()), *cells(trial)] for trial in report.trials]
    parts = [f"# Sweep: {plain(report.title)}", f"**{plain(verdict(report))}**", table(head, rows)]
    if report.test:
        scores = [
            [name, f"{estimate.value:.4f}", f"[{estimate.low:.4f}, {estimate.high:.4f}]"]
            for name, estimate in report.test.headline.items()
        ]
        parts += ["## Test scores of the best trial", table(["Metric", "Value", "Interval"], scores)]
    return "\n\n".join([*parts, sign(report)]) + "\n"


def verdict(report: SweepReport) -> str:
    """One sentence."""
    best, count = report.trials[0], len(report.trials)
    values = ", ".join(f"{name} {value}" for name, value in best.values.items())
    failed = f" {len(report.failed)} trial(s) failed." if report.failed else ""
    return (
        f"Best of {count} trials on validation ({report.metric} {best.score:.4f}): {values}. "
        f"The test split was opened for it alone.{failed}"
    )


COSTS = ("trainable", "training", "memory")


def cells(trial: Trial) -> list[str]:
    """Score and costs of a trial, for people."""
    costs = trial.costs
    share = f"{costs.trainable / max(1, costs.parameters):.2%}"
    return [
        f"{trial.score:.4f}",
        share,
        format.seconds(costs.train_seconds),
        format.megabytes(costs.peak_memory_mb),
    ]
