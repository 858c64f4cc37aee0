"""The value of one cell: what counts as a text, a label or a group, and what as missing."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, TypeAlias

Values: TypeAlias = Mapping[str, Any]
"""The cells of a row by column name, as a file has them."""


LONGEST_LABEL = 1000
"""Characters; what is longer is a text in the wrong column."""


PANDAS_MISSING = ("NAType", "NaTType")
"""Names of the types of pandas' missing values, which are neither None nor NaN."""
DECIMAL_COMMA = re.compile(r"\s*[+-]?\d+,\d+\s*")


class InvalidRow(Exception):
    """Why a row cannot become an example. `note` adds a number or a name, never the row's contents."""

    def __init__(self, reason: str, note: str = "") -> None:
        self.reason, self.note = reason, note


def is_null(value: Any) -> bool:
    """Return whether a value is missing: None, NaN, pandas' NA and NaT, or white space only."""
    if value is None or type(value).__name__ in PANDAS_MISSING:
        return True
    return (isinstance(value, float) and math.isnan(value)) or value == "" or str(value).isspace()


def text(value: Any, role: str) -> str:
    """Return a text; numbers are read as text. role: what messages call it. Raises InvalidRow."""
    if isinstance(value, str):
        if not value or value.isspace():
            raise InvalidRow(f"empty {role}")
        return _without_surrogates(value, role)
    if is_null(value):
        raise InvalidRow(f"null {role}")
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return str(value)
    raise InvalidRow(f"{role} that is neither a string nor a number", type(value).__name__)


def label(value: Any) -> str:
    """Return the name of a label, or its number as text. Raises InvalidRow."""
    if is_null(value):
        raise InvalidRow("missing label")
    if isinstance(value, str):
        if len(value) > LONGEST_LABEL:
            raise InvalidRow(f"label of more than {LONGEST_LABEL:,} characters", f"{len(value):,}")
        return _without_surrogates(value, "label")
    if isinstance(value, bool | int):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    raise InvalidRow("label that is neither a string nor a whole number", type(value).__name__)


def label_list(value: Any, separator: str | None) -> tuple[str, ...]:
    """Return the labels in a list, or in a text around separators, sorted; none of a missing value. Raises InvalidRow.

    separator: a space stands for any white space; None allows lists alone.
    """
    if isinstance(value, list | tuple):
        return tuple(sorted({label(item) for item in value}))
    if is_null(value):
        return ()
    if separator is None:
        raise InvalidRow("labels that are no list (set data.label_separator)", repr(str(value)[:40]))
    parts = str(value).split(None if separator == " " else separator)
    return tuple(sorted({label(part.strip()) for part in parts if part.strip()}))


def applies(value: Any, column: str) -> bool:
    """Return whether a cell of 0 or 1 says that a label applies. Raises InvalidRow."""
    if isinstance(value, str):
        value = {"0": 0, "1": 1, "false": 0, "true": 1, "0.0": 0, "1.0": 1}.get(value.strip().lower(), value)
    if value in (0, 1) and not isinstance(value, str):
        return bool(value)
    raise InvalidRow(f"neither 0 nor 1 in column {column}", repr(str(value)[:40]))


def number(value: Any) -> float:
    """Return a finite number; text is read as Python reads it. Raises InvalidRow."""
    if is_null(value):
        raise InvalidRow("missing number")
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise InvalidRow("label that is not a number", type(value).__name__)
    try:
        read = float(value)
    except ValueError:
        comma = " (a decimal point is expected)" if isinstance(value, str) and DECIMAL_COMMA.fullmatch(value) else ""
        raise InvalidRow("label that is not a number", repr(str(value)[:40]) + comma) from None
    except OverflowError:
        raise InvalidRow("number that is not finite", str(value)[:40]) from None
    if not math.isfinite(read):
        raise InvalidRow("number that is not finite", str(value))
    return read


def group(values: Values, column: str | None) -> str | None:
    """Return the group of a row, where `column` has one."""
    value = None if column is None else values.get(column)
    return None if is_null(value) else str(value)


def _without_surrogates(text: str, role: str) -> str:
    """Refuse half a character (a lone surrogate): JSON can hold one, but nothing can write or tokenize it."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidRow(
                f"{role} with half a character (a lone surrogate)", f"at character {error.start}"
            ) from None
    return text
