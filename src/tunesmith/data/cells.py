"""One value of a row: what counts as a text, a label, a group, and as nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any


class InvalidRow(Exception):
    """Why a row is no example. `note` adds a number or a name, never the row's contents."""

    def __init__(self, reason: str, note: str = "") -> None:
        self.reason, self.note = reason, note


def is_null(value: Any) -> bool:
    """Nothing at all, NaN, or white space."""
    return value is None or (isinstance(value, float) and math.isnan(value)) or (value == "" or str(value).isspace())


def text(value: Any, role: str) -> str:
    """A text; numbers are read as one. role: what it is called in messages."""
    if isinstance(value, str):
        if not value or value.isspace():
            raise InvalidRow(f"empty {role}")
        return _sound(value, role)
    if is_null(value):
        raise InvalidRow(f"null {role}")
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return str(value)
    raise InvalidRow(f"{role} that is neither a string nor a number", type(value).__name__)


def label(value: Any) -> str:
    """A label's name, or its number as text."""
    if is_null(value):
        raise InvalidRow("missing label")
    if isinstance(value, str):
        return _sound(value, "label")
    if isinstance(value, bool | int):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    raise InvalidRow("label that is neither a string nor a whole number", type(value).__name__)


def group(values: Mapping[str, Any], column: str | None) -> str | None:
    """The group of a row, where a column says it."""
    value = None if column is None else values.get(column)
    return None if is_null(value) else str(value)


def _sound(text: str, role: str) -> str:
    """JSON can hold half a character (a lone surrogate), which nothing can write or tokenize."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidRow(
                f"{role} with half a character (a lone surrogate)", f"at character {error.start}"
            ) from None
    return text
