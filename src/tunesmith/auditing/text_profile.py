"""What texts are made of: lengths, languages, encodings, personal data, shared text, leaks of labels, drift."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tunesmith.auditing import boilerplate, encoding_problems, languages
from tunesmith.auditing.boilerplate import SharedText
from tunesmith.auditing.drift import Drift, LabelShift
from tunesmith.auditing.encoding_problems import EncodingProblem
from tunesmith.auditing.findings import Finding
from tunesmith.auditing.label_leaks import LabelLeaks
from tunesmith.auditing.languages import LanguageProfile
from tunesmith.auditing.row_counts import RowCount
from tunesmith.auditing.time_order import TimeColumn
from tunesmith.data import personal_data, summary
from tunesmith.records import omitted_if_none
from tunesmith.types import Quantiles

VERY_LONG = 20
"""Times the median length, from which on a text is called very long."""


@dataclass(frozen=True, slots=True)
class TextColumn:
    """The texts of one kind of all rows: the texts, the second texts of pairs, the prompts, or the responses."""

    name: str
    ids: Sequence[str]
    texts: Sequence[str]
    splits: Sequence[str]
    """The split of each text."""
    labels: Sequence[str | None] | None = None
    """The label of each text, where a text has one label at most."""


@dataclass(frozen=True, slots=True)
class PersonalData:
    """Personal data of one kind. What it is, is never shown."""

    kind: str
    matches: int
    count: RowCount


@dataclass(frozen=True, slots=True)
class ColumnProfile:
    """What the texts of a column are made of."""

    column: str
    rows: int
    words: dict[str, Quantiles]
    """Words of a text, by split; of scripts without spaces, runs of characters between them."""
    very_long: RowCount
    """Texts of more than VERY_LONG times the median number of characters."""
    one_word: RowCount
    """Texts without a space."""
    languages: LanguageProfile
    problems: tuple[EncodingProblem, ...]
    personal: tuple[PersonalData, ...]
    shared: tuple[SharedText, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextAudit:
    """What texts are made of, as numbers."""

    findings: tuple[Finding, ...] = ()
    columns: tuple[ColumnProfile, ...]
    leaks: LabelLeaks | None = omitted_if_none()
    """None where rows have neither labels nor numbers."""
    drift: Drift | None = omitted_if_none()
    """Between train and test; None for too few rows."""
    label_shift: LabelShift | None = omitted_if_none()
    times: tuple[TimeColumn, ...] = field(default=())


def profile(column: TextColumn, seed: int) -> ColumnProfile:
    """Return what the texts of a column are made of. seed: of the texts whose language is identified."""
    words: dict[str, list[int]] = {}
    for text, split in zip(column.texts, column.splits, strict=True):
        words.setdefault(split, []).append(len(text.split()))
    lengths = np.array([len(text) for text in column.texts])
    longest = VERY_LONG * float(np.median(lengths))
    rows = list(zip(column.ids, column.texts, strict=True))
    return ColumnProfile(
        column=column.name,
        rows=len(rows),
        words={split: summary.quantiles(counts) for split, counts in words.items()},
        very_long=RowCount.of(row for row, text in rows if len(text) > longest),
        one_word=RowCount.of(row for row, text in rows if len(text.split(None, 1)) < 2),
        languages=languages.profile(column.ids, column.texts, seed),
        problems=encoding_problems.find(column.ids, column.texts),
        personal=_personal(rows),
        shared=boilerplate.find(column.ids, column.texts, column.labels),
    )


def _personal(rows: Sequence[tuple[str, str]]) -> tuple[PersonalData, ...]:
    matches = Counter[str]()
    ids: dict[str, list[str]] = {}
    for row, text in rows:
        kinds = [kind for _, _, kind in personal_data.spans(text)]
        matches.update(kinds)
        for kind in dict.fromkeys(kinds):
            ids.setdefault(kind, []).append(row)
    return tuple(PersonalData(kind, matches[kind], RowCount.of(ids[kind])) for kind in sorted(ids))
