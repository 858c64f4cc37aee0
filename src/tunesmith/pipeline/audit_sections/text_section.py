"""The text part of an audit."""

from __future__ import annotations

from tunesmith.auditing.text_profile import TextAudit
from tunesmith.pipeline.audit_sections.audit_input import AuditInput


def audit(data: AuditInput) -> TextAudit | None:
    """Return the part; None where it does not apply to the data."""
    return None
