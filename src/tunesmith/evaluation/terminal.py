"""The comparison table for a terminal."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

from tunesmith.evaluation import answers, report

Method = Mapping[str, Any]


def table(content: Mapping[str, Any], width: int | None = None) -> str:
    """One row per method: the scores that decide, with their intervals, and the main costs; the report has all."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    columns = COLUMNS[content.get("task", "classification")]
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    drawn.add_column("method", no_wrap=True)
    for name in columns:
        drawn.add_column(name, justify="right", no_wrap=True)
    for method in content["methods"]:
        drawn.add_row(Text(method["name"]), *(Text(show(method)) for show in columns.values()))
    out = io.StringIO()
    Console(file=out, width=width or max(92, Console().width)).print(drawn)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _estimate(name: str) -> Callable[[Method], str]:
    def show(method: Method) -> str:
        found = method["scores"]["headline"].get(name)
        return f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]" if found else report.NOTHING

    return show


def _value(name: str) -> Callable[[Method], str]:
    return lambda method: answers.figure(name, method["scores"]["headline"].get(name, {}).get("value"))


COLUMNS: dict[str, dict[str, Callable[[Method], str]]] = {
    "classification": {
        "accuracy": _estimate("accuracy"),
        "macro F1": _estimate("macro_f1"),
        "training": lambda method: report.training(method["costs"]),
        "per 1,000": lambda method: report.seconds(method["costs"]["seconds_per_1000"]),
        "memory": lambda method: report.megabytes(method["costs"]["peak_memory_mb"]),
    },
    "instruction": {
        "loss": _estimate("loss"),
        "ended": _value("ended"),
        "training": lambda method: report.training(method["costs"]),
        "memory": lambda method: report.megabytes(method["costs"]["peak_memory_mb"]),
        "trained": lambda method: report.trained(method["costs"]),
    },
}
"""By task: a column's head, and what it shows of a method."""
