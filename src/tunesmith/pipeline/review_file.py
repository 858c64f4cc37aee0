"""The review file of an audit: the rows whose labels are suspect, and what a person decides about each."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args

from tunesmith import disk
from tunesmith.auditing.label_errors import Gold, SuspectLabel
from tunesmith.console import printable, warn
from tunesmith.data import cells, files, formats, spreadsheets
from tunesmith.data.cells import InvalidRow
from tunesmith.data.rows import SHOWN, RejectedRow, Row, listed
from tunesmith.errors import DataError
from tunesmith.runs import Run
from tunesmith.types import Example

NAME = "review.csv"
Action = Literal["keep", "relabel", "drop"]
ACTIONS: tuple[Action, ...] = get_args(Action)
REQUIRED = ("id", "content", "decision", "new_label")
SEPARATOR = " | "
"""Between several labels of a cell."""
NEAREST = 160
"""Characters of a neighbour's text that a cell shows."""


@dataclass(frozen=True, slots=True)
class ReviewDecision:
    """What a person decided about a row."""

    where: str
    """The line of the review file."""
    id: str
    content: str
    action: Action | None
    """None where nothing was decided."""
    new_label: str

    @property
    def change(self) -> tuple[Action, str] | None:
        """What becomes of the row; None where it stays as it is."""
        if self.action is None or self.action == "keep":
            return None
        return self.action, self.new_label.strip() if self.action == "relabel" else ""


def content_of(row: Example) -> str:
    """Return a hash of texts and label: by it and its id a row is recognised."""
    content = json.dumps([row.text, row.text_pair, row.gold])
    return f"sha256:{hashlib.sha256(content.encode('ascii')).hexdigest()[:20]}"


def write(folder: Run, suspects: Sequence[SuspectLabel], contents: Mapping[str, str], *, jsonl: bool) -> None:
    """Write the suspect rows for a person, the most suspect first; as CSV, and as JSON Lines if asked.

    contents: the hash of each row, by its id.
    """
    rows = [_columns(suspect, contents[suspect.id]) for suspect in suspects]
    names = list(rows[0]) if rows else list(REQUIRED)
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(names)
    writer.writerows([[spreadsheets.escape(_cell(row[name])) for name in names] for row in rows])
    _write(folder, NAME, out.getvalue())
    if jsonl:
        lines = (printable(json.dumps(row, ensure_ascii=False)) + "\n" for row in rows)
        _write(folder, "review.jsonl", "".join(lines))


def _write(folder: Run, name: str, text: str) -> None:
    """Write a review file, unless a resumed audit finds one that a person has edited meanwhile."""
    path = folder.path / name
    with disk.explained("read", path):
        is_edited = path.exists() and path.read_bytes() != text.encode()
    if is_edited:
        warn(f"{path} has been edited and stays as it is; to have it written again, remove it and resume the audit")
    else:
        folder.write(name, text)


def _columns(suspect: SuspectLabel, content: str) -> dict[str, str | float]:
    """Return a suspect row as the review file has it: what is to be read first, what identifies it last."""
    pair = {} if suspect.text_pair is None else {"text_pair": suspect.text_pair}
    probabilities = {
        "label_probability": suspect.given_probability,
        "suggested_probability": suspect.suggested_probability,
        "quality": suspect.quality,
    }
    nearest = (
        f"{written(near.gold)}: {near.text[:NEAREST]} ({near.id}, {near.similarity:.2f})" for near in suspect.neighbours
    )
    votes = "" if suspect.votes is None else ", ".join(f"{label}: {count}" for label, count in suspect.votes.items())
    return {
        "decision": "",
        "new_label": written(suspect.suggested),
        "label": written(suspect.given),
        "text": suspect.text,
        **pair,
        "suggested": written(suspect.suggested),
        **{name: "" if value is None else round(value, 4) for name, value in probabilities.items()},
        "reason": suspect.reason,
        "votes": votes,
        "nearest": "\n".join(nearest),
        "split": suspect.split,
        "id": suspect.id,
        "content": content,
    }


def written(gold: Gold) -> str:
    """Return what a row carries as one cell: several labels around ` | `, in JSON where a label has a bar itself."""
    if isinstance(gold, tuple):
        return json.dumps(gold, ensure_ascii=False) if any("|" in label for label in gold) else SEPARATOR.join(gold)
    return f"{gold:.10g}" if isinstance(gold, float) else gold


def read(path: Path, known: Collection[str]) -> tuple[list[ReviewDecision], str]:
    """Return the decisions in a review file, CSV or JSON Lines, also as a spreadsheet saved it; and its SHA-256.

    known: ids of the data. Raises DataError, which names the lines, for a decision that is none and for a row with
    two of them.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        do = "give the file review.csv in the folder of the audit"
        raise DataError(f"{path} is not a file", expected="a review file of an audit", found=found, do=do)
    with disk.explained("read", path):
        content = path.read_bytes()
    encodings = "utf-16" if content.startswith(files.UTF16) else "utf-8,cp1252"
    table = formats.table(path, path.name, encodings, None)
    if missing := [name for name in REQUIRED if name not in table.columns]:
        found = f"the columns {listed(table.columns)}"
        do = "keep the columns of the review file that the audit wrote; others may go"
        raise DataError(f"{path.name}: no column {listed(missing)}", expected=listed(REQUIRED), found=found, do=do)
    decisions: dict[str, ReviewDecision] = {}
    problems: list[str] = []
    for item in table.items:
        if isinstance(item, RejectedRow):
            problems.append(f"{item.id}: {item.reason}: {item.note}")
        if not isinstance(item, Row) or all(cells.is_null(item.values.get(name)) for name in REQUIRED):
            continue
        decision = _decision(item, known)
        if isinstance(decision, str):
            problems.append(decision)
        elif (earlier := decisions.get(decision.id)) is None:
            decisions[decision.id] = decision
        elif earlier.change != decision.change:
            problems.append(f"{item.id}: row {decision.id} is decided twice, first in {earlier.where}")
    refuse(path.name, problems)
    return list(decisions.values()), hashlib.sha256(content).hexdigest()


def refuse(name: str, problems: Sequence[str]) -> None:
    """Raise DataError where there are problems."""
    if problems:
        raise DataError(
            f"cannot apply {name}: {len(problems)} problem{'s' if len(problems) > 1 else ''}",
            expected="keep, relabel, drop or nothing in `decision`; with relabel a label of the data in `new_label`",
            found="\n    ".join(
                [*problems[:SHOWN], *([f"and {len(problems) - SHOWN} more"] * (len(problems) > SHOWN))]
            ),
            do="correct these lines",
        )


def _decision(row: Row, known: Collection[str]) -> ReviewDecision | str:
    """Return the decision of a line, or what is wrong with it."""
    values = {name: _cell(row.values.get(name)) for name in REQUIRED}
    if not values["id"]:
        return f"{row.id}: no id, by which a row is recognised"
    name = next((name for name in (values["id"], values["id"].strip()) if name in known), None)
    name = spreadsheets.unescape(values["id"]) if name is None else name
    word = values["decision"].strip().casefold()
    action = next((action for action in ACTIONS if action == word), None)
    if word and action is None:
        close = get_close_matches(word, ACTIONS, n=1)
        return f"{row.id}: unknown decision {word[:40]!r}" + (f" (did you mean {close[0]}?)" if close else "")
    return ReviewDecision(row.id, name, values["content"].strip(), action, values["new_label"])


def _cell(value: Any) -> str:
    """Return a value as a cell of CSV has it, which has no lists and no zero bytes."""
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    return "" if cells.is_null(value) else str(value).replace("\0", "\\u0000")


def parse_labels(cell: str) -> tuple[str, ...]:
    """Return the labels of a cell that `written` wrote or a person edited, sorted. Raises InvalidRow."""
    if cell.lstrip().startswith("["):
        try:
            return cells.label_list(json.loads(cell), None)
        except ValueError:
            raise InvalidRow("a list that is not JSON", repr(cell[:40])) from None
    return cells.label_list(cell, "|")
