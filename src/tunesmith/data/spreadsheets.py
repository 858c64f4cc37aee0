"""Cells that a spreadsheet would run as a formula (https://owasp.org/www-community/attacks/CSV_Injection)."""

from __future__ import annotations

import re
from typing import Any

FORMULA = frozenset("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
"""How a cell begins that spreadsheets may run."""
NUMBER = re.compile(r"[+-]?(\d+([.,]\d+)*|[.,]\d+|inf(inity)?|nan)(e[+-]?\d+)? ?%?", re.IGNORECASE)
MARK = "'"


def is_formula(cell: object) -> bool:
    """Return whether a spreadsheet may run a cell; numbers such as -1.5 it does not."""
    return isinstance(cell, str) and cell[:1] in FORMULA and NUMBER.fullmatch(cell) is None


def escape(cell: Any) -> Any:
    """Return the cell with a `'` before a formula, which spreadsheets then show as text; others as they are."""
    return f"{MARK}{cell}" if is_formula(cell) else cell


def unescape(cell: str) -> str:
    """Return what `escape` was given."""
    return cell[1:] if cell.startswith(MARK) and is_formula(cell[1:]) else cell
