"""The label part of an audit."""

from __future__ import annotations

from tunesmith.auditing.label_errors import LabelAudit
from tunesmith.pipeline.audit_sections.audit_input import AuditInput


def audit(data: AuditInput) -> LabelAudit | None:
    """Return the part; None where it does not apply to the data."""
    return None
