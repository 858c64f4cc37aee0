"""Test rows that have a copy in train, or rows of new data: kept in the run, and what the scores are without them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tunesmith.console import say, warn
from tunesmith.data import duplicates, near_duplicates
from tunesmith.evaluation.clean_scores import FEWEST, CleanScores
from tunesmith.pipeline.confidence import confidence_of
from tunesmith.pipeline.task_table import Scores, task_of
from tunesmith.reporting import clean_report
from tunesmith.runs import Run
from tunesmith.types import DuplicateIndex, Example, RowCopy, Splits

LEAKS = "leaks.json"


@dataclass(frozen=True, slots=True)
class LeakedRows:
    """leaks.json: the test rows that have a copy in train, each with the most similar one; leaks-NAME.json: those of
    the new data NAME."""

    rows: tuple[RowCopy, ...]


def keep(run: Run, splits: Splits) -> None:
    """Write the leaked rows of these splits into the run, if there are some."""
    if splits.copies is not None:
        _keep(run, LEAKS, splits.test, splits.train, splits.copies)


def keep_of_new_data(run: Run, name: str, rows: Sequence[Example], train: Sequence[Example]) -> None:
    """Write which rows of new data have a copy in the run's train, if there are some."""
    index = near_duplicates.find([train, rows], run.recipe.split.duplicate_threshold)
    for file in (_named(LEAKS, name), _named(clean_report.FILE, name)):  # of other data of that name
        (run.path / file).unlink(missing_ok=True)
    _keep(run, _named(LEAKS, name), rows, train, index)


def _keep(run: Run, file: str, rows: Sequence[Example], train: Sequence[Example], index: DuplicateIndex) -> None:
    if leaked := duplicates.copies(rows, train, index):
        run.write(file, LeakedRows(tuple(leaked)))


def write_scores(run: Run, scores: Scores, split: str = "test") -> None:
    """Score the clean part of stored predictions where there are leaks. scores: of all rows of the split."""
    if not run.has(_named(LEAKS, split)):
        return
    leaked = run.load(_named(LEAKS, split), LeakedRows).rows
    places = {row.place for row in leaked}
    clean = [place for place in range(scores.rows) if place not in places]
    by_grade = Counter(row.grade for row in leaked)
    result = CleanScores(
        rows=len(clean),
        exact=by_grade["exact"],
        normalised=by_grade["normalised"],
        near=by_grade["near"],
        confidence=confidence_of(run.recipe).level,
        headline=task_of(run).score(run, split, clean).headline if len(clean) >= FEWEST else {},
    )
    run.write(_named(clean_report.FILE, split), result)
    if split == "test":
        say(clean_report.sentence(result, scores.headline))
    else:
        warn(clean_report.sentence(result, scores.headline, of=f"rows of {split}"))


def _named(file: str, split: str) -> str:
    """Return the file of a split: of test `leaks.json`, of new data `leaks-NAME.json`."""
    return file if split == "test" else file.replace(".", f"-{split}.")


def scores_of(run: Run) -> CleanScores | None:
    """Return the scores of the clean part of a run's test split; None where nothing leaks."""
    return run.load(clean_report.FILE, CleanScores) if run.has(clean_report.FILE) else None
