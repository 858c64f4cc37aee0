"""Data that is broken or odd: each source has to be read whole, or refused with an error that helps."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from tests import conftest, tiny
from tests.campaigns.campaign import Campaign, Outcome, Result, execute, prepare
from tests.campaigns.odd_sources import Row, Source, written

CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
LARGEST_TRAINED = 300_000
"""Bytes; training on thousands of labels takes longer than what counts as a hang."""
UNSIZED = ("none", "folder")
LONGEST_MESSAGE = 6_000
JOINED = "stray pair of quotes"
"""What the note on CSV rows of many lines says, which may be several rows."""


class MalformedData(Campaign):
    """A file or folder with up to two flaws, read by `check`, `predict` or `train`."""

    name = "malformed-data"
    size = 1000
    sample = 10

    def prepare(self, folder: Path) -> None:
        conftest.write_csv(folder / "reviews.csv", tiny.texts(40))
        self.run = folder / "run"
        prepare("train", "reviews.csv", "method=linear", "--run-dir", "run", folder=folder)

    def attempt(self, number: int, folder: Path) -> Outcome:
        source = written(self.random(number), folder)
        name, settings = str(source.path.relative_to(folder)), source.settings
        if number % 3 == 2:
            output = ["--output", "out.csv"] if number % 2 else []
            result = execute("predict", str(self.run), "--data", name, *output, *settings, folder=folder)
        elif number % 20 == 0 and (source.format in UNSIZED or source.path.stat().st_size < LARGEST_TRAINED):
            result = execute("train", name, "method=linear", "--run-dir", "new", *settings, folder=folder)
        else:
            result = execute("check", name, "method=linear", "--json", *settings, folder=folder)
        judged = result.outcome
        if problem := _terminal_problem(result):
            return Outcome("unclear", f"{problem}: {result.words} {result.stderr[-1500:]!r}")
        if judged.kind == "refused" and (missing := _missing(result.stderr, source)):
            return Outcome("unclear", f"no {' and no '.join(missing)}: {result.words}\n{result.stderr[-1500:]}")
        if judged.kind == "works" and (lost := _lost(result, source)):
            return Outcome("silent", f"{lost}: {result.words}\n{result.stderr[-1500:]}")
        return judged


def _terminal_problem(result: Result) -> str:
    if found := CONTROLS.search(result.stdout + result.stderr):
        return f"the control character {found[0]!r} reaches the terminal"
    if "Traceback" not in result.stderr and len(result.stderr) > LONGEST_MESSAGE:
        return f"messages of {len(result.stderr):,} characters"
    return ""


def _missing(message: str, source: Source) -> list[str]:
    """Return the parts that an error lacks: the name of the file, or of one in the folder, and the others."""
    if message.startswith("error: data.encoding: no such encoding") or "found: File name too long" in message:
        return []  # the setting, the system
    path = source.path
    inside = path.rglob("*") if source.format == "folder" else ()
    names = [path.name, *(str(inner.relative_to(path)) for inner in inside)]
    named = any(CONTROLS.sub(lambda match: json.dumps(match[0])[1:-1], name) in message for name in names)
    missing = [part for part in ("expected:", "found:", "do:") if part not in message]
    return missing if named else [path.name, *missing]


def _lost(result: Result, source: Source) -> str:
    """Return how the rows that the command read differ from those that stand in the source, unless it says so."""
    try:
        expected = read(source)
    except Exception as error:  # tunesmith reads what an independent reader refuses
        return f"another reader raises {error!r}"
    if expected is None or JOINED in result.stdout + result.stderr:
        return ""
    if result.words[0] == "check":
        checked = json.loads(result.stdout)
        rows = sum(split["rows"] for split in checked["splits"].values())
        per_label: Counter[str] = Counter()
        for split in checked["splits"].values():
            per_label.update(split["per_label"])
        if rows != len(expected):
            return f"{rows} rows of {len(expected)}"
        known = Counter(_as_label(row["label"]) for row in expected)
        return "" if +per_label == known else f"labels {per_label.most_common(9)} instead of {known.most_common(9)}"
    if result.words[0] == "predict":
        if (out := source.path.parent / "out.csv").exists():
            with out.open(newline="") as file:
                rows_written = list(csv.reader(file))
            if formulas := [cell for row in rows_written for cell in row if _is_formula(cell)]:
                return f"a formula in the output: {formulas[0][:80]!r}"
            at = rows_written[0].index("text")
            texts = [row[at].removeprefix("'") if _is_formula(row[at][1:]) else row[at] for row in rows_written[1:]]
        else:
            texts = [str(json.loads(line)["text"]) for line in result.stdout.splitlines()]
        known_texts = [str(row["text"]) for row in expected]
        if source.format == "folder":  # which goes by the names of its files
            texts, known_texts = sorted(texts), sorted(known_texts)
        return "" if texts == known_texts else f"{len(texts)} texts, not the {len(known_texts)} of the source"
    return ""


def _is_formula(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell[:1] in tuple("=+-@\t\r\n")
    return False


def _as_label(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


# An independent reading.


def read(source: Source) -> list[Row] | None:
    """Return the rows of a source as other software reads them: csv, json, pyarrow, or what was written."""
    if source.rows is not None:
        return source.rows
    if not source.path.is_file():
        return None
    content = source.path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    if source.format == "parquet":
        import pyarrow.parquet

        return pyarrow.parquet.read_table(pyarrow.BufferReader(content)).to_pylist()
    encoding = next((word.partition("=")[2] for word in source.settings if word.startswith("data.enc")), "utf-8-sig")
    text = content.decode("utf-8-sig" if encoding == "utf-8" else encoding).removeprefix("\ufeff")
    if source.format == "jsonl":
        return [json.loads(line) for line in io.StringIO(text, newline="") if line.strip()]
    if source.format == "json":
        try:
            parsed = json.loads(text)
        except json.JSONDecodeError:
            return [json.loads(line) for line in io.StringIO(text, newline="") if line.strip()]
        if isinstance(parsed, dict):
            (parsed,) = [value for value in parsed.values() if isinstance(value, list)]
        return list(parsed)
    if source.format == "tsv":
        return None  # whether quotes are markup is a guess, and told apart elsewhere
    lines = io.StringIO(text, newline="")
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = "," if "," in first else next((mark for mark in ";\t|" if mark in first), ",")
    csv.field_size_limit(2**31 - 1)
    records = [fields for fields in csv.reader(lines, delimiter=delimiter) if any(field.strip() for field in fields)]
    header = records[0]
    if any(len(fields) != len(header) for fields in records[1:]):
        raise ValueError("ragged rows")
    return [dict(zip(header, fields, strict=True)) for fields in records[1:]]
