"""What `train` and `compare` say of the data before they begin: the worst findings of the cheap parts of an audit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tunesmith.auditing.findings import Finding
from tunesmith.pipeline.audit_sections import duplicate_section
from tunesmith.reporting import audit_report
from tunesmith.types import Splits

CHEAP: Sequence[Callable[[Splits], Sequence[Finding]]] = (duplicate_section.findings,)
"""The parts that cost little beside any training: from splits to findings."""


def lines(splits: Splits) -> list[str]:
    """Return at most three lines: the two worst findings, and where to see all of them."""
    if splits.is_stream:  # nobody knows its copies
        return []
    return audit_report.summary([finding for part in CHEAP for finding in part(splits)])
