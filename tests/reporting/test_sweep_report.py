"""The report of a sweep takes titles, settings and values as text, never as markup."""

from __future__ import annotations

import re

from tests.sample_reports import HOSTILE, Balance
from tunesmith.reporting import sweep_report


def test_a_hostile_title_and_values_are_only_text() -> None:
    trial = {
        "run": "trial-1",
        "values": {"linear.C": HOSTILE},
        "score": 0.5,
        "costs": {"parameters": 10, "trainable": 10, "train_seconds": 1.0, "peak_memory_mb": 100.0},
        "curve": None,
    }
    content = {
        "title": HOSTILE,
        "created": "2026-11-21 12:30",
        "version": "0.1.0",
        "command": f"tunesmith sweep {HOSTILE}",
        "metric": "accuracy",
        "higher_is_better": True,
        "axes": ["linear.C"],
        "failed": [],
        "trials": [trial],
        "test": None,
    }
    text = re.sub(r"`[^`]*`", "", sweep_report.markdown(content))  # code spans are shown, not read
    assert "\\<script\\>" in text
    assert not re.search(r"(?<!\\)[<>*]", text.replace("**", ""))
    assert "](" not in text.replace("\\](", "")
    (table,) = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    page = sweep_report.html(content)
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert "<script" not in page
