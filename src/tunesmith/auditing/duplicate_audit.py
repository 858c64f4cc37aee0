"""Duplicates and leaks: how many rows are copies of others, how alike they are, and what to do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from tunesmith.auditing.findings import Finding, Severity
from tunesmith.data import duplicates, example_table, near_duplicates, personal_data, splits, text_folds
from tunesmith.data.rows import SHOWN
from tunesmith.types import DuplicateGrade, DuplicateIndex, Example, RowCopy

GRADES: tuple[DuplicateGrade, ...] = ("exact", "normalised", "near")
PAIRS_SHOWN = 8
"""Pairs of each grade that a report shows for two splits."""
MOST_CHARACTERS = 2000
"""Of a text that a report shows."""
SEVERE_SHARE = 0.001
"""Share of the test rows from which copies of them in train are severe: below that no score can change by more."""
NOTABLE_SHARE = 0.05
"""Share of a split's rows from which repeated rows are a warning."""


@dataclass(frozen=True, slots=True)
class DuplicatePair:
    """Two rows that are copies of one another."""

    split: str
    id: str
    other_split: str
    other_id: str
    grade: DuplicateGrade
    similarity: float
    """Jaccard similarity of words and word pairs; 1 of rows that are equal after all folds; of grade `paraphrase` the
    cosine similarity of embeddings."""
    folds: tuple[str, ...]
    """Of grade `normalised`: the folds that make the rows equal."""
    text: str
    """All texts of the row; cut after MOST_CHARACTERS where a report shows it."""
    other_text: str


@dataclass(frozen=True, slots=True)
class DuplicateCount:
    """How many rows of a split are copies of rows of another one, or of earlier rows of the same."""

    split: str
    other: str
    rows: int
    """Of `split`."""
    exact: int
    normalised: int
    near: int
    others: int
    """Rows of `other` that are copies of rows of `split`; within a split the rows that are repeated."""

    @property
    def copies(self) -> int:
        """Rows of all grades."""
        return self.exact + self.normalised + self.near

    @property
    def share(self) -> float:
        """The share of the rows of `split` that are copies."""
        return self.copies / self.rows if self.rows else 0.0

    @property
    def within(self) -> bool:
        """Whether both rows lie in one split."""
        return self.split == self.other


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateAudit:
    """Duplicates and leaks, as numbers."""

    threshold: float
    """Jaccard similarity from which texts are near-duplicates; at 1 none were sought."""
    counts: tuple[DuplicateCount, ...] = ()
    """Of each pair of splits, leaks into test first, and of each split."""
    folds: dict[str, int]
    """By fold, how many of the normalised copies it makes equal, perhaps with others."""
    pairs: tuple[DuplicatePair, ...] = ()
    """The most alike of each grade, for each pair of splits; the file holds all."""
    file: str | None = None
    """The file with all pairs; None where there are none."""
    findings: tuple[Finding, ...] = ()


def findings(rows_by_split: Mapping[str, Sequence[Example]], index: DuplicateIndex) -> list[Finding]:
    """Return what the audit says, without its pairs: cheap enough for every training."""
    return _findings(list(_counted(rows_by_split, index)), rows_by_split, index)


def _findings(
    counted: Sequence[tuple[DuplicateCount, Sequence[RowCopy]]],
    rows_by_split: Mapping[str, Sequence[Example]],
    index: DuplicateIndex,
) -> list[Finding]:
    return [
        *(_finding(of_splits, copies) for of_splits, copies in counted),
        *_contradictions(rows_by_split, index),
        *_templates(rows_by_split, index),
    ]


def _counted(
    rows_by_split: Mapping[str, Sequence[Example]], index: DuplicateIndex
) -> Iterator[tuple[DuplicateCount, list[RowCopy]]]:
    for name, other in of_splits(rows_by_split):
        rows, others = rows_by_split[name], rows_by_split[other]
        if name == other:
            copies = duplicates.repeats(rows, index)
            number_of_others = len({copy.copy_place for copy in copies})
        else:
            copies = duplicates.copies(rows, others, index)
            number_of_others = len(duplicates.copies(others, rows, index)) if copies else 0
        if copies:
            by_grade = Counter(copy.grade for copy in copies)
            counted = DuplicateCount(
                split=name,
                other=other,
                rows=len(rows),
                exact=by_grade["exact"],
                normalised=by_grade["normalised"],
                near=by_grade["near"],
                others=number_of_others,
            )
            yield counted, copies


def of_splits(rows_by_split: Mapping[str, Sequence[Example]]) -> list[tuple[str, str]]:
    """Return the pairs of splits whose rows are compared: a later and an earlier one, and each with itself."""
    across = [(later, earlier) for earlier, later in combinations(rows_by_split, 2)]
    across.sort(key=lambda pair: (pair[0] != "test", pair[1] != "train"))
    return [*across, *((name, name) for name in rows_by_split)]


def audit(
    rows_by_split: Mapping[str, Sequence[Example]], index: DuplicateIndex, threshold: float
) -> tuple[DuplicateAudit, list[DuplicatePair]]:
    """Return the audit, and every pair: each row that is a copy, with the row that it is most alike.

    rows_by_split: in the order train, validation, test. index: of rows that include these.
    """
    every_count = list(_counted(rows_by_split, index))
    every_pair: list[DuplicatePair] = []
    shown: list[DuplicatePair] = []
    for counted, copies in every_count:
        pairs = [pair_of(copy, counted.split, counted.other, rows_by_split) for copy in copies]
        every_pair += pairs
        for grade in GRADES:
            alike = sorted((pair for pair in pairs if pair.grade == grade), key=lambda pair: -pair.similarity)
            shown += map(cut, alike[:PAIRS_SHOWN])
    return (
        DuplicateAudit(
            threshold=threshold,
            counts=tuple(counted for counted, _ in every_count),
            folds=dict(Counter(fold for pair in every_pair for fold in pair.folds).most_common()),
            pairs=tuple(shown),
            findings=tuple(_findings(every_count, rows_by_split, index)),
        ),
        every_pair,
    )


def pair_of(
    copy: RowCopy, split: str, other_split: str, rows_by_split: Mapping[str, Sequence[Example]]
) -> DuplicatePair:
    """Return a row and its copy side by side."""
    row, other = rows_by_split[split][copy.place], rows_by_split[other_split][copy.copy_place]
    texts = list(zip(near_duplicates.parts(row), near_duplicates.parts(other), strict=False))
    folds = {fold for pair in texts for fold in text_folds.between(*pair)} if copy.grade == "normalised" else set()
    return DuplicatePair(
        split=split,
        id=copy.id,
        other_split=other_split,
        other_id=copy.copy,
        grade=copy.grade,
        similarity=copy.similarity,
        folds=tuple(fold for fold in text_folds.FOLDS if fold in folds),
        text=_text(row),
        other_text=_text(other),
    )


def _text(row: Example) -> str:
    return "\n\n".join(filter(None, near_duplicates.parts(row)))


def cut(pair: DuplicatePair) -> DuplicatePair:
    """Return a pair as a report shows it: texts of bounded length, without personal data."""
    texts = [personal_data.masked(text) for text in (pair.text, pair.other_text)]
    text, other = (text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}…" for text in texts)
    return replace(pair, text=text, other_text=other)


def described(counted: DuplicateCount) -> str:
    """Return the counts of the grades that occur: `3 exact, 20 normalised, 15 near`."""
    numbers = zip((counted.exact, counted.normalised, counted.near), GRADES, strict=True)
    return ", ".join(f"{number:,} {grade}" for number, grade in numbers if number)


def sentence(counted: DuplicateCount) -> str:
    """Return what the counts say: `38 of 3,800 test rows (1.0%) have a copy in train: 38 near`."""
    share = f"{counted.share:.1%}" if counted.share >= SEVERE_SHARE else f"{counted.share:.2%}"
    what = "repeat an earlier row" if counted.within else f"have a copy in {counted.other}"
    of = f"{counted.copies:,} of {counted.rows:,} {counted.split} rows ({share})"
    return f"{of} {what}: {described(counted)}"


def _finding(counted: DuplicateCount, copies: Sequence[RowCopy]) -> Finding:
    clean = counted.rows - counted.copies
    severity: Severity = "warning"
    if counted.within:
        severity = "warning" if counted.share >= NOTABLE_SHARE else "note"
        do = {
            "train": "They weigh more than others in training; drop them from the data where that is not meant.",
            "validation": "They count several times where a checkpoint is chosen; drop them from the data.",
            "test": "They count several times in every score, whose interval is too narrow; drop them from the data.",
        }[counted.split]
    elif (counted.split, counted.other) == ("test", "train"):
        severity = "severe" if counted.share >= SEVERE_SHARE else "warning"
        kept = f"reports show each score on the other {clean:,} rows, too" if clean else "no other row is left"
        do = (
            f"A model can know their answers by heart: {kept}. split.leaks=remove takes {counted.others:,} rows out of "
            "train, split.leaks=error stops."
        )
    else:
        why = {
            "validation": "Checkpoints and thresholds are chosen by rows that were learned.",
            "test": "Checkpoints and thresholds are chosen on rows that they are tested on.",
        }[counted.split]
        do = f"{why} split.leaks=remove takes {counted.others:,} rows out of {counted.other}, split.leaks=error stops."
    return Finding(
        headline=f"{sentence(counted)}.",
        severity=severity,
        rows=counted.copies,
        where=tuple(copy.id for copy in copies[:SHOWN]),
        do=do,
    )


def _contradictions(rows_by_split: Mapping[str, Sequence[Example]], index: DuplicateIndex) -> Iterator[Finding]:
    """Yield a finding on rows that are equal after all folds and have different labels."""
    rows = example_table.join(rows_by_split.values())
    has_numbers = bool(rows) and rows[0].value is not None  # which may well differ a little
    concerned = [] if has_numbers else duplicates.contradicting(rows, index.numbers.of_rows(rows))
    if concerned:
        yield Finding(
            headline=f"{len(concerned):,} rows say the same as another row and have another label.",
            severity="warning",
            rows=len(concerned),
            where=tuple(rows[place].id for place in concerned[:SHOWN]),
            do="One of the labels is wrong, or the text does not decide it: correct the labels or drop the rows.",
        )


def _templates(rows_by_split: Mapping[str, Sequence[Example]], index: DuplicateIndex) -> Iterator[Finding]:
    """Yield a finding on versions of one text that are too many for one split to keep together."""
    rows = example_table.join(rows_by_split.values())
    _, alike = splits.near_units(rows, splits.units(rows), index)
    if alike:
        yield Finding(
            headline=f"{len(alike):,} rows are versions of a few texts, which look like templates.",
            severity="note",
            rows=len(alike),
            where=tuple(rows[place].id for place in alike[:SHOWN]),
            do="Splits that are made do not keep them together. Where that matters, name a column in split.group.",
        )
