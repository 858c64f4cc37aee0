"""What every report writes in Markdown: tables, and text that Markdown, HTML or a table must not act on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from tunesmith import records
from tunesmith.console import printable
from tunesmith.hardware import Environment
from tunesmith.reporting.format import count, megabytes, seconds, trained, training
from tunesmith.reporting.header import Header
from tunesmith.reporting.schema import MethodResult, Report
from tunesmith.types import DataSummary

QUOTED = 280
"""Characters of a text that `quote` shows."""


def plain(text: object) -> str:
    """Text from the data on one line, with nothing left in it that Markdown, HTML or a table would act on."""
    return re.sub(r"([\\`*<>\[\]|&~$])", r"\\\1", printable(" ".join(str(text).split())))


def code(text: object) -> str:
    """In backticks; a backtick or a pipe inside would end the code or the table's cell."""
    return "`" + printable(" ".join(str(text).split())).replace("`", "'").replace("|", "\\|") + "`"


def quote(text: str) -> str:
    """The beginning of a text from the data."""
    if not text.strip():
        return "*(empty)*"
    return plain(text if len(text) <= QUOTED else f"{text[:QUOTED].rstrip()}…")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The first column is text, the others are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def listing(labels: Sequence[str], most: int = 25) -> str:
    """The first labels by name, the others as a number."""
    shown = ", ".join(plain(label) for label in labels[:most])
    return shown if len(labels) <= most else f"{shown} and {len(labels) - most} more"


def cost_table(methods: Sequence[MethodResult], predicted: str = "predictions") -> str:
    """What each method took. predicted: what it gives for a row."""
    rows = []
    for method in methods:
        costs = method.costs
        times = [training(costs), seconds(costs.seconds_per_1000), megabytes(costs.peak_memory_mb)]
        rows.append([plain(method.name), *times, count(costs.parameters), trained(costs), megabytes(costs.size_mb)])
    head = ["Method", "Training", f"1,000 {predicted}", "Peak memory", "Parameters", "Trained", "Size"]
    return table(head, rows)


def differing_tables(report: Report) -> list[str]:
    """The settings that differ between runs of one method, a table for each method."""
    parts = []
    for group in report.differing or ():
        rows = ([code(setting), *map(plain, values)] for setting, values in group.values.items())
        parts.append(table(["Setting that differs", *map(plain, group.runs)], rows))
    return parts


def data_parts(data: DataSummary) -> list[str]:
    """Paragraphs on the source, the splits and what reading changed."""
    rows = []
    for name, split in data.splits.items():
        sizes = (split.rows, split.characters.median, split.characters.p95, split.characters.max)
        shown = f"{name} (the first rows of a stream)" if split.is_stream else name
        rows.append([shown, *(f"{size:,.0f}" for size in sizes), code(split.fingerprint[:12])])
    made = f" Split off here: {', '.join(data.made)}." if data.made else " Every split came with the data."
    source = f"Source: {code(data.source)}, fingerprint {code(data.fingerprint[:12])}.{made}"
    parts = [source, table(["Split", "Rows", "Median characters", "95% below", "Longest", "Fingerprint"], rows)]
    changes = []
    for note in data.changes:
        where = f" ({', '.join(map(code, note.where))})" if note.where else ""
        changes.append(f"- {plain(note.what)}: {note.count:,}{where}")
    return [*parts, "\n".join(changes)] if changes else parts


def hub_name(source: str) -> str:
    """The hub takes only `name` or `owner/name` as a data set's type."""
    if re.fullmatch(r"(?:[\w-]+/)?[\w.-]+", source, re.ASCII):
        return source
    return re.sub(r"[^\w.]+", "-", source, flags=re.ASCII).strip("-.") or "unknown"


def environment_table(environment: Environment) -> str:
    """Machine, seed and versions."""
    entries = records.dump(environment)
    packages = entries.pop("packages")
    rows = [[key.replace("_", " "), plain(value)] for key, value in (entries | packages).items() if value is not None]
    return table(["What", "Version or value"], rows)


def sign(header: Header) -> str:
    """The last line: what made the report."""
    return f"Made with tunesmith {plain(header.version)} on {plain(header.created)}: {code(header.command)}"
