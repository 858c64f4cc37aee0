"""Questions of several turns and answers to them, in the files of MT-bench: `question.jsonl`, and one file a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.data import formats
from tunesmith.data.response_files import read_rows
from tunesmith.data.rows import Row, listed
from tunesmith.errors import DataError

Turns = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MultiTurnQuestion:
    """A question of several turns, with a reference answer to each turn where there is one."""

    id: str
    turns: Turns
    references: tuple[str | None, ...]
    category: str = ""


def read(path: str | Path, references: str | Path | None = None) -> list[MultiTurnQuestion]:
    """Return the questions of a file: `question_id`, `turns`, and optionally `category` and `reference`.

    references: a file of reference answers in the form of a model's answers; a question's own come first.
    """
    separate = answers(references)[1] if references else {}
    questions = []
    for row in _rows(path):
        turns = _texts(row, "turns")
        name = str(row.values.get("question_id", row.id))
        own = _texts(row, "reference") if row.values.get("reference") else separate.get(name, ())
        if len(own) not in (0, len(turns)):
            raise DataError(
                f"{row.id}: turns and references differ in number",
                expected="a reference for each turn, or none",
                found=f"{len(turns)} turns, {len(own)} references",
                do="fix the row",
            )
        category = str(row.values.get("category") or "")
        questions.append(MultiTurnQuestion(name, turns, own or (None,) * len(turns), category))
    if len({question.id for question in questions}) < len(questions):
        repeated = [name for name, count in Counter(question.id for question in questions).items() if count > 1]
        raise DataError(
            f"{path}: duplicate question_id",
            expected="an id of its own for each question",
            found=f"{listed(repeated)} more than once",
            do="correct the ids",
        )
    return questions


def answers(path: str | Path) -> tuple[str, dict[str, Turns]]:
    """Return the model and its answers by question: `question_id`, `model_id`, `turns` of the first of `choices`."""
    turns_by_question: dict[str, Turns] = {}
    models: dict[str, None] = {}
    for row in _rows(path):
        choices = row.values.get("choices")
        first = choices[0] if isinstance(choices, list) and choices else row.values
        if not isinstance(first, Mapping):
            found = type(first).__name__
            raise DataError(f"{row.id}: broken choices", expected="a list of objects", found=found, do="fix the row")
        name = str(row.values.get("question_id", row.id))
        if name in turns_by_question:
            raise DataError(
                f"{row.id}: a question is answered twice",
                expected="one answer to each question",
                found=f"a second answer to question {name}",
                do="keep one of them",
            )
        turns_by_question[name] = _texts(Row(row.id, first), "turns")
        models[str(row.values.get("model_id", Path(path).stem))] = None
    if len(models) > 1:
        raise DataError(
            f"{path}: answers of several models",
            expected="one model_id",
            found=listed(models),
            do="give each model its own file",
        )
    return next(iter(models)), turns_by_question


def _rows(path: str | Path) -> list[Row]:
    place = Path(path).expanduser()
    if not place.is_file() or formats.format_of(place) not in (".json", ".jsonl"):
        found = "another format" if place.is_file() else "no such file"
        do = "give a file such as question.jsonl"
        raise DataError(f"{path}: no questions or answers", expected="a JSON Lines file", found=found, do=do)
    return read_rows(place)[1]


def _texts(row: Row, name: str) -> Turns:
    value: Any = row.values.get(name)
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
        raise DataError(
            f"{row.id}: no list of texts in {name!r}",
            found=f"the columns {listed(map(repr, row.values))}",
            expected="question_id and turns; answers have them in choices",
            do="fix the row, or give another file",
        )
    return tuple(value)
