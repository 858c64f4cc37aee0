"""The report of an audit: a headline for each finding, then each part in full."""

from __future__ import annotations

from collections import Counter

from tunesmith.reporting import curve_report, page
from tunesmith.reporting.audit_schema import SEVERITIES, AuditReport
from tunesmith.reporting.format import counted
from tunesmith.reporting.markdown import plain, sign

SHOWN = 3
"""Ids beside a headline, at most."""


def html(report: AuditReport) -> str:
    """Return the report as one self-contained page."""
    values = {"curve_rows": curve_report.rows, "gain": curve_report.gain, "law": curve_report.law}
    return page.render("audit.html.j2", report=report, verdict=headline(report), **values)


def markdown(report: AuditReport) -> str:
    """Return the findings in Markdown."""
    parts = [f"# Audit: {plain(report.title)}", f"**{plain(headline(report))}**"]
    parts += [
        f"- **{finding.severity}**: {plain(finding.headline)} {plain(finding.do)}".rstrip()
        for finding in report.findings
    ]
    sections = [
        *(curve_report.curve_parts(report.learning_curve) if report.learning_curve else ()),
        *(curve_report.labelling_parts(report.active_labelling) if report.active_labelling else ()),
    ]
    return "\n\n".join([*parts[:2], "\n".join(parts[2:]), *sections, sign(report)]) + "\n"


def headline(report: AuditReport) -> str:
    """Return how many findings there are, by severity."""
    counts = Counter(finding.severity for finding in report.findings)
    names = {"severe": "severe finding", "warning": "warning", "note": "note"}
    found = [counted(counts[severity], names[severity]) for severity in SEVERITIES if counts[severity]]
    return f"{', '.join(found)}." if found else "Nothing was found."


def lines(report: AuditReport) -> list[str]:
    """Return the findings as lines for a terminal, the severe ones first."""
    texts = [headline(report)]
    for finding in report.findings:
        more = " ..." if (finding.rows or 0) > SHOWN else ""
        where = f" ({', '.join(finding.where[:SHOWN])}{more})" if finding.where else ""
        texts.append(f"{finding.severity:8} {finding.headline}{where}\n{'':9}{finding.do}")
    return texts
