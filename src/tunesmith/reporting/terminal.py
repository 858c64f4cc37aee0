"""Tables for a terminal."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence

from tunesmith.evaluation.response_pairs import ResponsePair
from tunesmith.evaluation.responses import GenerationScores
from tunesmith.reporting import clean_report, curve_report, format, price_report
from tunesmith.reporting.header import DifferingSettings
from tunesmith.reporting.schema import (
    ClassificationReport,
    GenerationReport,
    MethodResult,
    MultilabelReport,
    RegressionReport,
    SamplePredictions,
)

TEXT = 100
"""Characters of a text that are shown."""


def table(
    report: ClassificationReport | MultilabelReport | RegressionReport | GenerationReport, width: int | None = None
) -> str:
    """Return one row per method: the scores that decide, with their intervals, and the main costs.

    Below are the settings in which runs of one method differ, the scores without test rows that are in train, prices,
    and the scores with fewer training rows.
    """
    lines = drawn(*method_rows(report), width)
    parts = [lines, *([differing_settings(report.differing, width)] if report.differing else [])]
    if (clean := clean_report.of(report.methods)) is not None:
        parts.append(clean_report.leaks(clean) + ("" if clean.headline else f"; {clean_report.few(clean)}"))
        parts += [drawn(*clean_report.rows(report.methods), width)] if clean.headline else []
    parts += (drawn(head, rows, width) for head, rows in price_report.figures(report))
    parts += price_report.caveats(report)
    if (curves := report.learning_curve) is not None:
        parts += [drawn(*curve_report.figures(curves), width), curve_report.about(curves)]
        parts += [finding.headline for finding in curves.findings]
    return "\n".join(parts)


def method_rows(
    report: ClassificationReport | MultilabelReport | RegressionReport | GenerationReport,
) -> tuple[list[str], list[list[str]]]:
    """Return the head and the rows of a table of methods."""
    columns = COLUMNS[report.task]
    return ["method", *columns], [
        [method.name, *(show(method) for show in columns.values())] for method in report.methods
    ]


def figures(scores: Mapping[str, GenerationScores], pairs: Sequence[ResponsePair], width: int | None = None) -> str:
    """Return one row per figure of generated answers, one column per model, and the flaws of form that occur."""
    head, *rows = format.figure_rows(scores, pairs)
    first = next(iter(scores.values()))
    lines = [drawn(head, rows, width), f"{format.level(first.confidence)} intervals; ↓ lower is better"]
    lines += filter(None, [format.short_answers_note(scores.values())])
    for name, model in scores.items():
        if flaws := [f"{flaw.count:,} {kind}" for kind, flaw in model.flaws.items() if flaw.count]:
            lines.append(f"{name}: {', '.join(flaws)}")
    return "\n".join(lines)


def differing_settings(groups: Sequence[DifferingSettings], width: int | None = None) -> str:
    """Return the settings that differ between runs of one method, a table for each method."""
    return "\n".join(
        drawn(["setting that differs", *group.runs], [[name, *values] for name, values in group.values.items()], width)
        for group in groups
    )


def sample_predictions(samples: SamplePredictions) -> str:
    """Return held-out texts with their most probable labels, two lines each."""
    lines = [f"sample predictions ({samples.split}):"]
    for row in samples.rows:
        text = " ".join(f"{row.text} {row.text_pair or ''}".split())
        labels = ", ".join(format.predicted(*each) for each in row.labels)
        lines += [f"  {text[:TEXT]}{'…' if len(text) > TEXT else ''}", f"    {row.gold}, predicted: {labels}"]
    return "\n".join(lines)


def drawn(head: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None) -> str:
    """Return a table, its first column to the left and the others to the right."""
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
    width = width or max(92, needed, Console().width)
    # else a notebook's cell gets it at once, and in colour
    Console(file=out, width=width, force_jupyter=False, force_terminal=False, color_system=None).print(drawn)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


COSTS: dict[str, Callable[[MethodResult], str]] = {
    "training": lambda method: format.training(method.costs),
    "per 1,000": lambda method: format.seconds(method.costs.seconds_per_1000),
    "memory": lambda method: format.megabytes(method.costs.peak_memory_mb),
}
LABEL_COLUMNS: dict[str, Callable[[MethodResult], str]] = {
    "accuracy": lambda method: format.estimate("accuracy", method.scores.headline["accuracy"]),
    "macro F1": lambda method: format.estimate("macro_f1", method.scores.headline["macro_f1"]),
    **COSTS,
}
LABEL_SET_COLUMNS: dict[str, Callable[[MethodResult], str]] = {
    "macro F1": lambda method: format.estimate("macro_f1", method.scores.headline["macro_f1"]),
    "micro F1": lambda method: format.estimate("micro_f1", method.scores.headline["micro_f1"]),
    **COSTS,
}
VALUE_COLUMNS: dict[str, Callable[[MethodResult], str]] = {
    "RMSE": lambda method: format.estimate("rmse", method.scores.headline["rmse"]),
    "Spearman": lambda method: format.estimate("spearman", method.scores.headline["spearman"]),
    **COSTS,
}
RESPONSE_COLUMNS: dict[str, Callable[[MethodResult], str]] = {
    "loss": lambda method: format.estimate("loss", method.scores.headline.get("loss")),
    "ended": lambda method: format.value("ended", method.scores.headline.get("ended")),
    "training": lambda method: format.training(method.costs),
    "memory": lambda method: format.megabytes(method.costs.peak_memory_mb),
    "trained": lambda method: format.trained(method.costs),
}
"""A column's head, and what it shows of a method."""
COLUMNS = {
    "classification": LABEL_COLUMNS,
    "multilabel": LABEL_SET_COLUMNS,
    "regression": VALUE_COLUMNS,
    "instruction": RESPONSE_COLUMNS,
}
