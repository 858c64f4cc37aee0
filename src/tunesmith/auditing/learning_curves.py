"""Scores at growing training sizes."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.auditing.findings import Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningCurveAudit:
    """Scores at growing training sizes, as numbers."""

    findings: tuple[Finding, ...] = ()
