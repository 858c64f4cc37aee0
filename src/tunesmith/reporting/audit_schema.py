"""audit.json: what an audit shows."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.auditing.active_labelling import ActiveLabellingAudit
from tunesmith.auditing.conversation_checks import ConversationAudit
from tunesmith.auditing.duplicate_audit import DuplicateAudit
from tunesmith.auditing.findings import Finding, Severity
from tunesmith.auditing.label_errors import LabelAudit
from tunesmith.auditing.learning_curves import LearningCurveAudit
from tunesmith.auditing.paraphrases import ParaphraseAudit
from tunesmith.auditing.text_profile import TextAudit
from tunesmith.records import omitted_if_none
from tunesmith.reporting.header import Header
from tunesmith.types import DataSummary

SEVERITIES: tuple[Severity, ...] = ("severe", "warning", "note")
"""The worst first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport(Header):
    """What was looked at, and what was found; a part that does not apply, or was not asked for, is None."""

    task: str
    data: DataSummary
    duplicates: DuplicateAudit | None = omitted_if_none()
    paraphrases: ParaphraseAudit | None = omitted_if_none()
    labels: LabelAudit | None = omitted_if_none()
    learning_curve: LearningCurveAudit | None = omitted_if_none()
    active_labelling: ActiveLabellingAudit | None = omitted_if_none()
    texts: TextAudit | None = omitted_if_none()
    conversations: ConversationAudit | None = omitted_if_none()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings, the severe ones first."""
        parts = (
            self.duplicates,
            self.paraphrases,
            self.labels,
            self.learning_curve,
            self.active_labelling,
            self.texts,
            self.conversations,
        )
        every = [finding for part in parts if part is not None for finding in part.findings]
        return tuple(sorted(every, key=lambda finding: SEVERITIES.index(finding.severity)))
