"""Duplicate rows: within a split, in two splits, or with contradicting labels; exact, normalised and near."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Literal

from tunesmith.data import example_table
from tunesmith.data.rows import SHOWN, SPLITS, RowsBySplit, note
from tunesmith.errors import DataError
from tunesmith.types import DataNote, DuplicateGrade, DuplicateIndex, Example, RowCopy, TextKey

Policy = Literal["report", "remove", "error"]
IN_TWO: dict[DuplicateGrade, str] = {
    "exact": "same text",
    "normalised": "same text but for case, punctuation, digits or the like",
    "near": "near-duplicate text",
}
"""What two rows have in common, for notes."""


def resolve(rows_by_split: RowsBySplit, index: DuplicateIndex, policy: Policy) -> tuple[RowsBySplit, list[DataNote]]:
    """Report duplicates of the splits that the data brings, and remove or refuse leaks between them.

    Where they are only reported, that is left to `resolve_leaks`, once all splits are made.
    """
    notes = []
    for name, rows in rows_by_split.items():
        seen: set[TextKey] = set()
        repeated = []
        for place, key in enumerate(example_table.text_keys(rows)):
            if key in seen:
                repeated.append(place)
            seen.add(key)
        if repeated:
            notes.append(note(f"exact duplicates within {name}", (rows[place].id for place in repeated)))
    labels: dict[TextKey, object] = {}
    every_row = example_table.join(rows_by_split.values())
    keys = example_table.text_keys(every_row)
    golds = (row.gold for row in example_table.targets(every_row))
    contradicting = {key for gold, key in zip(golds, keys, strict=True) if labels.setdefault(key, gold) != gold}
    if contradicting:
        conflicts = (every_row[place].id for place, key in enumerate(keys) if key in contradicting)
        notes.append(note("same text with contradicting labels", conflicts))
    leaked: list[DataNote] = []
    if policy != "report":
        rows_by_split, leaked = resolve_leaks(rows_by_split, index, policy)
    for earlier, later in _pairs(rows_by_split):
        groups = {row.group for row in example_table.targets(rows_by_split[later]) if row.group is not None}
        if groups and (shared := [row.id for row in rows_by_split[earlier] if row.group in groups]):
            leaked.append(note(f"same group in {earlier} and {later}", shared))
    return rows_by_split, [*notes, *leaked]


def resolve_leaks(
    rows_by_split: RowsBySplit, index: DuplicateIndex, policy: Policy, made: Iterable[str] = SPLITS
) -> tuple[RowsBySplit, list[DataNote]]:
    """Report rows of an earlier split that are copies of rows of a later one, or remove them from the earlier split.

    made: only pairs with one of these splits are looked at. Raises DataError for the first such pair where the policy
    is `error`.
    """
    notes = []
    for earlier, later in _pairs(rows_by_split):
        if not {earlier, later} & set(made):
            continue
        leaks = copies(rows_by_split[earlier], rows_by_split[later], index)
        if leaks and policy == "error":
            raise _leak_error(earlier, later, leaks)
        for grade, what in IN_TWO.items():
            leaked = [leak.id for leak in leaks if leak.grade == grade]
            if leaked and policy == "remove":
                notes.append(note(f"removed from {earlier}: {what} in {later}", leaked))
            elif leaked:
                notes.append(note(f"{what} in {earlier} and {later}", leaked))
        if leaks and policy == "remove":
            kept = example_table.leave_out(rows_by_split[earlier], {leak.place for leak in leaks})
            rows_by_split = {**rows_by_split, earlier: kept}
    return rows_by_split, notes


def copies(rows: Sequence[Example], others: Sequence[Example], index: DuplicateIndex) -> list[RowCopy]:
    """Return the rows that have a copy among the others, each with the most similar one; of equal ones the first."""
    return _copies(rows, others, index, earlier=False)


def repeats(rows: Sequence[Example], index: DuplicateIndex) -> list[RowCopy]:
    """Return the rows that have a copy before them, each with the most similar one; of equal ones the first."""
    return _copies(rows, rows, index, earlier=True)


def _copies(
    rows: Sequence[Example], others: Sequence[Example], index: DuplicateIndex, *, earlier: bool
) -> list[RowCopy]:
    """Return the rows with a copy among the others. earlier: these are the rows themselves, of which those before."""
    exact: dict[TextKey, int] = {}
    by_number: dict[int, int] = {}
    keyed = zip(example_table.text_keys(others), index.numbers.of_rows(others), strict=True)
    for place, (key, number) in enumerate(keyed):
        exact.setdefault(key, place)
        by_number.setdefault(number, place)
    best = _best(by_number, index, earlier=earlier)
    found: list[tuple[int, int, DuplicateGrade, float]] = []
    keyed = zip(example_table.text_keys(rows), index.numbers.of_rows(rows), strict=True)
    for place, (key, number) in enumerate(keyed):
        before = place if earlier else len(others)
        similarity, other = 1.0, exact.get(key, before)
        grade: DuplicateGrade = "exact"
        if other >= before:
            grade, other = "normalised", by_number.get(number, before)
        if other >= before and number in best:
            grade, (similarity, other) = "near", best[number]
        if other < before:
            found.append((place, other, grade, similarity))
    ids = [row.id for row in example_table.take(rows, (place for place, *_ in found))]
    other_ids = [row.id for row in example_table.take(others, (other for _, other, *_ in found))]
    return [RowCopy(id, copy[0], other_id, *copy[1:]) for id, other_id, copy in zip(ids, other_ids, found, strict=True)]


def _best(places: Mapping[int, int], index: DuplicateIndex, *, earlier: bool = False) -> dict[int, tuple[float, int]]:
    """Return for each number that is near one of `places` the largest similarity, and the first place that has it.

    earlier: only places before the number's own count.
    """
    best: dict[int, tuple[float, int]] = {}
    for first, second, similarity in zip(index.first, index.second, index.similarity, strict=True):
        for number, other in ((first, second), (second, first)):
            if other in places and not (earlier and places.get(number, -1) <= places[other]):
                known = best.get(number, (0.0, 0))
                if (similarity, -places[other]) > (known[0], -known[1]):
                    best[number] = similarity, places[other]
    return best


def _pairs(rows_by_split: RowsBySplit) -> list[tuple[str, str]]:
    return list(combinations([name for name in SPLITS if name in rows_by_split], 2))


def _leak_error(earlier: str, later: str, leaks: Sequence[RowCopy]) -> DataError:
    shown = [f"{leak.id} of {leak.copy} ({described(leak)})" for leak in leaks[:SHOWN]]
    more = f" and {len(leaks) - SHOWN:,} more" if len(leaks) > SHOWN else ""
    return DataError(
        f"{len(leaks):,} rows of {earlier} are copies of rows of {later}",
        expected="no text in two splits, as split.leaks is error",
        found=", ".join(shown) + more,
        do="take them out, or set split.leaks to remove; `tunesmith audit` shows them side by side",
    )


def described(copy: RowCopy) -> str:
    """Return how alike a row and its copy are: `exact`, `normalised`, `near, 0.85`."""
    return f"{copy.grade}, {copy.similarity:.2f}" if copy.grade == "near" else copy.grade
