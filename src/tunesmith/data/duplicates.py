"""Duplicate rows: within a split, in two splits, or with contradicting labels; exact, normalised and near."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Literal

import numpy as np
import numpy.typing as npt

from tunesmith.data import example_table
from tunesmith.data.rows import SHOWN, SPLITS, RowsBySplit, note
from tunesmith.data.text_keys import Index, numbered
from tunesmith.errors import DataError
from tunesmith.types import DataNote, DuplicateGrade, DuplicateIndex, Example, RowCopy

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
        first_U, number_N = numbered(example_table.text_hashes(rows))
        repeated = np.flatnonzero(first_U[number_N] != np.arange(len(rows))).tolist()
        if repeated:
            notes.append(note(f"exact duplicates within {name}", (rows[place].id for place in repeated)))
    every_row = example_table.join(rows_by_split.values())
    _, number_N = numbered(example_table.text_hashes(every_row))
    if conflicts := contradicting(every_row, number_N):
        notes.append(note("same text with contradicting labels", (every_row[place].id for place in conflicts)))
    leaked: list[DataNote] = []
    if policy != "report":
        rows_by_split, leaked = resolve_leaks(rows_by_split, index, policy)
    for earlier, later in _pairs(rows_by_split):
        groups = {row.group for row in example_table.targets(rows_by_split[later]) if row.group is not None}
        if groups and (shared := [row.id for row in rows_by_split[earlier] if row.group in groups]):
            leaked.append(note(f"same group in {earlier} and {later}", shared))
    return rows_by_split, [*notes, *leaked]


def contradicting(rows: Sequence[Example], number_N: Index) -> list[int]:
    """Return the places of labelled rows whose text has another label elsewhere. number_N: of each row's text."""
    places = np.flatnonzero(np.bincount(number_N)[number_N] > 1)
    targets = example_table.targets(example_table.take(rows, places))
    gold_of = [*zip(places.tolist(), number_N[places].tolist(), (row.gold for row in targets), strict=True)]
    first = {number: gold for _, number, gold in reversed(gold_of) if gold is not None}
    differing = {number for _, number, gold in gold_of if gold is not None and gold != first[number]}
    return [place for place, number, gold in gold_of if gold is not None and number in differing]


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
    number_N, other_number_M = index.numbers.of_rows(rows), index.numbers.of_rows(others)
    place_U = np.full(len(index.numbers), len(others))
    np.minimum.at(place_U, other_number_M, np.arange(len(others)))
    best = _best(place_U, index, len(others), earlier=earlier)
    before_N = np.arange(len(rows)) if earlier else np.full(len(rows), len(others))
    place_C = np.flatnonzero((place_U[number_N] < before_N) | _among(best, len(place_U))[number_N])
    exact = _first_places(others, np.flatnonzero(_among(number_N[place_C], len(place_U))[other_number_M]))
    found: list[tuple[int, int, DuplicateGrade, float]] = []
    for place, number, key in zip(place_C.tolist(), number_N[place_C].tolist(), _keys(rows, place_C), strict=True):
        before = place if earlier else len(others)
        similarity, other = 1.0, exact.get(key, before)
        grade: DuplicateGrade = "exact"
        if other >= before:
            grade, other = "normalised", int(place_U[number])
        if other >= before and number in best:
            grade, (similarity, other) = "near", best[number]
        if other < before:
            found.append((place, other, grade, similarity))
    ids = [row.id for row in example_table.take(rows, (place for place, *_ in found))]
    other_ids = [row.id for row in example_table.take(others, (other for _, other, *_ in found))]
    return [RowCopy(id, copy[0], other_id, *copy[1:]) for id, other_id, copy in zip(ids, other_ids, found, strict=True)]


def _keys(rows: Sequence[Example], places: Index) -> list[tuple[int, int]]:
    """Return the hashes of the texts of some rows."""
    return [(high, low) for high, low in example_table.text_hashes(example_table.take(rows, places)).tolist()]


def _first_places(rows: Sequence[Example], places: Index) -> dict[tuple[int, int], int]:
    """Return the hash of each text of some rows, and the place of the first row that has it."""
    return dict(reversed([*zip(_keys(rows, places), places.tolist(), strict=True)]))


def _best(place_U: Index, index: DuplicateIndex, missing: int, *, earlier: bool) -> dict[int, tuple[float, int]]:
    """Return for each number that is near one with a place the largest similarity, and the first place that has it.

    place_U: of the first row of each number; `missing` where there is none. earlier: only places before the number's
    own count.
    """
    first_P, second_P = (np.array(of, dtype=np.int64) for of in (index.first, index.second))
    number_P, other_P = np.concatenate([first_P, second_P]), np.concatenate([second_P, first_P])
    similarity_P, place_P = np.tile(index.similarity, 2), place_U[other_P]
    worst_first = np.lexsort((place_P, -similarity_P))[::-1]
    chosen = worst_first[(place_P < (place_U[number_P] if earlier else missing))[worst_first]]
    best = zip(similarity_P[chosen].tolist(), place_P[chosen].tolist(), strict=True)
    return dict(zip(number_P[chosen].tolist(), best, strict=True))


def _among(numbers: Iterable[int] | Index, size: int) -> npt.NDArray[np.bool_]:
    """Return of each number below `size` whether it is among these."""
    is_among = np.zeros(size, dtype=bool)
    is_among[np.fromiter(numbers, dtype=np.int64)] = True
    return is_among


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
