"""The text part of an audit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from tunesmith.auditing import drift, label_leaks, reading_findings, text_findings, text_profile, time_order
from tunesmith.auditing.text_profile import TextAudit, TextColumn
from tunesmith.auditing.time_order import TimeColumn
from tunesmith.data import time_columns
from tunesmith.pipeline.audit_sections.audit_input import AuditInput
from tunesmith.types import Example


def audit(data: AuditInput) -> TextAudit | None:
    """Return what the texts of all splits are made of."""
    splits, seed = data.splits, data.recipe.seed
    rows_by_split = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    held_out = [*splits.validation, *splits.test]
    gold = any(row.gold is not None for row in splits.train)
    profiles = tuple(text_profile.profile(column, seed) for column in columns(rows_by_split))
    part = TextAudit(
        columns=profiles,
        leaks=label_leaks.find(splits.train, held_out, splits.labels) if gold else None,
        drift=drift.compare(("train", "test"), splits.train, splits.test, seed, splits.copies),
        label_shift=drift.label_shift(splits.train, splits.test),
        times=_times(data, rows_by_split),
    )
    counts = Counter(label for row in splits.train for label in row.all_labels)
    found = text_findings.of(part, dict(counts), made="test" in splits.made)
    return replace(part, findings=(*reading_findings.of(splits.notes), *found))


def columns(rows_by_split: dict[str, Sequence[Example]]) -> list[TextColumn]:
    """Return the texts, and the second texts of pairs; of conversations the prompts and the responses."""
    rows = [row for split_rows in rows_by_split.values() for row in split_rows]
    splits = [name for name, split_rows in rows_by_split.items() for _ in split_rows]
    ids = [row.id for row in rows]
    labels = [row.label for row in rows] if any(row.label is not None for row in rows) else None
    if not any(row.messages for row in rows):
        texts = [TextColumn("text", ids, [row.text for row in rows], splits, labels)]
        if any(row.text_pair is not None for row in rows):
            texts.append(TextColumn("text_pair", ids, [row.text_pair or "" for row in rows], splits, labels))
        return texts
    responses = [row.messages[-1].content for row in rows]
    if all(len(row.messages) == 1 for row in rows):  # raw texts, which answer nothing
        return [TextColumn("text", ids, responses, splits)]
    return [
        TextColumn("prompt", ids, [row.text for row in rows], splits),
        TextColumn("response", ids, responses, splits),
    ]


def _times(data: AuditInput, rows_by_split: dict[str, Sequence[Example]]) -> tuple[TimeColumn, ...]:
    ids: Sequence[str] = [row.id for rows in rows_by_split.values() for row in rows]
    made, seed, index = "test" in data.splits.made, data.recipe.seed, data.splits.copies
    known = time_columns.read(data.recipe.data, data.recipe.split, ids)
    found = (time_order.compare(name, times, rows_by_split, made, seed, index) for name, times in known.items())
    return tuple(time for time in found if time is not None)
