"""The report of a sweep: every trial in the order of its validation score, and the winner's test scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.reporting import charts, format, page
from tunesmith.reporting.markdown import plain, sign, table

Content = Mapping[str, Any]
"""What sweep.json holds; `pipeline.sweep` makes it."""
MOST_CURVES = 8
"""Best trials whose loss curves are laid over each other."""


def html(content: Content) -> str:
    """One self-contained page."""
    best = [
        {"name": trial["run"], "curve": trial["curve"]} for trial in content["trials"][:MOST_CURVES] if trial["curve"]
    ]
    curves = charts.laid_over(best) if best else []
    return page.render(
        "trials.html.j2",
        sweep=content,
        verdict=verdict(content),
        report=content,
        curves=curves,
        shown=best,
        rows=[cells(trial) for trial in content["trials"]],
    )


def markdown(content: Content) -> str:
    """The tables that matter, for a terminal, a pull request or an issue."""
    head = [*(plain(name.split(".")[-1]) for name in content["axes"]), f"validation {content['metric']}", *COSTS]
    rows = [[*map(plain, trial["values"].values()), *cells(trial)] for trial in content["trials"]]
    parts = [f"# Sweep: {plain(content['title'])}", f"**{plain(verdict(content))}**", table(head, rows)]
    if content["test"]:
        scores = [
            [name, f"{estimate['value']:.4f}", f"[{estimate['low']:.4f}, {estimate['high']:.4f}]"]
            for name, estimate in content["test"]["headline"].items()
        ]
        parts += ["## Test scores of the best trial", table(["Metric", "Value", "Interval"], scores)]
    return "\n\n".join([*parts, sign(content)]) + "\n"


def verdict(content: Content) -> str:
    """One sentence."""
    best, count = content["trials"][0], len(content["trials"])
    values = ", ".join(f"{name} {value}" for name, value in best["values"].items())
    failed = f" {len(content['failed'])} trial(s) failed." if content["failed"] else ""
    return (
        f"Best of {count} trials on validation ({content['metric']} {best['score']:.4f}): {values}. "
        f"The test split was opened for it alone.{failed}"
    )


COSTS = ("trainable", "training", "memory")


def cells(trial: Mapping[str, Any]) -> list[str]:
    """Score and costs of a trial, for people."""
    costs = trial["costs"]
    share = costs["trainable"] / max(1, costs["parameters"])
    return [
        f"{trial['score']:.4f}",
        f"{share:.2%}",
        format.seconds(costs["train_seconds"]),
        format.megabytes(costs["peak_memory_mb"]),
    ]
