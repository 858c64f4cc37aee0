"""The learning curve part of an audit."""

from __future__ import annotations

from tunesmith.auditing.learning_curves import LearningCurveAudit
from tunesmith.pipeline.audit_sections.audit_input import AuditInput


def audit(data: AuditInput) -> LearningCurveAudit | None:
    """Return the part; None where it does not apply to the data."""
    return None
