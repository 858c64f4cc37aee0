"""Files of answers: instruction, reference and one or several models' responses, whatever the columns are called."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.data import cells, formats
from tunesmith.data.rows import FIRST, Bad, Row, Table, listed, merge
from tunesmith.errors import DataError
from tunesmith.types import Change

NAMES = {
    "instruction": ("instruction", "prompt", "question", "query"),
    "input": ("input", "context"),
    "reference": (
        "output", "reference", "references", "reference answer", "reference response", "expected", "expected output",
        "target", "gold", "ground truth", "answer", "correct answer", "label",
    ),
    "response": (
        "response", "model response", "prediction", "predicted", "generated", "generated text", "generated response",
        "generation", "completion", "candidate", "hypothesis", "model output", "model answer", "predict",
    ),
}  # fmt: skip
"""What people call the parts of a row. Case, `_`, `-` and spaces make no difference."""
SEVERAL = re.compile(
    r"(model \S+|model\d+|\S+ model) (response|answer|output|prediction)|(response|prediction|answer) \S+"
)
"""One of several models' responses: `model 1 response`, `response_b`."""
KEPT = {"tokens": int, "ended": bool, "learned": int, "loss": float}
"""What `tunesmith` adds to its own rows, and its type; kept where every row has it."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What one file holds: the rows of each model, which share their prompts and references."""

    models: dict[str, list[dict[str, Any]]]
    """Response column -> rows: id, prompt, instruction, reference, response; `missing` where there was no response."""
    changes: tuple[Change, ...]
    """What reading met: rows without a reference, missing responses, ids that stand twice."""


def read(
    path: Path, *, responses: Sequence[str] = (), reference: str | None = None, instruction: str | None = None
) -> Answers:
    """The answers in a JSON, JSON Lines, CSV, TSV or Parquet file, each also .gz.

    The columns are found by NAMES unless they are named. Raises DataError, naming what was found, where a column is
    missing or could be several. Rows without a reference are left out and missing responses count as empty ones; both
    are told in `changes`.
    """
    columns = formats.table(path, path.name, "utf-8", ()).columns
    named = {"response": tuple(responses), "reference": (reference,), "instruction": (instruction,)}
    taken = {_known(path.name, columns, name) for names in named.values() for name in names if name}
    free = [column for column in columns if column not in taken]
    asked = _one(path.name, "instruction", instruction, free, columns)
    about = next((column for column in free if _folded(column) in NAMES["input"] and column != asked), None)
    expected = _one(path.name, "reference", reference, free, columns)
    answered = [_known(path.name, columns, name) for name in responses] or _responses(path.name, free, columns)
    table = formats.table(path, path.name, "utf-8", columns)
    return _answers(table, asked, about, expected, answered)


def _one(name: str, part: str, given: str | None, free: Sequence[str], columns: Sequence[str]) -> str:
    """The column of a part: the one that is named, or the only one with a fitting name."""
    if given:
        return _known(name, columns, given)
    fitting = [column for column in free if _folded(column) in NAMES[part]]
    if part == "instruction" and not fitting:
        fitting = [column for column in free if _folded(column) == "input"]
    if len(fitting) != 1:
        raise _unclear(name, part, fitting, columns)
    return fitting[0]


def _responses(name: str, free: Sequence[str], columns: Sequence[str]) -> list[str]:
    """The one column of responses, or those of several models."""
    plain = [column for column in free if _folded(column) in NAMES["response"]]
    several = [column for column in free if SEVERAL.fullmatch(_folded(column)) and column not in plain]
    several = [column for column in several if _folded(column) not in NAMES["reference"]]
    if len(plain) == 1 and not several:
        return plain
    if several and not plain:
        return several
    raise _unclear(name, "response", [*plain, *several], columns)


def _unclear(name: str, part: str, fitting: Sequence[str], columns: Sequence[str]) -> DataError:
    quoted = listed(map(repr, columns))
    if fitting:
        problem = f"{name}: {' and '.join(map(repr, fitting))} could each be the {part}"
        return DataError(problem, found=quoted, do=f"say which it is: --{part} NAME")
    expected = f"a key such as {listed(map(repr, NAMES[part]), 6)}"
    return DataError(f"{name}: no {part}", expected=expected, found=quoted, do=f"name it: --{part} NAME")


def _known(name: str, columns: Sequence[str], wanted: str) -> str:
    if wanted in columns:
        return wanted
    close = [column for column in columns if _folded(column) == _folded(wanted)]
    if len(close) != 1:
        raise DataError(f"{name}: no key {wanted!r}", found=listed(map(repr, columns)), do="name one of these")
    return close[0]


def _folded(column: str) -> str:
    return " ".join(re.sub(r"[_\-.]+", " ", column).casefold().split())


def _answers(table: Table, asked: str, about: str | None, expected: str, answered: Sequence[str]) -> Answers:
    changes: list[Change] = []
    models: dict[str, list[dict[str, Any]]] = {column: [] for column in answered}
    rows = list(_sound(table, changes))
    ids = _ids(rows, changes)
    for row, name in zip(rows, ids, strict=True):
        if cells.is_null(row.values.get(expected)):
            changes.append(Change("left out: no reference", 1, (name,)))
            continue
        question = _text(row, asked)
        context = _text(row, about) if about else ""
        common = {
            "id": name,
            "prompt": f"{question}\n\n{context}" if context.strip() else question,
            "instruction": question,
            "reference": _text(row, expected),
        }
        for column in answered:
            missing = row.values.get(column) is None
            if missing:
                changes.append(Change(f"no {column}: counts as an empty answer", 1, (name,)))
            models[column].append(common | {"response": _text(row, column)} | ({"missing": True} if missing else {}))
            if len(answered) == 1:
                models[column][-1] |= {key: row.values[key] for key in KEPT if _fits(row.values.get(key), KEPT[key])}
    for found in models.values():
        _drop_partial(found)
    if not next(iter(models.values()), []):
        raise DataError(f"{table.name}: no row with a reference", do="give a file with references")
    return Answers(models, merge(changes))


def _sound(table: Table, changes: list[Change]) -> Iterable[Row]:
    bad: list[Bad] = []
    for item in table.items:
        if isinstance(item, Row):
            yield item
        elif isinstance(item, Bad):
            bad.append(item)
        else:
            changes.append(item)
    if bad:
        where = ", ".join(f"{one.id} ({one.note})" if one.note else one.id for one in bad[:FIRST])
        raise DataError(f"{table.name}: {len(bad):,} rows cannot be read: {bad[0].reason}", found=where, do="mend them")


def _ids(rows: Sequence[Row], changes: list[Change]) -> list[str]:
    """The rows' own ids, if every row has one; where some stand twice, the rows' places instead."""
    own = [row.values.get("id") for row in rows]
    if any(cells.is_null(one) or not isinstance(one, (str, int)) for one in own):
        return [row.id for row in rows]
    twice = [str(name) for name, count in Counter(own).items() if count > 1]
    if not twice:
        return [str(one) for one in own]
    changes.append(Change("ids that stand twice: rows are named by their place", len(twice), tuple(twice[:FIRST])))
    return [row.id for row in rows]


def _text(row: Row, column: str) -> str:
    """A cell as text; nothing is an empty one. Raises DataError for what is no text."""
    value = row.values.get(column)
    if cells.is_null(value):
        return ""
    try:
        return cells.text(value, column)
    except cells.Unfit as error:
        raise DataError(f"{row.id}: {error.reason}", found=error.note, do="write texts, or name another key") from None


def _fits(value: Any, kind: type) -> bool:
    return isinstance(value, bool) if kind is bool else isinstance(value, (int, kind)) and not isinstance(value, bool)


def _drop_partial(rows: Sequence[dict[str, Any]]) -> None:
    """What only some rows tell cannot be scored: a loss needs its number of tokens, too."""
    whole: Mapping[str, bool] = {key: all(key in row for row in rows) for key in KEPT}
    losses = whole["loss"] and whole["learned"]
    for row in rows:
        for key in KEPT:
            if not (losses if key in ("loss", "learned") else whole[key]):
                row.pop(key, None)
