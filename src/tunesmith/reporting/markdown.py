"""What both kinds of report write in Markdown: tables, and text that Markdown, HTML or a table must not act on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def plain(text: object) -> str:
    """Text from the data on one line, with nothing left in it that Markdown, HTML or a table would act on."""
    return re.sub(r"([\\`*<>\[\]|&~$])", r"\\\1", " ".join(str(text).split()))


def code(text: object) -> str:
    """In backticks; a backtick or a pipe inside would end the code or the table's cell."""
    return "`" + " ".join(str(text).split()).replace("`", "'").replace("|", "\\|") + "`"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The first column is text, the others are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def listing(labels: Sequence[str], most: int = 25) -> str:
    """The first labels by name, the others as a number."""
    shown = ", ".join(plain(label) for label in labels[:most])
    return shown if len(labels) <= most else f"{shown} and {len(labels) - most} more"


def data_parts(data: Mapping[str, Any]) -> list[str]:
    """Paragraphs on the source, the splits and what reading changed."""
    head = ["Split", "Rows", "Median characters", "95% below", "Longest", "Fingerprint"]
    rows = ([name, *_split_row(split)] for name, split in data["splits"].items())
    made = f" Cut here: {', '.join(data['made'])}." if data["made"] else " Every split came with the data."
    changes = "\n".join(f"- {plain(c['what'])}: {c['count']:,}{_where(c['where'])}" for c in data["changes"])
    source = f"Source: {code(data['source'])}, fingerprint {code(data['fingerprint'][:12])}.{made}"
    return [source, table(head, rows), *([changes] if changes else [])]


def _split_row(split: Mapping[str, Any]) -> list[str]:
    lengths = split["characters"]
    sizes = (split["rows"], lengths["median"], lengths["p95"], lengths["max"])
    return [*(f"{size:,.0f}" for size in sizes), code(split["fingerprint"][:12])]


def _where(ids: Sequence[str]) -> str:
    return f" ({', '.join(code(one) for one in ids)})" if ids else ""


def hub_name(source: str) -> str:
    """The hub takes only `name` or `owner/name` as a data set's type."""
    if re.fullmatch(r"(?:[\w-]+/)?[\w.-]+", source, re.ASCII):
        return source
    return re.sub(r"[^\w.]+", "-", source, flags=re.ASCII).strip("-.") or "unknown"


def environment_table(environment: Mapping[str, Any]) -> str:
    """Machine, seed and versions."""
    flat = {key: value for key, value in environment.items() if key != "packages" and value is not None}
    rows = [[key.replace("_", " "), plain(value)] for key, value in {**flat, **environment["packages"]}.items()]
    return table(["What", "Version or value"], rows)


def sign(report: Mapping[str, Any]) -> str:
    """The last line: what made the report."""
    return f"Made with tunesmith {plain(report['version'])} on {plain(report['created'])}: {code(report['command'])}"
