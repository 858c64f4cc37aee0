"""Columns with dates or times beside texts and labels: which there are, and what they say of each row."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime
from typing import Any

from tunesmith.data import cells, sources
from tunesmith.data.rows import Columns, Row
from tunesmith.recipe import Data, Split

LOOKED_AT = 200
"""Values of a column by which is decided whether it has times, and how they are written."""
READABLE = 0.95
"""Share of its values that must be read as times."""
FEWEST_VALUES = 5
"""Different times that a column needs."""
NAMED = re.compile(
    r"date|time|year|month|created|updated|published|posted|_(?:at|on)$|(?<=[a-z])(?:At|On)$", re.IGNORECASE
)
"""Names of columns whose numbers may be times."""
FORMATS = (
    *("%Y/%m/%d", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%d-%m-%Y", "%m-%d-%Y", "%d %b %Y", "%d %B %Y", "%b %d, %Y"),
    *("%B %d, %Y", "%d-%b-%Y", "%a, %d %b %Y", "%a %b %d %H:%M:%S %Y", "%m/%d/%y", "%d.%m.%y"),
)
"""Beside ISO 8601, each also with hours and minutes behind."""
CLOCKS = ("", " %H:%M:%S", " %H:%M", ", %H:%M:%S", ", %H:%M", " %I:%M %p", " %I:%M:%S %p", " %H:%M:%S %z")
ZONE = re.compile(r" (?:UTC|GMT|[ECMP][SD]T)\b")
ISO = re.compile(r"\d{4}-\d\d(?:-\d\d)?(?:[T ]\d\d:\d\d.*)?")
SECONDS, MILLISECONDS = (1e8, 4e9), (1e11, 4e12)
"""Numbers from 1973 to 2096 as times since 1970."""
Reader = Callable[[Any], datetime | None]
Times = dict[str, datetime]
"""The time of rows by their ids; rows without one are left out."""


def read(data: Data, split: Split, ids: Sequence[str]) -> dict[str, Times]:
    """Return the times of rows by the column that has them, of columns that are no text, label, group or split.

    Reads the source again.
    """
    wanted = set(ids)
    used = {*Columns.of(data, split).settings().values()}
    values: dict[str, dict[str, Any]] = {}
    for table in sources.tables(data, split, None).values():
        others = [column for column in table.columns if column not in used and not table.implied]
        for column in others:
            values.setdefault(column, {})
        for item in table.items if others else ():
            if isinstance(item, Row) and item.id in wanted:
                for column in others:
                    value = item.values.get(column)
                    if isinstance(value, str | int | float | date) and not cells.is_null(value):
                        values[column][item.id] = value
    found = {column: times(column, known) for column, known in values.items()}
    return {column: known for column, known in found.items() if len(known) >= READABLE * len(wanted) / 2}


def times(column: str, values: dict[str, Any]) -> Times:
    """Return the times that the values of a column are; none where they are something else."""
    sample = list(values.values())[:: max(1, len(values) // LOOKED_AT)]
    for reader in _readers(bool(NAMED.search(column))):
        read_sample = [reader(value) for value in sample]
        if sample and sum(time is not None for time in read_sample) >= READABLE * len(sample):
            known = {row: time for row, value in values.items() if (time := reader(value)) is not None}
            return known if len(set(known.values())) >= FEWEST_VALUES else {}
    return {}


def _readers(named: bool) -> list[Reader]:
    written = [_format(form + clock) for form in FORMATS for clock in (CLOCKS if "%H" not in form else [""])]
    return [_iso, *([_since_1970, _compact] if named else []), *written]


def _iso(value: Any) -> datetime | None:
    if isinstance(value, date):
        value = value.isoformat()
    if not isinstance(value, str) or not ISO.fullmatch(value := value.strip()):
        return None
    with suppress(ValueError):
        return _aware(datetime.fromisoformat(ZONE.sub("", value if len(value) > 7 else f"{value}-01")))
    return None


def _format(form: str) -> Reader:
    def reader(value: Any) -> datetime | None:
        with suppress(ValueError):
            if isinstance(value, str) and any(map(str.isdigit, value)):
                return _aware(datetime.strptime(ZONE.sub("", value.strip()), form))
        return None

    return reader


def _since_1970(value: Any) -> datetime | None:
    with suppress(ValueError, OverflowError):
        if not isinstance(value, date):
            number = float(value)
            if SECONDS[0] <= number <= SECONDS[1]:
                return datetime.fromtimestamp(number, UTC)
            if MILLISECONDS[0] <= number <= MILLISECONDS[1]:
                return datetime.fromtimestamp(number / 1000, UTC)
    return None


def _compact(value: Any) -> datetime | None:
    """Read 2019, 201907 or 20190731."""
    text = str(value).strip().removesuffix(".0")
    if re.fullmatch(r"(?:19|20)\d\d(?:[01]\d(?:[0-3]\d)?)?", text):
        with suppress(ValueError):
            return datetime(int(text[:4]), int(text[4:6] or 1), int(text[6:] or 1), tzinfo=UTC)
    return None


def _aware(time: datetime) -> datetime:
    return time if time.tzinfo else time.replace(tzinfo=UTC)
