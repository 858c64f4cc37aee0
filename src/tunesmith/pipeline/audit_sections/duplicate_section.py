"""The duplicate part of an audit."""

from __future__ import annotations

from tunesmith.auditing.duplicate_audit import DuplicateAudit
from tunesmith.pipeline.audit_sections.audit_input import AuditInput


def audit(data: AuditInput) -> DuplicateAudit | None:
    """Return the part; None where it does not apply to the data."""
    return None
