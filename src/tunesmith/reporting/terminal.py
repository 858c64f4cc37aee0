"""Tables for a terminal."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tunesmith.reporting import format

Method = Mapping[str, Any]


def table(content: Mapping[str, Any], width: int | None = None) -> str:
    """One row per method: the scores that decide, with their intervals, and the main costs; the report has all."""
    columns = COLUMNS[content.get("task", "classification")]
    rows = [[method["name"], *(show(method) for show in columns.values())] for method in content["methods"]]
    return _drawn(["method", *columns], rows, width)


def figures(methods: Sequence[Method], pairs: Sequence[Mapping[str, Any]], width: int | None = None) -> str:
    """One row per figure of generated answers, one column per model; of two models also their difference and its p."""
    scores = methods[0]["scores"]
    one = pairs[0] if len(pairs) == 1 else None
    by_name = {method["name"]: method for method in methods}
    head = [f"{scores['answered']:,} answers", *by_name, *([f"{one['a']} − {one['b']}", "p"] if one else [])]
    rows = []
    for name in format.shown(methods):
        tested = [format.difference(name, one, by_name), format.probability(name, one)] if one else []
        found = [format.estimate(name, method["scores"]["headline"].get(name)) for method in methods]
        rows.append([format.directed(name), *found, *tested])
    said = [f"{format.level(scores['confidence'])} intervals; ↓ lower is better"]
    said += [f"{method['name']}: {flaws}" for method in methods if (flaws := _flaws(method["scores"]["flaws"]))]
    return "\n".join([_drawn(head, rows, width), *said])


def _flaws(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Only those that occur."""
    return ", ".join(f"{one['count']:,} {name}" for name, one in found.items() if one["count"])


def _drawn(head: Sequence[str], rows: Sequence[Sequence[str]], width: int | None) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, name in enumerate(head):
        drawn.add_column(Text(name), justify="right" if place else "left", no_wrap=True)
    for row in rows:
        drawn.add_row(*map(Text, row))
    out = io.StringIO()
    needed = sum(max(map(len, column)) + 3 for column in zip(head, *rows, strict=True))
    Console(file=out, width=width or max(92, needed, Console().width)).print(drawn)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _estimate(name: str) -> Callable[[Method], str]:
    def show(method: Method) -> str:
        found = method["scores"]["headline"].get(name)
        return f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]" if found else format.NOTHING

    return show


def _value(name: str) -> Callable[[Method], str]:
    return lambda method: format.figure(name, method["scores"]["headline"].get(name, {}).get("value"))


COLUMNS: dict[str, dict[str, Callable[[Method], str]]] = {
    "classification": {
        "accuracy": _estimate("accuracy"),
        "macro F1": _estimate("macro_f1"),
        "training": lambda method: format.training(method["costs"]),
        "per 1,000": lambda method: format.seconds(method["costs"]["seconds_per_1000"]),
        "memory": lambda method: format.megabytes(method["costs"]["peak_memory_mb"]),
    },
    "instruction": {
        "loss": _estimate("loss"),
        "ended": _value("ended"),
        "training": lambda method: format.training(method["costs"]),
        "memory": lambda method: format.megabytes(method["costs"]["peak_memory_mb"]),
        "trained": lambda method: format.trained(method["costs"]),
    },
}
"""By task: a column's head, and what it shows of a method."""
