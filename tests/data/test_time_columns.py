"""Columns that are dates, however they are written, and columns that only look like it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.conftest import write_csv
from tunesmith.data import time_columns
from tunesmith.recipe import Data, Split

DAYS = [datetime(2021, 1, 1, 12, 30, tzinfo=UTC) + timedelta(days=9 * n) for n in range(30)]
WRITTEN: dict[str, Callable[[datetime], object]] = {
    "iso": lambda day: day.isoformat(),
    "iso date": lambda day: day.date().isoformat(),
    "iso with Z": lambda day: day.strftime("%Y-%m-%dT%H:%M:%SZ"),
    "space": lambda day: day.strftime("%Y-%m-%d %H:%M:%S"),
    "month": lambda day: day.strftime("%Y-%m"),
    "German": lambda day: day.strftime("%d.%m.%Y"),
    "American": lambda day: day.strftime("%m/%d/%Y"),
    "British": lambda day: day.strftime("%d/%m/%Y %H:%M"),
    "words": lambda day: day.strftime("%B %d, %Y"),
    "Twitter": lambda day: day.strftime("%a %b %d %H:%M:%S PDT %Y"),
    "mail": lambda day: day.strftime("%a, %d %b %Y %H:%M:%S"),
    "date": lambda day: day.date(),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_dates_are_read_in_their_order(name: str) -> None:
    values = {str(n): WRITTEN[name](day) for n, day in enumerate(DAYS)}
    found = time_columns.times("anything", values)
    assert len(found) == len(DAYS)
    assert [found[str(n)].strftime("%Y-%m") for n in range(30)] == [day.strftime("%Y-%m") for day in DAYS]
    assert sorted(found.values()) == list(found.values())


@pytest.mark.parametrize(
    ("column", "values", "is_time"),
    [
        ("timestamp", [1_600_000_000 + 86_400 * n for n in range(30)], True),
        ("created_at", [str(1_600_000_000_000 + 86_400_000 * n) for n in range(30)], True),
        ("year", list(range(1990, 2020)), True),
        ("publication_date", [f"2019{n % 12 + 1:02}15" for n in range(30)], True),
        ("id", [1_600_000_000 + n for n in range(30)], False),
        ("votes", list(range(30)), False),
        ("price", [f"{n}.50" for n in range(30)], False),
        ("title", [f"Chapter {n}" for n in range(30)], False),
        ("version", [f"1.{n}.0" for n in range(30)], False),
        ("phone", [f"555-01{n:02}-1234" for n in range(30)], False),
        ("date", ["2020-01-01"] * 30, False),
    ],
)
def test_numbers_are_times_where_the_column_says_so(column: str, values: list[object], is_time: bool) -> None:
    assert bool(time_columns.times(column, {str(n): value for n, value in enumerate(values)})) == is_time


def test_a_few_unreadable_dates_are_left_out() -> None:
    values: dict[str, object] = {str(n): day.isoformat() for n, day in enumerate(DAYS)} | {"7": "unknown"}
    assert time_columns.times("when", values).keys() == values.keys() - {"7"}


def test_columns_of_text_label_and_group_are_not_looked_at(tmp_path: Path) -> None:
    rows = [(f"text {n}", day.year, day.date().isoformat(), day.date().isoformat()) for n, day in enumerate(DAYS)]
    path = write_csv(tmp_path / "a.csv", rows, ("text", "label", "when", "day"))
    ids = [f"a.csv:{n + 2}" for n in range(30)]
    found = time_columns.read(Data(path=str(path)), Split(group="day"), ids)
    assert list(found) == ["when"]
    assert list(found["when"]) == ids
