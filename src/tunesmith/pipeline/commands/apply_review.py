"""`tunesmith audit --apply`: the decisions in a review file turn the data into a new file, with their provenance."""

from __future__ import annotations

import csv
import io
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith import __version__, disk, recipe as recipes, records, runs
from tunesmith.console import printable, say, warn
from tunesmith.data import cells, sources, spreadsheets
from tunesmith.data.cells import InvalidRow
from tunesmith.data.rows import SHOWN, RejectedRow, Row, listed, quoted
from tunesmith.errors import DataError, RecipeError
from tunesmith.pipeline import in_memory, new_data, review_file
from tunesmith.pipeline.review_file import Action, ReviewDecision
from tunesmith.pipeline.run_names import source_name
from tunesmith.pipeline.task_table import TASKS, read_splits
from tunesmith.recipe import Data, Recipe
from tunesmith.records import omitted_if_none
from tunesmith.reporting.format import counted
from tunesmith.runs import RECIPE
from tunesmith.types import Example, Splits

Values = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ChangedRow:
    """A row that was relabelled or dropped."""

    id: str
    content: str
    """Hash of its texts and label before."""
    decision: Action
    label: str
    new_label: str | None = omitted_if_none()


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where a cleaned file comes from: OUTPUT.provenance.json."""

    source: str
    fingerprint: str
    """Of the source's splits, as its audit and its runs have it."""
    review: str
    review_sha256: str
    audit: str
    """The folder of the review file."""
    tunesmith: str
    created: str
    counts: dict[str, int]
    """Rows by decision; `undecided` are those without one."""
    split_column: str | None = omitted_if_none()
    """The column that says which split a row came from, where the source has several files."""
    rows: tuple[ChangedRow, ...]


@dataclass(frozen=True, slots=True)
class CleanedData:
    """The new data file, and how it came about."""

    path: Path
    provenance: Provenance

    @property
    def provenance_path(self) -> Path:
        return self.path.with_suffix(".provenance.json")


def apply_review(
    review: str | Path,
    source: object = None,
    overrides: Sequence[str] = (),
    *,
    output: str | Path,
    overwrite: bool = False,
) -> CleanedData:
    """Write the data with the decisions of a review file: dropped rows go, relabelled ones get their new label.

    source: the data that was audited, as `audit` takes it; None for the one that the audit's recipe beside the review
    file names. output: a .csv or .jsonl file with every column of the data. All else of the rows stays as it is. Raises
    DataError where a reviewed row is no longer as it was, for an unknown decision and for an unknown label.
    """
    review, output = Path(review).expanduser(), Path(output).expanduser()
    if output.suffix not in (".csv", ".jsonl"):
        raise RecipeError(f"cannot write {output}", expected="a name that ends in .csv or .jsonl", do="change --output")
    recipe = _recipe(review, source, overrides)
    for path in (output, output.with_suffix(".provenance.json")):
        for read in (source_name(recipe), str(review)):
            new_data.check_output(path, read, overwrite=overwrite)
    if TASKS[recipe.task].has_responses:
        raise RecipeError(f"cannot apply {review.name}: task {recipe.task} has no labels")
    splits = read_splits(recipe)
    examples = {row.id: row for rows in (splits.train, splits.validation, splits.test) for row in rows}
    decisions, review_sha256 = review_file.read(review, examples.keys())
    _check_unchanged(decisions, examples, review.name)
    changes = _changes(decisions, examples, splits, review.name)
    rows, columns, split_column = _cleaned(recipe, examples, changes)
    counts: Counter[str] = Counter(decision.action or "undecided" for decision in decisions)
    provenance = Provenance(
        source=source_name(recipe),
        fingerprint=splits.fingerprints["data"],
        review=str(review),
        review_sha256=review_sha256,
        audit=str(review.absolute().parent),
        tunesmith=__version__,
        created=time.strftime("%Y-%m-%d %H:%M:%S"),
        counts={name: counts[name] for name in (*review_file.ACTIONS, "undecided")},
        split_column=split_column,
        rows=tuple(changes.values()),
    )
    cleaned = CleanedData(output, provenance)
    _write(cleaned, _written(rows, columns, output.suffix).encode(errors="backslashreplace"))
    done = ", ".join(f"{counts[name]:,} {name}" for name in (*review_file.ACTIONS, "undecided"))
    say(f"{output}: {counted(len(rows), 'row')} ({done})")
    if split_column:
        say(f"{output}: the source has several files; read it with split.column={split_column}")
    return cleaned


def _write(cleaned: CleanedData, content: bytes) -> None:
    """Write the data and its provenance, or where the disk does not take both, neither."""
    path = cleaned.provenance_path
    with disk.explained("write", path), disk.scratch(path, Path.touch) as scratch:
        with scratch.open("wb") as file:
            file.write((records.encode(cleaned.provenance, f"write {path}") + "\n").encode())
            file.flush()
            os.fsync(file.fileno())
        runs.write_whole(cleaned.path, content)
        scratch.replace(path)


def _recipe(review: Path, source: object, overrides: Sequence[str]) -> Recipe:
    """Return the recipe that the data is read by: of a plain data source, the one of the audit."""
    audited = review.absolute().parent / RECIPE
    if isinstance(source, (str, Path)) and runs.is_run(source):
        return recipes.load(runs.find(source).recipe, overrides)
    is_recipe = isinstance(source, (str, Path)) and Path(source).suffix in (".yaml", ".yml")
    if source is None and not audited.is_file():
        do = "give the data source that was audited"
        raise RecipeError(f"no data to apply {review.name} to", expected=f"{audited}, or a data source", do=do)
    if source is None:
        return recipes.load(audited, overrides)
    given = in_memory.recipe_source(source, overrides)
    if is_recipe or not audited.is_file() or not isinstance(given, (str, Path)):
        return recipes.load(given, overrides)
    return new_data.settings(recipes.load(audited), str(given), overrides, ("split",))


def _check_unchanged(decisions: Sequence[ReviewDecision], examples: Mapping[str, Example], name: str) -> None:
    """Raise DataError unless every reviewed row is there, with the texts and label that it had."""
    missing = [row for row in decisions if row.id not in examples]
    changed = [
        row for row in decisions if row.id in examples and review_file.content_of(examples[row.id]) != row.content
    ]
    if missing or changed:
        lines = [f"{row.where}: there is no row {row.id}" for row in missing]
        lines += [f"{row.where}: row {row.id} has other texts or another label" for row in changed]
        more = [f"and {len(lines) - SHOWN} more"] * (len(lines) > SHOWN)
        raise DataError(
            f"cannot apply {name}: the data is not as it was when it was audited",
            expected="every reviewed row, unchanged, under its id",
            found="\n    ".join([*lines[:SHOWN], *more]),
            do="give the data file that was audited, or audit this one",
        )


def _changes(
    decisions: Sequence[ReviewDecision], examples: Mapping[str, Example], splits: Splits, name: str
) -> dict[str, ChangedRow]:
    """Return what changes, by row. Raises DataError for labels that the data does not have."""
    changes: dict[str, ChangedRow] = {}
    problems: list[str] = []
    for decision in decisions:
        example = examples[decision.id]
        before = review_file.written(example.gold if example.gold is not None else "")
        if decision.action == "drop":
            changes[decision.id] = ChangedRow(decision.id, decision.content, "drop", before)
        if decision.action != "relabel":
            continue
        try:
            after = _new_label(decision.new_label, example, splits)
        except InvalidRow as invalid:
            problems.append(f"{decision.where}: {invalid.reason} {invalid.note}".rstrip())
            continue
        if after != before:
            changes[decision.id] = ChangedRow(decision.id, decision.content, "relabel", before, after)
    review_file.refuse(name, problems)
    return changes


def _new_label(cell: str, example: Example, splits: Splits) -> str:
    """Return the new label of a row, or its labels or number, as `review_file.written` does. Raises InvalidRow."""
    if example.value is not None:
        return review_file.written(cells.number(cell))
    if example.labels is None:
        return _known(cell, splits.labels)
    return review_file.written(tuple(sorted(_known(label, splits.labels) for label in review_file.parse_labels(cell))))


def _known(cell: str, labels: Sequence[str]) -> str:
    for name in (cell, cell.strip(), spreadsheets.unescape(cell)):
        if name in labels:
            return name
    if not cell.strip():
        raise InvalidRow("relabel without a label in new_label")
    raise InvalidRow(f"unknown label {quoted(cell)};", f"the data has {listed(labels)}")


def _cleaned(
    recipe: Recipe, examples: Mapping[str, Example], changes: Mapping[str, ChangedRow]
) -> tuple[list[Values], list[str], str | None]:
    """Return the rows of the source with the changes, its columns, and the column of the split where one is added."""
    tables = sources.tables(recipe.data, recipe.split, None)
    items = {name: list(table.items) for name, table in tables.items()}
    columns = list(dict.fromkeys(column for table in tables.values() for column in table.columns))
    rows = [(name, item) for name, of_table in items.items() for item in of_table if isinstance(item, Row)]
    if lost := [item.id for of_table in items.values() for item in of_table if isinstance(item, RejectedRow)]:
        warn(f"left out: {counted(len(lost), 'row')} that could not be read ({listed(lost, SHOWN)})")
    implied = any(table.implied for table in tables.values())
    label: str | tuple[str, ...] = "label" if implied else recipe.data.label
    relabel = _relabelling(
        recipe.data, label, [(item.values, examples[item.id]) for _, item in rows if item.id in examples]
    )
    split_column = None
    if len(tables) > 1:
        split_column = next(name for name in ("split", "split_name", "tunesmith_split") if name not in columns)
        columns.append(split_column)
    cleaned = []
    for name, item in rows:
        values, change = dict(item.values), changes.get(item.id)
        if change is not None and change.decision == "drop":
            continue
        if change is not None and change.new_label is not None:
            values |= relabel(values, change.new_label)
        cleaned.append(values | ({split_column: name} if split_column else {}))
    return cleaned, columns, split_column


def _relabelling(
    data: Data, label: str | tuple[str, ...], rows: Iterable[tuple[Mapping[str, Any], Example]]
) -> Callable[[Mapping[str, Any], str], Values]:
    """Return what gives the cells of a row a new label, written as the source writes it.

    rows: values and example of the rows that were read.
    """
    rows = list(rows)
    example = rows[0][1]
    if isinstance(label, tuple):
        return lambda values, new: {name: int(name in review_file.parse_labels(new)) for name in label}
    if example.value is not None:
        kept_text = all(isinstance(values.get(label), str) for values, _ in rows)
        return lambda values, new: {label: new if kept_text else float(new)}
    if example.labels is None:
        raw = {row.label: values.get(label) for values, row in rows}
        return lambda values, new: {label: raw.get(new, new)}
    indices = {name: number for number, name in enumerate(data.label_names or ())}
    if any(
        {*(row.labels or ())} & {*cells.label_list(values.get(label), data.label_separator)} for values, row in rows
    ):
        indices = {}  # the source has names

    def several(values: Mapping[str, Any], new: str) -> Values:
        names = [indices.get(name, name) for name in review_file.parse_labels(new)]
        if any(isinstance(values.get(label), list | tuple) for values, _ in rows):
            return {label: names}
        return {label: (data.label_separator or " ").join(map(str, names))}

    return several


def _written(rows: Sequence[Values], columns: Sequence[str], suffix: str) -> str:
    """Return rows as CSV, with lists and objects in JSON, or as JSON Lines; texts are as they were."""
    if suffix == ".jsonl":
        return "".join(printable(json.dumps(row, ensure_ascii=False, default=str)) + "\n" for row in rows)
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(columns)
    for row in rows:
        cell = (row.get(column) for column in columns)
        writer.writerow(
            [json.dumps(c, ensure_ascii=False, default=str) if isinstance(c, (list, dict)) else c for c in cell]
        )
    return out.getvalue()
