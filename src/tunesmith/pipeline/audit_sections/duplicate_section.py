"""The duplicate part of an audit."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace

from tunesmith import runs
from tunesmith.auditing import duplicate_audit
from tunesmith.auditing.duplicate_audit import DuplicateAudit, DuplicatePair
from tunesmith.auditing.findings import Finding
from tunesmith.data.rows import SPLITS
from tunesmith.pipeline.audit_sections.audit_input import AuditInput
from tunesmith.runs import Run
from tunesmith.types import Example, Splits

FILE = "duplicates.csv"


def audit(data: AuditInput) -> DuplicateAudit | None:
    """Return the part; None where it does not apply to the data. Writes all pairs into duplicates.csv."""
    index = data.splits.copies
    if index is None:
        return None
    found, pairs = duplicate_audit.audit(rows_of(data.splits), index, data.recipe.split.duplicate_threshold)
    return replace(found, file=write(data.folder, FILE, pairs))


def findings(splits: Splits) -> list[Finding]:
    """Return the findings of the part, without its pairs and its file: cheap enough for every training."""
    return [] if splits.copies is None else duplicate_audit.findings(rows_of(splits), splits.copies)


def rows_of(splits: Splits) -> dict[str, Sequence[Example]]:
    """Return the rows of each split that has some."""
    return {name: rows for name in SPLITS if (rows := getattr(splits, name))}


def write(folder: Run, name: str, pairs: Sequence[DuplicatePair]) -> str | None:
    """Write all pairs as CSV, and return the name of the file; None where there are none."""
    if pairs:
        runs.write_whole(folder.path / name, _lines(pairs))
    return name if pairs else None


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
