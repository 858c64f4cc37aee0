"""What texts are made of."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.auditing.findings import Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class TextAudit:
    """What texts are made of, as numbers."""

    findings: tuple[Finding, ...] = ()
