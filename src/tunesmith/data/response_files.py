"""Files of answers: instruction, reference and one or several models' responses, whatever the columns are called."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.data import cells, formats
from tunesmith.data.rows import SHOWN, RejectedRow, Row, Table, listed, merge
from tunesmith.errors import DataError
from tunesmith.types import DataNote

NAMES = {
    "instruction": ("instruction", "prompt", "question", "query"),
    "input": ("input", "context"),
    "reference": (
        "reference",
        "references",
        "reference answer",
        "reference response",
        "reference output",
        "expected",
        "expected output",
        "expected response",
        "target",
        "gold",
        "ground truth",
        "correct answer",
        "label",
    ),
    "response": (
        "response",
        "model response",
        "prediction",
        "predicted",
        "generated",
        "generated text",
        "generated response",
        "generation",
        "candidate",
        "hypothesis",
        "model output",
        "model answer",
        "predict",
    ),
    "id": ("id", "question id"),
}
"""What people call the parts of a row. Case, `_`, `-` and spaces make no difference."""
EITHER = ("output", "answer", "completion")
"""The reference, as in Alpaca's rows; where another column is that, the response."""
SEVERAL = re.compile(
    r"\S.* response|(model \S+|model\d+|\S+ model) (answer|output|prediction)|(response|prediction|answer) \S+"
)
"""One of several models' responses: `model 1 response`, `response_b`."""
KEPT = {"tokens": int, "ended": bool, "learned": int, "loss": float}
"""What `tunesmith` adds to its own rows, and its type; kept where every row has it."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What one file holds: the rows of each model, which share their prompts and references."""

    models: dict[str, list[dict[str, Any]]]
    """Model -> rows: id, prompt, instruction, input, and reference and response, which are None where there is none.

    A model is called after its column (`model 1` for `model 1 response`), or after the file where that says nothing.
    """
    changes: tuple[DataNote, ...]
    """What reading met, such as ids that stand twice."""


@dataclass(frozen=True, slots=True)
class _Parts:
    """The columns of a file's parts."""

    instruction: str
    input: str | None
    reference: str | None
    responses: tuple[str, ...]


def read(
    path: Path,
    *,
    responses: Sequence[str] = (),
    reference: str | None = None,
    instruction: str | None = None,
    graded: bool = True,
) -> Answers:
    """The answers in a JSON, JSON Lines, CSV, TSV or Parquet file, each also .gz.

    The columns are found by NAMES unless they are named. Raises DataError, naming what was found, where a column is
    missing or could be several. graded: the file must have a column of references, though not in every row.
    """
    columns, rows, changes = sound(path)
    named = {"response": tuple(responses), "reference": (reference,), "instruction": (instruction,)}
    taken = {_known(path.name, columns, name) for names in named.values() for name in names if name}
    parts = _parts(path.name, columns, [column for column in columns if column not in taken], named, graded=graded)
    ids = _ids(rows, columns, changes)
    alone = len(parts.responses) == 1
    models = {
        name: [_row(row, one, parts, column, told=alone) for row, one in zip(rows, ids, strict=True)]
        for column, name in zip(parts.responses, _models(parts.responses, path.name), strict=True)
    }
    for found in models.values():
        _drop_partial(found)
        if all(row["response"] is None for row in found):
            raise DataError(f"{path.name}: a column of responses that holds none", do="name another: --response NAME")
    return Answers(models, merge(changes))


def sound(path: Path) -> tuple[tuple[str, ...], list[Row], list[DataNote]]:
    """A file's columns, its rows, and what reading them met. Raises DataError for no rows, and for broken ones."""
    columns = formats.table(path, path.name, "utf-8", ()).columns
    table = formats.table(path, path.name, "utf-8", columns)
    items = list(table.items)
    bad = [item for item in items if isinstance(item, RejectedRow)]
    if bad:
        raise _broken(table, bad)
    rows = [item for item in items if isinstance(item, Row)]
    if not rows:
        raise DataError(f"{path.name}: no rows")
    return columns, rows, [item for item in items if not isinstance(item, Row | RejectedRow)]


def _broken(table: Table, bad: Sequence[RejectedRow]) -> DataError:
    where = ", ".join(f"{one.id} ({one.note})" if one.note else one.id for one in bad[:SHOWN])
    return DataError(f"{table.name}: {len(bad):,} rows cannot be read: {bad[0].reason}", found=where, do="mend them")


# Which column is what.


def _parts(
    name: str, columns: Sequence[str], free: Sequence[str], named: Mapping[str, Sequence[str | None]], *, graded: bool
) -> _Parts:
    """The columns that are named, and for the other parts the only ones with fitting names."""
    given = {part: [_known(name, columns, one) for one in names if one] for part, names in named.items()}
    asked = given["instruction"] or _fitting(free, "instruction") or [one for one in free if _folded(one) == "input"]
    gold = given["reference"] or _fitting(free, "reference")
    plain, several = _fitting(free, "response"), [column for column in free if _is_several(column)]
    either = [column for column in free if _folded(column) in EITHER]
    if not (given["response"] or plain or several):
        # beside a reference it is the response; `output` and `completion` are a reference and what was made of it
        plain = either if gold else [one for one in either if _folded(one) == "completion"] * (len(either) > 1)
        either = [column for column in either if column not in plain]
    answered = given["response"] or ([*plain, *several] if len(plain) < 2 and not (plain and several) else [])
    gold = given["reference"] or [*gold, *either]
    if len(asked) != 1:
        raise _unclear(name, "instruction", asked, columns)
    if not answered:
        raise _unclear(name, "response", [*plain, *several], columns)
    if len(gold) > 1 or (graded and not gold):
        raise _unclear(name, "reference", gold, columns)
    about = next((column for column in free if _folded(column) in NAMES["input"] and column not in asked), None)
    return _Parts(asked[0], about, gold[0] if gold else None, tuple(answered))


def _fitting(columns: Sequence[str], part: str) -> list[str]:
    return [column for column in columns if _folded(column) in NAMES[part]]


def _is_several(column: str) -> bool:
    name = _folded(column)
    return SEVERAL.fullmatch(name) is not None and name not in (*NAMES["reference"], *NAMES["response"])


def _unclear(name: str, part: str, fitting: Sequence[str], columns: Sequence[str]) -> DataError:
    quoted = listed(map(repr, columns))
    if fitting:
        problem = f"{name}: {' and '.join(map(repr, sorted(fitting, key=columns.index)))} could each be the {part}"
        return DataError(problem, found=quoted, do=f"say which it is: --{part} NAME")
    names = EITHER[:1] + NAMES[part] if part == "reference" else NAMES[part]
    expected = f"a key such as {listed(map(repr, names), 6)}"
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


def _models(columns: Sequence[str], file: str) -> list[str]:
    """What the models are called whose responses stand in these columns; no two have one name."""
    if len(columns) == 1 and _folded(columns[0]) in (*NAMES["response"], *EITHER):
        return [file.split(".")[0]]
    words = re.compile(r" (response|answer|output|prediction)$", re.IGNORECASE)
    names = [words.sub("", column.replace("_", " ").strip()) or column for column in columns]
    return names if len(set(names)) == len(names) else list(columns)


# What a row holds.


def _row(row: Row, name: str, parts: _Parts, response: str, *, told: bool) -> dict[str, Any]:
    """One model's row. told: with what KEPT names."""
    asked = _text(row, parts.instruction)
    if cells.is_null(asked):
        raise DataError(f"{row.id}: no instruction", found=f"nothing in {parts.instruction!r}", do="mend the row")
    about = (_text(row, parts.input) if parts.input else "") or ""
    gold = _text(row, parts.reference) if parts.reference else None
    kept = {key: row.values[key] for key in KEPT if told and _fits(row.values.get(key), KEPT[key])}
    return {
        "id": name,
        "prompt": f"{asked}\n\n{about}" if about.strip() else asked,
        "instruction": asked,
        "input": about,
        "reference": None if cells.is_null(gold) else gold,
        "response": _text(row, response),
        **kept,
    }


def _ids(rows: Sequence[Row], columns: Sequence[str], changes: list[DataNote]) -> list[str]:
    """The rows' own ids, if every row has one; where some stand twice, the rows' places instead."""
    column = next(iter(_fitting(columns, "id")), "id")
    own = [row.values.get(column) for row in rows]
    if any(cells.is_null(one) or not isinstance(one, str | int) for one in own):
        return [row.id for row in rows]
    twice = [str(name) for name, count in Counter(own).items() if count > 1]
    if not twice:
        return [str(one) for one in own]
    changes.append(DataNote("ids that stand twice: rows are named by their place", len(twice), tuple(twice[:SHOWN])))
    return [row.id for row in rows]


def _text(row: Row, column: str) -> str | None:
    """A cell as text: None where there is nothing, the empty text where there is an empty one."""
    value = row.values.get(column)
    if isinstance(value, str) and not value.strip():
        return value
    if cells.is_null(value):
        return None
    try:
        return cells.text(value, column)
    except cells.InvalidRow as error:
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
