"""`tunesmith judge --scores`: scores from elsewhere, and how far those who gave them agree."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean, median
from typing import Any

from tunesmith.errors import DataError
from tunesmith.evaluation.correlation import correlate
from tunesmith.evaluation.intervals import Confidence, Estimate
from tunesmith.evaluation.judge_scores import JudgeAgreement, mean
from tunesmith.pipeline import in_memory
from tunesmith.reporting import judge_report
from tunesmith.reporting.format import level, points
from tunesmith.reporting.markdown import plain, table


@dataclass(frozen=True, slots=True)
class ScoreFile:
    """The scores of one file."""

    name: str
    rows: int
    scored: int
    unscored: int
    mean: Estimate
    median: float
    zeros: int
    hundreds: int


@dataclass(frozen=True, slots=True)
class NotComparable:
    """Two files that do not score the same rows."""

    a: str
    b: str
    rows: int
    why: str


@dataclass(frozen=True, slots=True)
class ExternalScores:
    """What files of scores say."""

    mode: str
    confidence: float
    files: tuple[ScoreFile, ...]
    agreement: tuple[JudgeAgreement | NotComparable, ...]


@dataclass(frozen=True, slots=True)
class ScoresByRow:
    """Scores by row, None where there is none; rows go by position or by `id`."""

    by_id: bool
    scores: dict[str, float | None]


def judge_scores(*files: object, confidence: Confidence | None = None) -> ExternalScores:
    """Return means, counts and agreement of files of scores.

    A file is a JSON array of numbers (row by row; null where there is none), or rows with `id` and `score` as JSON or
    JSON Lines, such as a journal of `tunesmith judge`. Files are compared row by row where their ids are the same;
    arrays of unequal length are not compared.
    """
    confidence = confidence or Confidence()
    if not files:
        raise DataError("no files of scores", expected="at least one", found="none", do="name them")
    paths = [in_memory.kept_path(file) for file in files]
    stems = [path.stem for path in paths]
    names = stems if len(set(stems)) == len(stems) else [str(path) for path in paths]
    by_name = {name: read(path) for name, path in zip(names, paths, strict=True)}
    described = []
    for name, rows in by_name.items():
        given = {row: value for row, value in rows.scores.items() if value is not None}
        values = list(given.values())
        if not values:
            found = f"{len(rows.scores):,} rows without a score"
            raise DataError(f"{name}: no scores", expected="a number in a row", found=found, do="give another file")
        described.append(
            ScoreFile(
                name=name,
                rows=len(rows.scores),
                scored=len(values),
                unscored=len(rows.scores) - len(values),
                mean=mean(values, list(given), confidence),
                median=median(values),
                zeros=values.count(0),
                hundreds=values.count(100),
            )
        )
    agreement: list[JudgeAgreement | NotComparable] = []
    for (a, first), (b, second) in combinations(by_name.items(), 2):
        shared = [row for row in first.scores if row in second.scores]
        sizes = len(first.scores), len(second.scores)
        if not shared or first.by_id != second.by_id or (not first.by_id and sizes[0] != sizes[1]):
            why = f"{sizes[0]:,} and {sizes[1]:,} scores are not of the same rows"
            agreement.append(NotComparable(a, b, 0, why))
        else:
            ours, theirs = ([rows.scores[row] for row in shared] for rows in (first, second))
            agreement.append(JudgeAgreement.of(a, b, correlate(ours, theirs, confidence)))
    return ExternalScores("scores", confidence.level, tuple(described), tuple(agreement))


def read(path: Path) -> ScoresByRow:
    """Return a file's scores. Raises DataError where it is unreadable or holds none.

    Several scores of a row are averaged; controls are left out.
    """
    try:
        text = path.expanduser().read_text(encoding="utf-8-sig")
        lines = text.splitlines() if path.suffix == ".jsonl" else [text]
        values = [json.loads(line) for line in lines if line.strip()]
    except OSError as error:
        found, do = str(error.strerror or error), "check the path and its permissions"
        raise DataError(f"{path}: cannot be read", expected="a file of scores", found=found, do=do) from None
    except ValueError as error:
        do = "write the file again"
        raise DataError(f"{path}: broken JSON", expected="JSON, or JSON Lines", found=str(error), do=do) from None
    content: Any = values if path.suffix == ".jsonl" else values[0] if values else None
    if isinstance(content, list) and all(_is_score(value) for value in content):
        return ScoresByRow(False, {str(number): value for number, value in enumerate(content, 1)})
    if isinstance(content, list) and all(isinstance(row, dict) and _is_score(row.get("score", "")) for row in content):
        scores: dict[str, list[float]] = {}
        for number, row in enumerate(content, 1):
            if not row.get("control"):
                model = row.get("models", [row["model"]] if "model" in row else [])
                parts = [*([row["id"]] if "id" in row else []), *model, *([row["turn"]] if "turn" in row else [])]
                name = " · ".join(map(str, parts)) or str(number)
                scores.setdefault(name, []).extend([row["score"]] if row["score"] is not None else [])
        return ScoresByRow(True, {name: fmean(values) if values else None for name, values in scores.items()})
    raise DataError(
        f"{path}: no scores",
        expected="an array of numbers from 0 to 100, or rows with id and score",
        found=type(content).__name__ if content else "nothing",
        do="give another file, or write its scores so",
    )


def _is_score(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 100)


def describe(external: ExternalScores) -> str:
    """Return the same as Markdown."""
    rows = [
        [
            plain(file.name),
            *judge_report.mean_cells(file.mean),
            points(file.median),
            *(f"{count:,}" for count in (file.scored, file.unscored, file.zeros, file.hundreds)),
        ]
        for file in external.files
    ]
    head = ["Scores", "Mean", f"{level(external.confidence)} interval", "Median", "Scored", "Unscored", "0", "100"]
    parts = [table(head, rows)]
    compared = [pair for pair in external.agreement if isinstance(pair, JudgeAgreement) and pair.rows]
    if compared:
        parts.append(judge_report.agreement_table(compared))
    parts += [f"{pair.a} and {pair.b}: {pair.why}." for pair in external.agreement if isinstance(pair, NotComparable)]
    return "\n\n".join(parts)
