"""Tables for a terminal."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence

from tunesmith.evaluation.format_checks import FormatFlaw
from tunesmith.evaluation.response_pairs import ResponsePair
from tunesmith.evaluation.responses import GenerationScores
from tunesmith.reporting import format
from tunesmith.reporting.format import AnyEstimate
from tunesmith.reporting.schema import ClassificationReport, GenerationReport, MethodResult


def table(report: ClassificationReport | GenerationReport, width: int | None = None) -> str:
    """One row per method: the scores that decide, with their intervals, and the main costs; the report has all."""
    columns = RESPONSE_COLUMNS if isinstance(report, GenerationReport) else LABEL_COLUMNS
    rows = [[method.name, *(show(method) for show in columns.values())] for method in report.methods]
    return _drawn(["method", *columns], rows, width)


def figures(scores: Mapping[str, GenerationScores], pairs: Sequence[ResponsePair], width: int | None = None) -> str:
    """One row per figure of generated answers, one column per model; of two models also their difference and its p."""
    first = next(iter(scores.values()))
    pair = pairs[0] if len(pairs) == 1 else None
    head = [f"{first.answered:,} answers", *scores, *([f"{pair.a} − {pair.b}", "p"] if pair else [])]
    rows = []
    for name in format.shown(scores.values()):
        tested = [format.difference(name, pair, scores), format.probability(name, pair)] if pair else []
        estimates = [format.estimate(name, of_one.headline.get(name)) for of_one in scores.values()]
        rows.append([format.directed(name), *estimates, *tested])
    lines = [f"{format.level(first.confidence)} intervals; ↓ lower is better"]
    lines += [f"{name}: {flaws}" for name, of_one in scores.items() if (flaws := _flaws(of_one.flaws))]
    return "\n".join([_drawn(head, rows, width), *lines])


def _flaws(flaws: Mapping[str, FormatFlaw]) -> str:
    """Only those that occur."""
    return ", ".join(f"{flaw.count:,} {name}" for name, flaw in flaws.items() if flaw.count)


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


def _headline(method: MethodResult, name: str) -> AnyEstimate | None:
    known: AnyEstimate | None = method.scores.headline.get(name)
    return known


def _share(method: MethodResult, name: str) -> str:
    known = _headline(method, name)
    return format.figure(name, known.value if known else None)


LABEL_COLUMNS: dict[str, Callable[[MethodResult], str]] = {
    "accuracy": lambda method: format.estimate("accuracy", _headline(method, "accuracy")),
    "macro F1": lambda method: format.estimate("macro_f1", _headline(method, "macro_f1")),
    "training": lambda method: format.training(method.costs),
    "per 1,000": lambda method: format.seconds(method.costs.seconds_per_1000),
    "memory": lambda method: format.megabytes(method.costs.peak_memory_mb),
}
RESPONSE_COLUMNS: dict[str, Callable[[MethodResult], str]] = {
    "loss": lambda method: format.estimate("loss", _headline(method, "loss")),
    "ended": lambda method: _share(method, "ended"),
    "training": lambda method: format.training(method.costs),
    "memory": lambda method: format.megabytes(method.costs.peak_memory_mb),
    "trained": lambda method: format.trained(method.costs),
}
"""A column's head, and what it shows of a method."""
