"""Duplicates and leaks."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.auditing.findings import Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateAudit:
    """Duplicates and leaks, as numbers."""

    findings: tuple[Finding, ...] = ()
