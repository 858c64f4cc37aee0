"""The conversation part of an audit."""

from __future__ import annotations

from tunesmith.auditing.conversation_checks import ConversationAudit
from tunesmith.pipeline.audit_sections.audit_input import AuditInput


def audit(data: AuditInput) -> ConversationAudit | None:
    """Return the part; None where it does not apply to the data."""
    return None
