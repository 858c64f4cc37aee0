"""The report of a sweep: every trial in the order of its validation score, and the winner's test scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.reporting import charts, classification_report

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
    template = classification_report.templates().get_template("trials.html.j2")
    return template.render(
        sweep=content,
        verdict=verdict(content),
        report=content,
        curves=curves,
        shown=best,
        rows=[cells(trial) for trial in content["trials"]],
    )


def markdown(content: Content) -> str:
    """The tables that matter, for a terminal, a pull request or an issue."""
    head = [*(name.split(".")[-1] for name in content["axes"]), f"validation {content['metric']}", *COSTS]
    rows = [[*trial["values"].values(), *cells(trial)] for trial in content["trials"]]
    parts = [f"# Sweep: {content['title']}", verdict(content), _table(head, rows)]
    if content["test"]:
        parts += ["## Test scores of the best trial", _table(["metric", "value", "interval"], _scores(content["test"]))]
    return "\n\n".join([*parts, f"Made with tunesmith {content['version']}: `{content['command']}`"]) + "\n"


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
        classification_report.seconds(costs["train_seconds"]),
        classification_report.megabytes(costs["peak_memory_mb"]),
    ]


def _scores(scores: Mapping[str, Any]) -> list[list[str]]:
    return [
        [name, f"{one['value']:.4f}", f"[{one['low']:.4f}, {one['high']:.4f}]"]
        for name, one in scores["headline"].items()
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
