"""The duplicate part of an audit."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace

from tunesmith import runs
from tunesmith.auditing import duplicate_audit
from tunesmith.auditing.duplicate_audit import DuplicateAudit, DuplicatePair
from tunesmith.data.rows import SPLITS
from tunesmith.pipeline.audit_sections.audit_input import AuditInput

FILE = "duplicates.csv"


def audit(data: AuditInput) -> DuplicateAudit | None:
    """Return the part; None where it does not apply to the data. Writes all pairs into duplicates.csv."""
    index = data.splits.copies
    if index is None:
        return None
    rows_by_split = {name: rows for name in SPLITS if (rows := getattr(data.splits, name))}
    found, pairs = duplicate_audit.audit(rows_by_split, index, data.recipe.split.duplicate_threshold)
    if pairs:
        runs.write_whole(data.folder.path / FILE, _lines(pairs))
        found = replace(found, file=FILE)
    return found


def _lines(pairs: Sequence[DuplicatePair]) -> Iterator[bytes]:
    """Yield the lines of a CSV file, with a header."""
    columns = [field.name for field in fields(DuplicatePair)]
    yield _line(columns)
    for pair in pairs:
        values = replace(pair, similarity=round(pair.similarity, 4))
        yield _line([", ".join(v) if isinstance(v := getattr(values, name), tuple) else str(v) for name in columns])


def _line(values: Sequence[str]) -> bytes:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue().encode("utf-8", "replace")
