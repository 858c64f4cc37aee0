"""`tunesmith judge --scores`: scores that were given elsewhere, and how far those who gave them agree."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any

from tunesmith.errors import DataError
from tunesmith.evaluation.correlation import agreement
from tunesmith.evaluation.intervals import Confidence
from tunesmith.evaluation.judge_scores import mean
from tunesmith.reporting import judge_report
from tunesmith.reporting.format import level
from tunesmith.reporting.markdown import plain, table

Scores = dict[str, float | None]
"""Score by row id; None where a judge gave none."""


def judge_scores(*files: str | Path, confidence: Confidence | None = None) -> dict[str, Any]:
    """Means, counts and agreement of files of scores, ready for JSON.

    A file is a JSON array of numbers (row by row; null where there is none), or rows with `id` and `score` as JSON or
    JSON Lines: a journal of `tunesmith judge` is such a file. Files are compared row by row where their ids are the
    same; arrays of unequal length cannot be laid side by side, and are not.
    """
    confidence = confidence or Confidence()
    if not files:
        raise DataError("no files of scores", do="give one or more")
    names = dict(zip(files, _names([Path(file) for file in files]), strict=True))
    given = {names[file]: read(Path(file)) for file in files}
    pairs = []
    for (a, (_, first)), (b, (_, second)) in combinations(given.items(), 2):
        shared = [one for one in first if one in second]
        same = given[a][0] == given[b][0] and (given[a][0] == "rows" or len(first) == len(second)) and shared
        if same:
            ours, theirs = ([side[one] for one in shared] for side in (first, second))
            found = agreement(ours, theirs, confidence)
        else:
            found = {"rows": 0, "why": f"{len(first):,} and {len(second):,} scores cannot be laid side by side"}
        pairs.append({"a": a, "b": b, **found})
    return {
        "mode": "scores",
        "confidence": confidence.level,
        "files": [_file(name, scores, confidence) for name, (_, scores) in given.items()],
        "agreement": pairs,
    }


def read(path: Path) -> tuple[str, Scores]:
    """A file's scores by row, and whether rows go by their place in an `array` or by ids, as `rows`."""
    try:
        text = path.expanduser().read_text(encoding="utf-8-sig")
        lines = text.splitlines() if path.suffix == ".jsonl" else [text]
        found = [json.loads(line) for line in lines if line.strip()]
    except OSError as error:
        raise DataError(f"{path}: cannot be read", found=str(error.strerror or error)) from None
    except ValueError as error:
        raise DataError(f"{path}: broken JSON", found=str(error)) from None
    content: Any = found if path.suffix == ".jsonl" else found[0] if found else None
    if isinstance(content, list) and all(_is_score(value) for value in content):
        return "array", {str(number): value for number, value in enumerate(content, 1)}
    if isinstance(content, list) and all(isinstance(row, dict) and _is_score(row.get("score", "")) for row in content):
        return "rows", _by_row(content)
    raise DataError(f"{path}: no scores", expected="an array of numbers from 0 to 100, or rows with id and score")


def _by_row(rows: Sequence[dict[str, Any]]) -> Scores:
    """The mean of a row's scores; controls and what has none are left out."""
    found: dict[str, list[float]] = {}
    for number, row in enumerate(rows, 1):
        if not row.get("control"):
            name = " · ".join(str(row[key]) for key in ("id", "model", "turn") if key in row) or str(number)
            found.setdefault(name, []).extend([row["score"]] if row["score"] is not None else [])
    return {name: sum(values) / len(values) if values else None for name, values in found.items()}


def _is_score(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 100)


def _file(name: str, scores: Scores, confidence: Confidence) -> dict[str, Any]:
    values = [value for value in scores.values() if value is not None]
    if not values:
        raise DataError(f"{name}: no scores")
    estimate = mean(values, [row for row, value in scores.items() if value is not None], confidence)
    estimate.pop("p")
    return {
        "name": name,
        "rows": len(scores),
        "scored": len(values),
        "unscored": len(scores) - len(values),
        "mean": estimate,
        "median": median(values),
        "zeros": Counter(values)[0],
        "hundreds": Counter(values)[100],
    }


def _names(paths: Sequence[Path]) -> list[str]:
    stems = [path.stem for path in paths]
    return stems if len(set(stems)) == len(stems) else [str(path) for path in paths]


def describe(found: dict[str, Any]) -> str:
    """The same for people, in Markdown."""
    rows = [
        [
            plain(one["name"]),
            judge_report.points(one["mean"]["value"]),
            f"[{judge_report.points(one['mean']['low'])}, {judge_report.points(one['mean']['high'])}]",
            judge_report.points(one["median"]),
            f"{one['scored']:,}",
            f"{one['unscored']:,}",
            f"{one['zeros']:,}",
            f"{one['hundreds']:,}",
        ]
        for one in found["files"]
    ]
    head = ["Scores", "Mean", f"{level(found['confidence'])} interval", "Median", "Scored", "Unscored", "0", "100"]
    parts = [table(head, rows)]
    compared = [one for one in found["agreement"] if one["rows"]]
    if compared:
        parts.append(judge_report.agreement_table(compared))
    parts += [f"{one['a']} and {one['b']}: {one['why']}." for one in found["agreement"] if "why" in one]
    return "\n\n".join(parts)
