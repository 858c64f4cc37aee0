"""Labels that are probably wrong."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.auditing.findings import Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelAudit:
    """Labels that are probably wrong, as numbers."""

    findings: tuple[Finding, ...] = ()
