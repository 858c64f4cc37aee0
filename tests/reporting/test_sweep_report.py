"""The report of a sweep takes titles, settings and values as text, never as markup."""

from __future__ import annotations

import re
from dataclasses import replace

from tests.sample_reports import HOSTILE, Balance, content
from tunesmith.manifest import UNKNOWN_COSTS
from tunesmith.reporting import sweep_report
from tunesmith.reporting.schema import Curve
from tunesmith.reporting.sweep_schema import SweepReport, Trial


def test_a_hostile_title_and_values_are_only_text() -> None:
    costs = replace(UNKNOWN_COSTS, train_seconds=1.0, peak_memory_mb=100.0)
    report = SweepReport(
        title=HOSTILE,
        command=f"tunesmith sweep {HOSTILE}",
        metric="accuracy",
        higher_is_better=True,
        axes=("linear.C",),
        failed=(),
        trials=(Trial("trial-1", {"linear.C": HOSTILE}, 0.5, costs, Curve(((1, 2.0), (2, 1.0)), ((2, 0.5),), "mcc")),),
        test=content(1).methods[0].scores,
    )
    text = re.sub(r"`[^`]*`", "", sweep_report.markdown(report))  # code spans are shown, not read
    assert "\\<script\\>" in text
    assert not re.search(r"(?<!\\)[<>*]", text.replace("**", ""))
    assert "](" not in text.replace("\\](", "")
    trials, scores = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    for table in (trials, scores):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    assert trials[0] == "| Trial | Accuracy | C | Trained | Training | Memory |"
    assert scores[5].startswith("| Matthews correlation | ")
    page = sweep_report.html(report)
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert "<script" not in page
