"""The conversation part of an audit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tunesmith.auditing import conversation_checks, conversation_findings
from tunesmith.auditing.conversation_checks import ConversationAudit, LossOutliers, LossRow
from tunesmith.errors import RecipeError
from tunesmith.pipeline.audit_sections.audit_input import AuditInput
from tunesmith.types import Example

MOST_LOSSES = 1000
"""Conversations whose loss is computed; of more, this number is drawn."""


def audit(data: AuditInput) -> ConversationAudit | None:
    """Return what the conversations of all splits are made of; None where nothing is answered.

    Raises RecipeError where losses are asked for of rows without responses.
    """
    splits = data.splits
    rows_by_split = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    part = conversation_checks.audit(rows_by_split)
    if part is None:
        if data.plan.loss_outliers:
            raise RecipeError(
                "--loss-outliers is about responses to instructions",
                found=f"rows of task {data.recipe.task} without responses",
                do="leave it out, or set task=instruction",
            )
        return None
    if data.plan.loss_outliers:
        rows = [row for rows in rows_by_split.values() for row in rows if len(row.messages) > 1]
        part = replace(part, losses=_losses(data, rows))
    return replace(part, findings=conversation_findings.of(part))


def _losses(data: AuditInput, rows: Sequence[Example]) -> LossOutliers | None:
    from tunesmith.pipeline import generated_responses, task_table
    from tunesmith.pipeline.fitting import generators
    from tunesmith.prediction.generate import Generator

    if len(rows) > MOST_LOSSES:
        places = np.random.Generator(np.random.PCG64(data.recipe.seed)).permutation(len(rows))[:MOST_LOSSES]
        rows = [rows[place] for place in np.sort(places).tolist()]
    generator = generators.untuned(task_table.job_of(data.recipe, data.splits, data.folder)).predictor
    assert isinstance(generator, Generator)
    losses = [
        LossRow(row.id, loss / tokens, tokens)
        for row, (loss, tokens) in zip(rows, generated_responses.losses(generator, rows), strict=True)
        if tokens
    ]
    return conversation_checks.loss_outliers(data.recipe.model.name_or_path, losses)
