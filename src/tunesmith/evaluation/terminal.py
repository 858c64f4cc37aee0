"""The comparison table for a terminal."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from tunesmith.evaluation import report


def table(content: Mapping[str, Any], width: int | None = None) -> str:
    """One row per method: accuracy and macro F1 with their intervals, and the main costs; the report has all."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    drawn.add_column("method", no_wrap=True)
    for name in ("accuracy", "macro F1", "training", "per 1,000", "memory"):
        drawn.add_column(name, justify="right", no_wrap=True)
    for method in content["methods"]:
        headline, costs = method["scores"]["headline"], method["costs"]
        drawn.add_row(
            method["name"],
            *(_estimate(headline[name]) for name in ("accuracy", "macro_f1")),
            report.seconds(costs["train_seconds"]),
            report.seconds(costs["seconds_per_1000"]),
            report.megabytes(costs["peak_memory_mb"]),
        )
    out = io.StringIO()
    Console(file=out, width=width or max(92, Console().width)).print(drawn)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _estimate(value: Mapping[str, Any]) -> str:
    return f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
