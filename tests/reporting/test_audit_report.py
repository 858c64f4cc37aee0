"""The report of an audit: what a page, Markdown and the terminal say of findings."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from tests.random_rows import random_rows
from tunesmith.auditing.findings import Finding, Severity
from tunesmith.auditing.row_counts import RowCount
from tunesmith.auditing.text_profile import TextAudit
from tunesmith.data import splits, summary
from tunesmith.reporting import audit_report
from tunesmith.reporting.audit_schema import AuditReport
from tunesmith.types import Splits

HOSTILE = "<script>alert(1)</script> | `x` \x1b[31m"


def report(
    *severities: Severity, headline: str = "A sentence. And more.", do: str = "Set data.encoding."
) -> AuditReport:
    rows = tuple(random_rows(20))
    data = Splits(rows, (), (), ("no", "yes"), splits.fingerprints({"train": rows}))
    found = tuple(
        Finding(headline=headline, severity=severity, rows=7, where=("a.csv:2", "a.csv:3"), do=do)
        for severity in severities
    )
    texts = TextAudit(findings=found, columns=())
    return AuditReport(title="A", task="classification", data=summary.summarize(data, "a.csv"), texts=texts)


class Page(HTMLParser):
    """The classes of the items of a list, the tags of a page, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.items: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "li":
            self.items.append(dict(attrs).get("class") or "")

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def test_the_worst_comes_first_and_is_marked_by_word_and_shape() -> None:
    html = audit_report.html(report("note", "severe", "warning"))
    page = Page(html)
    assert [item for item in page.items if item.startswith("finding")] == [
        "finding severe",
        "finding warning",
        "finding note",
    ]
    marked = [text for text in page.texts if text in ("Severe", "Warning", "Note")]
    assert marked == ["Severe", "Warning", "Note"]
    shapes = re.findall(r'<p class="severity"><svg[^>]*aria-hidden="true">(.*?)</svg>', html)
    assert len(set(shapes)) == 3


def test_a_page_has_no_scripts_and_asks_for_nothing() -> None:
    html = audit_report.html(report("note", headline=HOSTILE, do=HOSTILE))
    assert "script" not in Page(html).tags
    assert not re.search(r"\b(?:src|href)=\"(?!#)", html)


def test_texts_of_the_data_do_nothing_in_markdown_and_terminal() -> None:
    found = report("note", headline=HOSTILE, do=HOSTILE)
    assert "<script>" not in audit_report.markdown(found)
    assert "\x1b" not in audit_report.markdown(found)


@pytest.mark.parametrize(
    ("severities", "text"),
    [
        ((), "Nothing was found."),
        (("note",), "Nothing severe: 1 note."),
        (("note", "note", "warning"), "Nothing severe: 1 warning and 2 notes."),
        (("note", "severe", "warning", "severe"), "2 severe findings, 1 warning and 1 note."),
    ],
)
def test_the_headline_counts_findings(severities: tuple[Severity, ...], text: str) -> None:
    assert audit_report.headline(report(*severities)) == text


def test_settings_commands_and_options_are_code() -> None:
    text = "Set data.encoding, or split.test=none; serve.guard.mask=[email, phone]. `tunesmith check` and a.csv help."
    assert audit_report.marked(text) == [
        ("Set ", False),
        ("data.encoding", True),
        (", or ", False),
        ("split.test=none", True),
        ("; ", False),
        ("serve.guard.mask=[email, phone]", True),
        (". ", False),
        ("tunesmith check", True),
        (" and a.csv help.", False),
    ]
    assert "".join(piece for piece, _ in audit_report.marked("data.encodings is none")) == "data.encodings is none"


@pytest.mark.parametrize(
    ("text", "first", "more"),
    [
        ("One sentence.", "One sentence.", ""),
        ("HTML in 3 texts (0.4%). For instance “x”.", "HTML in 3 texts (0.4%).", "For instance “x”."),
        ("AUC 0.62 [0.61, 0.63]. Words: a.", "AUC 0.62 [0.61, 0.63].", "Words: a."),
        ("It has 18% in v. 2 of it", "It has 18% in v.", "2 of it"),
    ],
)
def test_a_headline_is_its_first_sentence(text: str, first: str, more: str) -> None:
    assert audit_report.split_headline(text) == (first, more)


def test_a_count_names_the_first_rows() -> None:
    assert RowCount.of(str(n) for n in range(9)) == RowCount(9, ("0", "1", "2", "3", "4"))
