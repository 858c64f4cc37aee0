"""Answers that were already given: from a JSON or JSONL file, or from a run's stored predictions. No model is needed.

Columns go by many names (`model_response`, `Model 1 Response`); letters' case and `_` or a space make no difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith import runs
from tunesmith.data import cells, formats
from tunesmith.data.cells import Unfit
from tunesmith.data.rows import Bad, Row, listed
from tunesmith.errors import DataError

INSTRUCTION = ("instruction", "prompt", "question", "query", "input")
INPUT = ("input", "context")
REFERENCE = (
    "reference", "reference answer", "reference response", "reference output", "ground truth", "gold", "target",
    "expected", "expected output", "expected response", "label",
)  # fmt: skip
EITHER = ("output", "completion", "answer")
"""Names of a reference, as in Alpaca's rows; beside a column from REFERENCE they are the response."""
RESPONSE = ("response", "model response", "prediction", "predict", "generated", "generated text", "generation")
SUFFIX = " response"
"""`model 1 response` is the response of `model 1`; a file may hold those of several models."""
ID = ("id", "question id")
READABLE = (".json", ".jsonl", ".csv", ".tsv")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model answered to one prompt."""

    id: str
    """The row's own id where every row has one of its own; else where it stands, `answers.json:row 3`."""
    instruction: str
    input: str
    """What the instruction is about, where the data keeps it apart; else empty."""
    reference: str | None
    response: str

    @property
    def prompt(self) -> str:
        """Instruction and input together."""
        return f"{self.instruction}\n\n{self.input}" if self.input else self.instruction


@dataclass(frozen=True, slots=True)
class AnswerSet:
    """The answers of one model, in the order of the file."""

    model: str
    rows: tuple[Answer, ...]
    unanswered: tuple[str, ...] = ()
    """Ids of the rows for which this model has no response, not even an empty one."""


def read(path: str | Path, response: Sequence[str] = (), reference: str | None = None) -> list[AnswerSet]:
    """The answers in a file or a run directory: one set a response column, that is a model.

    response, reference: columns to take instead of those found by their names. Raises DataError, which names the
    columns found, where there is no instruction or no response; and RunError where a run has no predictions.
    """
    place = Path(path).expanduser()
    if place.is_dir():
        run = runs.find(place)
        rows = [Row(f"test:{number}", values) for number, values in enumerate(run.rows("test"), 1)]
        return of_rows(str(run.manifest["name"]), rows, response, reference)
    if not place.exists():
        raise DataError(f"no such file: {path}", do="give a file of answers, or a run directory")
    if formats.format_of(place) not in READABLE:
        raise DataError(f"{path}: not a file of answers", expected=f"{listed(READABLE)}, or a run directory")
    items = list(formats.table(place, place.name, "utf-8", ()).items)
    bad = next((item for item in items if isinstance(item, Bad)), None)
    if bad:
        raise DataError(f"{bad.id}: {bad.reason}", found=bad.note, do="mend the file")
    return of_rows(place.name.split(".")[0], [item for item in items if isinstance(item, Row)], response, reference)


def of_rows(
    name: str, rows: Sequence[Row], response: Sequence[str] = (), reference: str | None = None
) -> list[AnswerSet]:
    """The same from rows at hand. name: of the model where the response's column names none."""
    columns = list(dict.fromkeys(column for row in rows for column in row.values))
    if not rows:
        raise DataError(f"{name}: no rows")
    asked = _first(columns, INSTRUCTION)
    gold = _named(columns, [reference])[0] if reference else _first(columns, REFERENCE) or _first(columns, EITHER)
    found = _named(columns, response) if response else _responses(columns, gold)
    if asked is None or not found:
        raise DataError(
            f"{name}: no column of {'instructions' if asked is None else 'responses'}",
            expected=f"one of {listed(INSTRUCTION if asked is None else [*RESPONSE, 'model 1 response'])}",
            found=listed(map(repr, columns)),
            do="rename the column" if asked is None else "name the column with --response",
        )
    about = next((one for one in columns if _folded(one) in INPUT and one != asked), None)
    own = _first(columns, ID)
    names = [str(row.values.get(own)) for row in rows] if own else []
    ids = names if len(set(names)) == len(rows) else [row.id for row in rows]
    places = (asked, about, gold)
    return [_set(_model(column, name), column, rows, ids, places) for column in found]


def _set(
    model: str, column: str, rows: Sequence[Row], ids: Sequence[str], places: tuple[str, str | None, str | None]
) -> AnswerSet:
    answers, unanswered = [], []
    for row, name in zip(rows, ids, strict=True):
        asked, about, gold = (_text(row, place) if place else None for place in places)
        said = _text(row, column)
        if cells.is_null(asked):
            raise DataError(f"{row.id}: no instruction", found=f"nothing in {places[0]!r}", do="mend the row")
        if said is None:
            unanswered.append(name)
        else:
            answers.append(Answer(name, asked or "", about or "", None if cells.is_null(gold) else gold, said))
    if not answers:
        raise DataError(f"column {column!r} holds no response", found=f"nothing in {len(rows):,} rows")
    return AnswerSet(model, tuple(answers), tuple(unanswered))


def _text(row: Row, column: str) -> str | None:
    """A cell as text: None where there is nothing, the empty text where there is an empty one."""
    value = row.values.get(column)
    if isinstance(value, str) and not value.strip():
        return value
    try:
        return None if cells.is_null(value) else cells.text(value, column)
    except Unfit as unfit:
        raise DataError(f"{row.id}: {unfit.reason}", found=unfit.note, do="mend the row") from None


def _responses(columns: Iterable[str], gold: str | None) -> list[str]:
    free = [column for column in columns if column != gold and _folded(column) not in REFERENCE]
    found = [column for column in free if _folded(column) in RESPONSE or _folded(column).endswith(SUFFIX)]
    return found or [column for column in free if _folded(column) in EITHER][:1] * (_folded(gold or "") in REFERENCE)


def _model(column: str, name: str) -> str:
    folded = _folded(column)
    return name if folded in (*RESPONSE, *EITHER) else folded.removesuffix(SUFFIX)


def _named(columns: Sequence[str], wanted: Sequence[str]) -> list[str]:
    by_name: Mapping[str, Any] = {_folded(column): column for column in columns} | {one: one for one in columns}
    missing = [name for name in wanted if name not in by_name and _folded(name) not in by_name]
    if missing:
        raise DataError(f"no column {listed(map(repr, missing))}", found=listed(map(repr, columns)))
    return [by_name.get(name) or by_name[_folded(name)] for name in wanted]


def _first(columns: Iterable[str], names: Sequence[str]) -> str | None:
    by_name = {_folded(column): column for column in reversed(list(columns))}
    return next((by_name[name] for name in names if name in by_name), None)


def _folded(column: str) -> str:
    return " ".join(column.replace("_", " ").split()).casefold()
