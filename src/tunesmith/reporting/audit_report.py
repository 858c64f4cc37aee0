"""The report of an audit: a headline for each finding, then each part in full."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from tunesmith import recipe as recipes
from tunesmith.auditing.findings import Finding, Severity
from tunesmith.reporting import (
    audit_conversation_report,
    audit_text_report,
    curve_report,
    duplicate_report,
    label_audit_report,
    page,
    paraphrase_report,
)
from tunesmith.reporting.audit_schema import SEVERITIES, AuditReport
from tunesmith.reporting.format import counted
from tunesmith.reporting.markdown import code, data_parts, plain, sign

SUMMARIZED = 2
"""Findings of a summary."""
SHOWN = 3
"""Ids beside a headline in the terminal, at most."""
PARTS: dict[str, tuple[str, Callable[[Any, AuditReport], list[str]]]] = {
    "duplicates": ("Duplicates and leaks", lambda part, report: duplicate_report.markdown(part)),
    "paraphrases": (paraphrase_report.TITLE, lambda part, report: paraphrase_report.markdown(part)),
    "labels": ("Wrong labels", lambda part, report: label_audit_report.markdown(part, report.data.labels)),
    "learning_curve": ("Learning curve", lambda part, report: curve_report.curve_parts(part)),
    "active_labelling": ("Which rows to label next", lambda part, report: curve_report.labelling_parts(part)),
    "texts": ("Texts", lambda part, report: audit_text_report.markdown(part)),
    "conversations": ("Instructions and responses", lambda part, report: audit_conversation_report.markdown(part)),
}
"""The parts in the order of the page: title, and what Markdown says. The page has `audit_NAME.html.j2`."""
MEANINGS: dict[Severity, str] = {
    "severe": "Severe: scores on this data mislead.",
    "warning": "Warning: worth a look before training.",
    "note": "Note: good to know.",
}


def html(report: AuditReport) -> str:
    """Return the report as one self-contained page."""
    parts = [(name, title) for name, (title, _) in PARTS.items() if getattr(report, name) is not None]
    severities = {finding.severity for finding in report.findings}
    return page.render(
        "audit.html.j2",
        report=report,
        verdict=headline(report),
        legend=" ".join(MEANINGS[severity] for severity in SEVERITIES if severity in severities),
        parts=parts,
        marked=marked,
        split_headline=split_headline,
        duplicates=duplicate_report,
        paraphrases=paraphrase_report,
        label_report=label_audit_report,
        texts=audit_text_report,
        conversations=audit_conversation_report,
    )


def markdown(report: AuditReport) -> str:
    """Return the findings, and the tables of each part, in Markdown."""
    parts = [f"# Audit: {plain(report.title)}", f"**{plain(headline(report))}**"]
    for finding in report.findings:
        where = f" ({', '.join(map(code, finding.where))})" if finding.where else ""
        text = "".join(code(piece) if is_code else plain_piece(piece) for piece, is_code in marked(finding.do))
        parts.append(f"- **{finding.severity.capitalize()}**: {plain(finding.headline)}{where}\n  {text}".rstrip())
    parts[2:] = ["\n".join(parts[2:])] if parts[2:] else []
    for name, (_, written) in PARTS.items():
        if (part := getattr(report, name)) is not None:
            parts += written(part, report)
    return "\n\n".join([*parts, "## Data", *data_parts(report.data), sign(report)]) + "\n"


def plain_piece(text: str) -> str:
    """Return a part of a sentence for Markdown, with the spaces at its ends."""
    before, after = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]
    return f"{before}{plain(text)}{after}" if text.strip() else text


def marked(text: str) -> list[tuple[str, bool]]:
    """Split a sentence into pieces, each with whether it is code: a setting, also with its value, or in backticks."""
    pieces, behind = [], 0
    for match in _code().finditer(text):
        pieces += [(text[behind : match.start()], False), (match[0].strip("`"), True)]
        behind = match.end()
    return [piece for piece in [*pieces, (text[behind:], False)] if piece[0]]


@cache
def _code() -> re.Pattern[str]:
    settings = sorted((re.escape(name) for name, _ in recipes.fields() if "." in name), key=len, reverse=True)
    return re.compile(
        rf"`[^`\n]+`|(?<![\w.])(?:{'|'.join(settings)})\b(?:=(?:\[[^\]]*\]|[\w./-]*\w))?|(?<!\S)--[a-z-]+"
    )


def split_headline(text: str) -> tuple[str, str]:
    """Split a headline into its first sentence, and what follows."""
    first = re.match(r".+?\w[%)\]”'\"]*[.!?](?= +[A-Z0-9“])", text)
    return (first[0], text[first.end() :].strip()) if first else (text, "")


def headline(report: AuditReport) -> str:
    """Return how many findings there are, by severity."""
    counts = Counter(finding.severity for finding in report.findings)
    names: dict[Severity, str] = {"severe": "severe finding", "warning": "warning", "note": "note"}
    found = [counted(counts[severity], names[severity]) for severity in SEVERITIES if counts[severity]]
    if not found:
        return "Nothing was found."
    listed = " and ".join(filter(None, [", ".join(found[:-1]), found[-1]]))
    return f"{listed}." if counts["severe"] else f"Nothing severe: {listed}."


def summary(findings: Sequence[Finding]) -> list[str]:
    """Return the worst findings in SUMMARIZED lines, and in another one where to see all."""
    ranked = sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
    texts = [f"{finding.severity}: {finding.headline}" for finding in ranked[:SUMMARIZED]]
    if not ranked:
        texts.append("no duplicates, within or across splits")
    more = len(ranked) - SUMMARIZED
    others = f"{counted(more, 'more finding')}; " if more > 0 else ""
    return [*texts, f"{others}`tunesmith audit` lists the rows and what to do, and checks labels and texts"]


def lines(report: AuditReport) -> list[str]:
    """Return the findings as lines for a terminal, the severe ones first."""
    texts = [headline(report)]
    for finding in report.findings:
        more = " ..." if (finding.rows or 0) > SHOWN else ""
        where = f" ({', '.join(finding.where[:SHOWN])}{more})" if finding.where else ""
        texts.append(f"{finding.severity:8} {finding.headline}{where}\n{'':9}{finding.do}")
    return texts
