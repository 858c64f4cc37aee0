"""Dataclasses as JSON and back: the one place where the files of a run are serialised."""

from __future__ import annotations

import json
from array import array
from dataclasses import field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel, TypeAdapter, ValidationError

from tunesmith.errors import RunError

Record = TypeVar("Record")
_adapter = cache(TypeAdapter[Any])


OMITTED = {"omit": True}
"""Metadata of a dataclass field that is left out of the JSON where it is None."""


def omitted_if_none() -> Any:
    """A dataclass field that defaults to None and is left out of the JSON where it is None."""
    return field(default=None, metadata=OMITTED)


def dump(value: Any) -> Any:
    """Return a record, or any nesting of records, mappings and sequences, as what `json.dumps` takes."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        entries = ((item, getattr(value, item.name)) for item in fields(value))
        return {item.name: dump(entry) for item, entry in entries if entry is not None or not item.metadata.get("omit")}
    if isinstance(value, dict):
        return {key: dump(entry) for key, entry in value.items()}
    if isinstance(value, array):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [dump(entry) for entry in value]
    return value


def encode(content: object, action: str) -> str:
    """Return a record, or any nesting of them, as indented JSON, which has no infinite numbers.

    Raises RunError, `cannot ACTION`, where a number is not finite.
    """
    try:
        return json.dumps(dump(content), indent=2, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        do = "look for the cause in the data or the model: a mean of nothing, or weights that are not finite"
        raise RunError(f"cannot {action}", found=str(error), do=do) from error


def parse(content: bytes | str) -> Any:
    """Return parsed JSON in UTF-8. Raises ValueError for anything else, nesting that has no end among it."""
    try:
        return json.loads(content if isinstance(content, str) else content.decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read(kind: type[Record], file: Path) -> Record:
    """Return the record in a JSON file. Raises RunError where it is damaged."""
    try:
        content = parse(file.read_bytes())
    except ValueError as error:
        do = "restore it from a copy, or train again"
        raise RunError(f"{file} is damaged", expected="JSON", found=str(error), do=do) from error
    return load(kind, content, str(file))


def fields_of(kind: Any, record: object) -> dict[str, Any]:
    """Return the fields that a class of records has, of one record, unconverted: to make a larger record of them."""
    return {item.name: getattr(record, item.name) for item in fields(kind)}


def load(kind: type[Record], content: object, where: str) -> Record:
    """Return a record of `kind` from parsed JSON; keys that it does not know are ignored.

    where: the file, for the message. Raises RunError where a key is missing or a value has another type.
    """
    try:
        record: Record = _adapter(cast(Any, kind)).validate_python(content)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"]) or "the file"
        raise RunError(
            f"{where} is damaged", expected=f"a readable {place}", found=problem["msg"], do="restore it, or train again"
        ) from None
    return record
