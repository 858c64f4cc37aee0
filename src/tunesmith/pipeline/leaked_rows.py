"""Test rows that have a copy in train: kept in the run, and what the scores are without them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from tunesmith.console import say
from tunesmith.data import duplicates
from tunesmith.evaluation.clean_scores import FEWEST, CleanScores
from tunesmith.pipeline.confidence import confidence_of
from tunesmith.pipeline.task_table import Scores, task_of
from tunesmith.reporting import clean_report
from tunesmith.runs import Run
from tunesmith.types import RowCopy, Splits

LEAKS = "leaks.json"


@dataclass(frozen=True, slots=True)
class LeakedRows:
    """leaks.json: the test rows that have a copy in train, each with the most similar one."""

    rows: tuple[RowCopy, ...]


def keep(run: Run, splits: Splits) -> None:
    """Write the leaked rows of these splits into the run, if there are some."""
    if splits.copies is not None and (leaked := duplicates.copies(splits.test, splits.train, splits.copies)):
        run.write(LEAKS, LeakedRows(tuple(leaked)))


def write_scores(run: Run, scores: Scores) -> None:
    """Score the clean part of the stored test predictions where there are leaks. scores: of all test rows."""
    if not run.has(LEAKS):
        return
    leaked = run.load(LEAKS, LeakedRows).rows
    places = {row.place for row in leaked}
    clean = [place for place in range(scores.rows) if place not in places]
    by_grade = Counter(row.grade for row in leaked)
    result = CleanScores(
        rows=len(clean),
        exact=by_grade["exact"],
        normalised=by_grade["normalised"],
        near=by_grade["near"],
        confidence=confidence_of(run.recipe).level,
        headline=task_of(run).score(run, places=clean).headline if len(clean) >= FEWEST else {},
    )
    run.write(clean_report.FILE, result)
    say(clean_report.sentence(result, scores.headline))


def scores_of(run: Run) -> CleanScores | None:
    """Return the scores of the clean part of a run's test split; None where nothing leaks."""
    return run.load(clean_report.FILE, CleanScores) if run.has(clean_report.FILE) else None
