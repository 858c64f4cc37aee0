"""What people and spreadsheets do to a review file: to its form, which changes nothing, and to what it says."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from random import Random

Rows = list[dict[str, str]]


def _shuffled(rows: Rows, random: Random) -> Rows:
    names = random.sample(list(rows[0]), len(rows[0]))
    return [{name: row[name] for name in names} for row in random.sample(rows, len(rows))]


def _in_other_case(rows: Rows, random: Random) -> Rows:
    forms = (str.upper, str.title, lambda word: f" {word} ", lambda word: f"{word}\u00a0")
    return [row | {"decision": random.choice(forms)(row["decision"])} for row in rows]


def _without_columns(rows: Rows, random: Random) -> Rows:
    kept = ("decision", "new_label", "id", "content")
    return [{name: cell for name, cell in row.items() if name in kept} for row in rows]


FORMS: dict[str, Callable[[Rows, Random], Rows]] = {
    "another order": _shuffled,
    "another case": _in_other_case,
    "fewer columns": _without_columns,
    "a column more": lambda rows, random: [row | {"who": "me; \u201cyou\u201d\n"} for row in rows],
    "empty rows": lambda rows, random: rows + [dict.fromkeys(rows[0], random.choice(["", " "]))] * 3,
    "a row twice": lambda rows, random: [*rows, random.choice(rows)],
    "undecided rows less": lambda rows, random: [row for row in rows if row["decision"].strip()] or rows,
}
"""Edits that say the same."""


def _one(change: Callable[[dict[str, str], Random], dict[str, str]]) -> Callable[[Rows, Random], Rows]:
    def edit(rows: Rows, random: Random) -> Rows:
        place = random.randrange(len(rows))
        return [row | change(row, random) if n == place else row for n, row in enumerate(rows)]

    return edit


WRONG: dict[str, Callable[[Rows, Random], Rows]] = {
    "an unknown decision": _one(lambda row, random: {"decision": random.choice(["delete", "yes", "x", "1", "drop!"])}),
    "an unknown label": _one(
        lambda row, random: {"decision": "relabel", "new_label": random.choice(["weather", "", "=1"])}
    ),
    "a row of other data": _one(lambda row, random: {"id": random.choice(["other.csv:2", "rows.csv:9999", "7"])}),
    "another content": _one(lambda row, random: {"content": random.choice(["", "sha256:0", "x"])}),
    "no id": _one(lambda row, random: {"id": ""}),
    "two decisions": lambda rows, random: [
        *rows,
        rows[0] | {"decision": "keep" if rows[0]["decision"] == "drop" else "drop"},
    ],
    "a column less": lambda rows, random: [
        {name: cell for name, cell in row.items() if name != "content"} for row in rows
    ],
}
"""Edits that cannot be applied."""


def saved(rows: Rows, delimiter: str = ",", end: str = "\r\n", encoding: str = "utf-8") -> bytes:
    """Return rows as a spreadsheet may save them."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter, lineterminator=end, restval="")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode(encoding, "replace")


OTHER_FILES: dict[str, bytes] = {
    "a spreadsheet": b"PK\x03\x04" + bytes(200),
    "an old spreadsheet": b"\xd0\xcf\x11\xe0" + bytes(200),
    "nothing": b"",
    "a page": b"<html><table><tr><td>decision</td></tr></table></html>",
    "a header": b"decision,new_label,id\r\n",
    "an open quote": b'decision,new_label,id,content\r\n"drop,a,b,c\r\n',
    "zero bytes": b"decision,new_label,id,content\r\ndrop\0,,,\r\n",
}
"""Files that are no review file."""
