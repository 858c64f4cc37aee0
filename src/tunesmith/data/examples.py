"""From the columns of a table to examples: what a row must have, what labels are called, which rows are rejected."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Literal, NamedTuple, Protocol

from tunesmith.data import cells, example_table
from tunesmith.data.cells import InvalidRow
from tunesmith.data.rows import (
    OTHER_NAMES,
    SHOWN,
    SPLITS,
    Columns,
    RejectedRow,
    Row,
    RowsBySplit,
    Table,
    listed,
    no_rows,
    note,
    quoted,
    split_names,
)
from tunesmith.errors import DataError, RecipeError
from tunesmith.recipe import Split
from tunesmith.tasks import classification
from tunesmith.types import COLUMNS, DataNote, Example

WHOLE = re.compile(r"(-?\d{1,18})(\.0+)?")
TRUTH = {"False": 0, "True": 1}
INSTRUCTIONS = {"instruction", "messages", "conversations", "prompt"}
"""Columns that rows of task `instruction` have."""


@dataclass(frozen=True, slots=True)
class ParsedRows:
    """The examples of all tables, the rejected rows, and notes on how they were read."""

    rows_by_split: RowsBySplit
    rejected: list[RejectedRow]
    notes: list[DataNote]
    label_names: tuple[str, ...] | None = None
    unused: tuple[str, ...] = ()
    """Columns that nothing is learned from."""

    def all_notes(self, used: Sequence[str] = ()) -> list[DataNote]:
        """Return the notes, and one on the columns that are not used. used: for something else than learning."""
        unused = [column for column in self.unused if column not in used]
        if not unused:
            return self.notes
        return [DataNote(f"unused columns: {listed(unused)}", len(unused)), *self.notes]

    @property
    def total(self) -> int:
        """Rows read, rejected ones included."""
        return sum(map(len, self.rows_by_split.values())) + len(self.rejected)


class RowReader(Protocol):
    """How the rows of a task become examples."""

    def columns(self, table: Table) -> Columns:
        """Return the columns to read of a table. Raises DataError where it lacks one."""
        ...

    def example(self, row: Row, columns: Columns) -> Example:
        """Return the example of one row. Raises InvalidRow where the row cannot become one."""
        ...

    def notes(self, row: Row, columns: Columns) -> Iterable[DataNote]:
        """Return notes on how the example differs from the row."""
        ...

    def unused(self, table: Table, columns: Columns) -> Iterable[str]:
        """Return the columns of a table that nothing is learned from; rows to predict keep all of theirs."""
        ...


class Gold(NamedTuple):
    """What is learned of a row, as the fields of Example have it."""

    label: str | None = None
    labels: tuple[str, ...] | None = None
    value: float | None = None


GoldReader = Callable[[cells.Values, Columns], Gold]
"""Returns what is learned of a row. Raises InvalidRow where the row does not have it."""


def one_label(values: cells.Values, columns: Columns) -> Gold:
    """Return the row's label."""
    return Gold(label=cells.label(values.get(columns.label or "")))


def one_number(values: cells.Values, columns: Columns) -> Gold:
    """Return the row's number."""
    return Gold(value=cells.number(values.get(columns.label or "")))


def many_labels(values: cells.Values, columns: Columns, separator: str | None) -> Gold:
    """Return all labels of the row: of a list or text, or those whose column has a 1."""
    if columns.label is not None:
        return Gold(labels=cells.label_list(values.get(columns.label), separator))
    return Gold(labels=tuple(sorted(name for name in columns.indicators if cells.applies(values.get(name), name))))


@dataclass(frozen=True, slots=True)
class LabelledRowReader:
    """Reads texts, or pairs of texts, with what is learned of them; `required` is whether a row must have that."""

    wanted: Columns
    required: bool = True
    gold: GoldReader = one_label
    empty_is_known: bool = False
    """Whether an empty cell tells something: that no label applies."""

    def columns(self, table: Table) -> Columns:
        columns = self.wanted.within(table)
        settings = columns.settings()
        if not self.required:
            settings = {name: column for name, column in settings.items() if not name.startswith("data.label")}
        check_columns(table, settings)
        return columns

    def example(self, row: Row, columns: Columns) -> Example:
        values = row.values
        text = cells.text(values.get(columns.text), "text")
        pair = None if columns.text_pair is None else cells.text(values.get(columns.text_pair), "text_pair")
        known = self.required or any(self._is_known(values, column) for column in columns.labelled)
        gold = self.gold(values, columns) if known else Gold()
        group = cells.group(values, columns.group)
        return Example(row.id, text, pair, gold.label, group, value=gold.value, labels=gold.labels)

    def _is_known(self, values: cells.Values, column: str) -> bool:
        return (self.empty_is_known and column in values) or not cells.is_null(values.get(column))

    def notes(self, row: Row, columns: Columns) -> Iterator[DataNote]:
        for column in (columns.text, columns.text_pair):
            if column is not None and not isinstance(row.values[column], str):
                yield DataNote(f"numbers read as text in column {column}", 1, (row.id,))

    def unused(self, table: Table, columns: Columns) -> list[str]:
        used = columns.settings().values()
        return [column for column in table.columns if self.required and column not in used]


def collect(tables: Mapping[str, Table], split: Split, reader: RowReader) -> ParsedRows:
    """Read all tables to their ends."""
    columns: dict[str, Columns] = {}
    errors: list[DataError] = []
    for split_name, table in tables.items():
        try:
            columns[split_name] = reader.columns(table)
        except DataError as error:
            if not table.columns:
                raise
            errors.append(error)
    if errors:  # of all tables at once
        errors[0].args = ("\n".join(map(str, errors)),)
        raise errors[0]
    examples = {name: example_table.Collector() for name in SPLITS if name in tables or split.column}
    rejected: list[RejectedRow] = []
    notes: list[DataNote] = []
    unused = dict.fromkeys(column for name, table in tables.items() for column in reader.unused(table, columns[name]))
    for split_name, table in tables.items():
        read_before, rejected_before = sum(map(len, examples.values())), len(rejected)
        for item in _items(table, split_name, columns[split_name], split, reader):
            if isinstance(item, RejectedRow):
                rejected.append(item)
            elif isinstance(item, DataNote):
                notes.append(item)
            else:
                examples[item[0]].append(item[1])
        if sum(map(len, examples.values())) > read_before:
            continue
        reasons = [row.reason for row in rejected[rejected_before:]]
        if not reasons:
            raise no_rows(table.name)
        if set(reasons) <= {"missing label", "missing number"}:
            other = f"give a labelled {split_name} split, or set split.{split_name}=none to make one from train"
            do = "check data.label; to predict rows without labels, use predict" if split_name == "train" else other
            raise DataError(
                f"{table.name}: no row has a label",
                expected="a label in every row",
                found=f"{len(reasons)} rows without one",
                do=do,
            )
    names = next((table.label_names for table in tables.values() if table.label_names), None)
    rows_by_split = {name: rows.rows() for name, rows in examples.items() if rows or name in tables}
    return ParsedRows(rows_by_split, rejected, notes, names, tuple(unused))


def check_columns(table: Table, required: Mapping[str, str]) -> None:
    """Refuse a table that lacks a required column. required: columns by the setting that names them."""
    missing = {setting: column for setting, column in required.items() if column not in table.columns}
    if not missing:
        return
    if not table.columns:
        raise no_rows(table.name)
    advice = []
    lower = {column.lower(): column for column in table.columns}
    options = {setting: name.replace("_", "-") for name, setting in COLUMNS.items()}
    for setting, column in missing.items():
        close = get_close_matches(column.lower(), lower, n=1, cutoff=0.5)
        option = f" (--{options[setting]})" if setting in options else ""
        meant = shlex.quote(f"{setting}={lower[close[0]]}") if close else ""
        advice.append(f"did you mean {meant}?" if meant else f"set {setting}{option}")
    if "data.label" in missing and INSTRUCTIONS.intersection(table.columns):
        advice.append("if these are instructions, set task=instruction")
    raise DataError(
        f"{table.name}: no column {' and no column '.join(map(quoted, missing.values()))}",
        expected=", ".join(f"{quoted(column)} ({setting})" for setting, column in required.items()),
        found=f"the columns {listed(table.columns)}",
        do="; ".join(advice),
    )


def _items(
    table: Table, split_name: str, columns: Columns, split: Split, reader: RowReader
) -> Iterator[tuple[str, Example] | RejectedRow | DataNote]:
    names_by_split = split_names(split)
    names = {name.lower(): split_name for split_name, names in names_by_split.items() for name in names}
    for off in (split_name for split_name, accepted in names_by_split.items() if not accepted):  # by the recipe
        names = dict.fromkeys((off, *OTHER_NAMES.get(off, ())), "") | names
    for item in table.items:
        if not isinstance(item, Row):
            yield item
            continue
        try:
            target = split_name
            if columns.split:
                value = item.values.get(columns.split)
                name = "" if value is None else str(value).strip()
                if name.lower() not in names:
                    raise InvalidRow("unknown name in split.column", quoted(name))
                target = names[name.lower()]
            example = reader.example(item, columns)
        except InvalidRow as invalid:
            yield RejectedRow(invalid.reason, item.id, invalid.note)
            continue
        yield from reader.notes(item, columns)
        if columns.group is not None and example.group is None:
            yield DataNote("no group: the row is a group of its own", 1, (item.id,))
        if target:
            yield target, example
        else:
            yield DataNote("ignored: rows of a split that the recipe calls `none`", 1, (item.id,))


def name_labels(parsed: ParsedRows, *, strict: bool = True) -> RowsBySplit:
    """Turn integer labels into names where names are known. strict: a label without a name is an error.

    Labels are taken for names if all of them are, for indices if all of them are whole numbers.
    """
    names = parsed.label_names
    if names is None:
        return parsed.rows_by_split
    if len(set(names)) < len(names):
        raise DataError(
            "duplicate names in data.label_names",
            expected="every name once",
            found=listed(names),
            do="correct data.label_names",
        )
    rows = example_table.join(parsed.rows_by_split.values())
    labels = {label for row in rows for label in row.all_labels}
    indices = {label: int(whole[1]) if (whole := WHOLE.fullmatch(label)) else TRUTH.get(label) for label in labels}
    if labels <= set(names) or None in indices.values():
        renamed = {label: label for label in labels if label in names}
    else:
        renamed = {label: names[i] for label, i in indices.items() if i is not None and 0 <= i < len(names)}
    unnamed = [row for row in rows if not renamed.keys() >= {*row.all_labels}] if strict else []
    if unnamed:
        uncovered = dict.fromkeys(label for row in unnamed for label in row.all_labels)
        raise DataError(
            "labels that data.label_names does not cover",
            expected=f"{listed(names)}, or whole numbers from 0 to {len(names) - 1}",
            found=f"{listed(map(quoted, uncovered))} "
            f"({len(unnamed)} rows: {listed((row.id for row in unnamed), SHOWN)})",
            do="correct data.label_names or the labels",
        )

    def named(row: Example) -> Example:
        if row.labels is not None:
            return replace(row, labels=tuple(renamed.get(label, label) for label in row.labels))
        return replace(row, label=renamed.get(row.label or "", row.label))

    return {name: example_table.collect(map(named, split_rows)) for name, split_rows in parsed.rows_by_split.items()}


def check_labels(rows_by_split: RowsBySplit, *, making: bool) -> tuple[RowsBySplit, list[RejectedRow], list[DataNote]]:
    """Take out rows whose label cannot be learned: unseen in train, or on a single row where splits are to be made."""
    targets = {name: example_table.targets(rows) for name, rows in rows_by_split.items()}
    counts = Counter(label for row in targets["train"] for label in row.all_labels)
    single = {label for label, count in counts.items() if count == 1}
    notes = []
    if single and not making:
        ids = (row.id for row in rows_by_split["train"] if single.intersection(row.all_labels))
        notes.append(note("label with a single example in train", ids))
    known = set(counts) - single if making else set(counts)
    rejected: list[RejectedRow] = []
    kept: RowsBySplit = {}
    for split_name, rows in rows_by_split.items():
        reason = "label with a single example" if split_name == "train" else "label unseen in train"
        out = set()
        for place, row in enumerate(targets[split_name]):
            if unknown := [label for label in row.all_labels if label not in known]:
                rejected.append(RejectedRow(reason, rows[place].id, listed(map(quoted, unknown))))
                out.add(place)
        kept[split_name] = example_table.leave_out(rows, out)
    folded: dict[str, list[str]] = {}
    for label in sorted(known):
        folded.setdefault(" ".join(label.split()).casefold(), []).append(label)
    similar = [label for same in folded.values() if len(same) > 1 for label in same]
    if similar:
        what = f"labels that differ only by case or spaces: {listed(map(quoted, similar))}"
        notes.append(DataNote(what, len(similar)))
    return kept, rejected, notes


def label_order(
    rows: Sequence[Example], names: tuple[str, ...] | None, order: tuple[str, ...] | None = None
) -> tuple[str, ...]:
    """Return every label once: in the order given or of `names`, else numbers by value, else alphabetically.

    Raises DataError where a given order lacks a label.
    """
    labels = {label for row in example_table.targets(rows) for label in row.all_labels}
    if order is not None:
        if missing := sorted(labels - {*order}):
            raise DataError(
                f"data.label_order lacks {listed(map(quoted, missing))}",
                expected="every label of the data",
                found=listed(order),
                do="add them where they belong",
            )
        return tuple(label for label in dict.fromkeys(order) if label in labels)
    if names is not None:
        return tuple(name for name in names if name in labels)
    if all(classification.NUMBER.fullmatch(label) for label in labels):
        return tuple(sorted(labels, key=lambda label: (float(label), label)))
    return tuple(sorted(labels))


def handle_rejected(
    rejected: Sequence[RejectedRow], policy: Literal["error", "drop", "keep"], total: int
) -> list[DataNote]:
    """Return notes on the rows that are dropped. Raises DataError with all of them where the policy is `error`.

    Raises RecipeError for `keep`, which is for rows to predict.
    """
    if policy == "keep":
        raise RecipeError("data.on_bad_rows=keep is for rows to predict", expected="error or drop")
    reasons: dict[str, list[RejectedRow]] = {}
    for row in rejected:
        reasons.setdefault(row.reason, []).append(row)
    if policy == "drop" or not rejected:
        return [note(f"dropped: {reason}", (row.id for row in rows)) for reason, rows in reasons.items()]
    lines = []
    for reason, rows in reasons.items():
        ids = listed((f"{row.id}: {row.note}" if row.note else row.id for row in rows), SHOWN)
        lines.append(f"{reason}: {len(rows)} ({ids})")
    raise DataError(
        f"{len(rejected)} bad row{'s' if len(rejected) > 1 else ''} of {total}",
        expected="rows that can be read",
        found="\n    ".join(lines),
        do="fix these rows, or leave them out with data.on_bad_rows=drop",
    )
