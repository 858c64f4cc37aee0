"""Files of responses: instruction, reference and one or several models' responses, whatever the columns are called."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunesmith.data import cells, formats
from tunesmith.data.rows import SHOWN, RejectedRow, Row, listed, merge, no_rows
from tunesmith.errors import DataError
from tunesmith.types import DataNote, ResponseRow

NAMES: dict[str, tuple[str, ...]] = {
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
MODEL_SUFFIX = re.compile(r" (response|answer|output|prediction)$", re.IGNORECASE)
"""What follows a model's name in the name of its column."""
KEPT = {"tokens": int, "ended": bool, "learned": int, "loss": float}
"""What tunesmith adds to its own rows, and its type; kept where every row has it."""


@dataclass(frozen=True, slots=True)
class ResponseFile:
    """What one file holds: the rows of each model, which share their prompts and references."""

    models: dict[str, list[ResponseRow]]
    """A model is named after its column (`model 1` for `model 1 response`), or after the file where that says nothing.

    Reference and response are None where the file has none.
    """
    changes: tuple[DataNote, ...]
    """What reading met, such as duplicate ids."""


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
) -> ResponseFile:
    """Return the responses in a JSON, JSON Lines, CSV, TSV or Parquet file, each also .gz.

    The columns are found by NAMES unless they are named. Raises DataError, naming the file's columns, where one is
    missing or could be several. graded: the file must have a column of references, though not in every row.
    """
    columns, rows, changes = read_rows(path)
    wanted = {"response": responses, "reference": [reference], "instruction": [instruction]}
    named = {part: [_column(path.name, columns, name) for name in names if name] for part, names in wanted.items()}
    parts = _find_parts(path.name, columns, named, graded=graded)
    ids = _ids(rows, columns, changes)
    names = [MODEL_SUFFIX.sub("", column.replace("_", " ").strip()) or column for column in parts.responses]
    if len(names) == 1 and _normalized(parts.responses[0]) in (*NAMES["response"], *EITHER):
        names = [path.name.split(".")[0]]
    elif len(set(names)) < len(names):
        names = list(parts.responses)
    models = {}
    for model, column in zip(names, parts.responses, strict=True):
        answered = [_response_row(row, name, parts, column) for row, name in zip(rows, ids, strict=True)]
        if all(row.response is None for row in answered):
            raise DataError(
                f"{path.name}: a column of responses that holds none",
                expected=f"responses in {column!r}",
                found=f"{len(answered):,} rows without one",
                do="name another: --response NAME",
            )
        # what only some rows have cannot be scored, and a loss needs its number of tokens, too
        partial = {key for key in KEPT if any(getattr(row, key) is None for row in answered)}
        if partial & {"loss", "learned"}:
            partial |= {"loss", "learned"}
        unknown: dict[str, Any] = dict.fromkeys(partial)
        models[model] = [replace(row, **unknown) for row in answered]
    return ResponseFile(models, merge(changes))


def read_rows(path: Path) -> tuple[tuple[str, ...], list[Row], list[DataNote]]:
    """Return a file's columns, its rows, and notes on reading them. Raises DataError for no or broken rows."""
    columns = formats.table(path, path.name, "utf-8", ()).columns
    items = list(formats.table(path, path.name, "utf-8", columns).items)
    bad = [item for item in items if isinstance(item, RejectedRow)]
    if bad:
        where = ", ".join(f"{item.id} ({item.note})" if item.note else item.id for item in bad[:SHOWN])
        problem = f"{path.name}: {len(bad):,} rows cannot be read: {bad[0].reason}"
        raise DataError(problem, expected="rows that can be read", found=where, do="fix or remove these rows")
    rows = [item for item in items if isinstance(item, Row)]
    if not rows:
        raise no_rows(path.name)
    return columns, rows, [item for item in items if isinstance(item, DataNote)]


# Which column is what.


def _find_parts(file: str, columns: Sequence[str], named: Mapping[str, Sequence[str]], *, graded: bool) -> _Parts:
    """Return the columns that the user named, by part; for other parts the only ones with fitting names."""
    free = [column for column in columns if all(column not in names for names in named.values())]

    def fitting(names: Sequence[str]) -> list[str]:
        return [column for column in free if _normalized(column) in names]

    instruction = named["instruction"] or fitting(NAMES["instruction"]) or fitting(["input"])
    references = named["reference"] or fitting(NAMES["reference"])
    only, several = (
        fitting(NAMES["response"]),
        [
            column
            for column in free
            if SEVERAL.fullmatch(_normalized(column))
            and _normalized(column) not in (*NAMES["reference"], *NAMES["response"])
        ],
    )
    either = fitting(EITHER)
    if not (named["response"] or only or several):
        if references:
            only = either
        elif len(either) > 1:  # `output` and `completion`: a reference, and what a model made of the prompt
            only = fitting(["completion"])
        either = [column for column in either if column not in only]
    responses = named["response"] or [*only, *several]
    references = named["reference"] or [*references, *either]

    if len(instruction) != 1:
        raise _unclear(file, "instruction", instruction, columns)
    if not named["response"] and len(only) + bool(several) != 1:
        raise _unclear(file, "response", responses, columns)
    if len(references) > 1 or (graded and not references):
        raise _unclear(file, "reference", references, columns)
    inputs = [column for column in fitting(NAMES["input"]) if column not in instruction]
    return _Parts(
        instruction[0], inputs[0] if inputs else None, references[0] if references else None, tuple(responses)
    )


def _unclear(file: str, part: str, fitting: Sequence[str], columns: Sequence[str]) -> DataError:
    quoted = listed(map(repr, columns))
    if fitting:
        problem = f"{file}: {' and '.join(map(repr, sorted(fitting, key=columns.index)))} could each be the {part}"
        return DataError(problem, expected=f"one {part}", found=quoted, do=f"say which it is: --{part} NAME")
    names = EITHER[:1] + NAMES[part] if part == "reference" else NAMES[part]
    expected = f"a key such as {listed(map(repr, names), 6)}"
    return DataError(f"{file}: no {part}", expected=expected, found=quoted, do=f"name it: --{part} NAME")


def _column(file: str, columns: Sequence[str], name: str) -> str:
    """Return the column of that name; case, `_`, `-` and spaces make no difference where it is the only one."""
    if name in columns:
        return name
    close = [column for column in columns if _normalized(column) == _normalized(name)]
    if len(close) != 1:
        found = listed(map(repr, columns))
        raise DataError(f"{file}: no key {name!r}", expected="a key of the file", found=found, do="name one of these")
    return close[0]


def _normalized(column: str) -> str:
    return " ".join(re.sub(r"[_\-.]+", " ", column).casefold().split())


# What a row holds.


def _response_row(row: Row, name: str, parts: _Parts, column: str) -> ResponseRow:
    """Return one model's row, with what KEPT names where the file has only that model."""
    instruction = _text(row, parts.instruction)
    if instruction is None or cells.is_null(instruction):
        found = f"nothing in {parts.instruction!r}"
        raise DataError(f"{row.id}: no instruction", expected="a text", found=found, do="fix the row")
    about = (_text(row, parts.input) if parts.input else "") or ""
    reference = _text(row, parts.reference) if parts.reference else None
    response = _text(row, column)
    kept: dict[str, Any] = {
        key: value
        for key, kind in KEPT.items()
        if len(parts.responses) == 1
        and isinstance(value := row.values.get(key), (int, kind))
        and isinstance(value, bool) == (kind is bool)
    }
    return ResponseRow(
        id=name,
        prompt=f"{instruction}\n\n{about}" if about.strip() else instruction,
        instruction=instruction,
        input=about,
        reference=None if cells.is_null(reference) else reference,
        response=response,
        missing=True if response is None else None,
        **kept,
    )


def _ids(rows: Sequence[Row], columns: Sequence[str], changes: list[DataNote]) -> list[str]:
    """Return the rows' own ids, if every row has one and no two are equal; row numbers otherwise."""
    column = next((column for column in columns if _normalized(column) in NAMES["id"]), "id")
    own = [row.values.get(column) for row in rows]
    if any(cells.is_null(name) or not isinstance(name, str | int) for name in own):
        return [row.id for row in rows]
    duplicates = [str(name) for name, count in Counter(own).items() if count > 1]
    if not duplicates:
        return [str(name) for name in own]
    changes.append(DataNote("duplicate ids; using row numbers", len(duplicates), tuple(duplicates[:SHOWN])))
    return [row.id for row in rows]


def _text(row: Row, column: str) -> str | None:
    """Return a cell as text: None for a missing one, the empty text for an empty one."""
    value = row.values.get(column)
    if isinstance(value, str) and not value.strip():
        return value
    if cells.is_null(value):
        return None
    try:
        return cells.text(value, column)
    except cells.InvalidRow as error:
        do = "write texts, or name another key"
        raise DataError(f"{row.id}: {error.reason}", expected="a text", found=error.note or "none", do=do) from None
