"""From a recipe to the frozen splits that every method shares."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path

from tunesmith.data import (
    cells,
    conversations,
    duplicates,
    example_table,
    examples,
    near_duplicates,
    nested_subsets,
    sources,
    split_cache,
    splits,
)
from tunesmith.data.rows import SPLITS, Columns, RejectedRow, Row, RowsBySplit, Table, listed, merge, quoted
from tunesmith.errors import DataError, RecipeError
from tunesmith.recipe import Data, Split
from tunesmith.tasks import classification, instruction, multilabel, regression
from tunesmith.types import DataNote, Example, Splits


@dataclass(frozen=True, slots=True)
class TaskReader:
    """How the rows of a task become examples, and how splits are cut from them."""

    parse: Callable[[Data, Split, bool], examples.ParsedRows]
    """Reads all tables. The flag says whether every row must have its target."""
    columns: Callable[[Data, Split], Sequence[str]]
    """The columns that are read, as far as the recipe names them."""
    strata: splits.Strata
    """The stratum of each row: every split gets its share of each."""
    row_reader: Callable[[Data, Split, bool], examples.RowReader]
    """What reads a single row, as `parse` reads all of them. The flag is that of `parse`."""
    check_train: Callable[[Sequence[Example]], None] | None = None
    """Raises DataError where nothing could be learned from these rows."""
    names_labels: bool = False
    """Whether rows have labels by name, of a set that train defines."""
    orders_labels: bool = False
    """Whether labels may have an order."""


def read_labelled(data: Data, split: Split, required: bool) -> examples.ParsedRows:
    """Read texts with labels. required: every row must have its label."""
    parsed = _read_texts(data, split, label_reader(data, split, required))
    return replace(parsed, label_names=data.label_names or parsed.label_names)


def read_label_lists(data: Data, split: Split, required: bool) -> examples.ParsedRows:
    """Read texts with any number of labels. required: every row must have its list, which may be empty."""
    reader = label_list_reader(data, split, required)
    parsed = _read_texts(data, split, reader)
    return replace(parsed, label_names=data.label_names or reader.wanted.indicators or parsed.label_names)


def read_numbers(data: Data, split: Split, required: bool) -> examples.ParsedRows:
    """Read texts with numbers. required: every row must have its number."""
    return replace(_read_texts(data, split, number_reader(data, split, required)), label_names=None)


def label_reader(data: Data, split: Split, required: bool) -> examples.LabelledRowReader:
    """Return what reads a text with its label."""
    return examples.LabelledRowReader(Columns.of(data, split), required)


def label_list_reader(data: Data, split: Split, required: bool) -> examples.LabelledRowReader:
    """Return what reads a text with any number of labels."""
    wanted, gold = Columns.of(data, split), partial(examples.many_labels, separator=data.label_separator)
    return examples.LabelledRowReader(wanted, required, gold, empty_is_known=not wanted.indicators)


def number_reader(data: Data, split: Split, required: bool) -> examples.LabelledRowReader:
    """Return what reads a text with its number."""
    if data.label_names is not None:
        raise RecipeError("data.label_names is for labels, and task regression reads numbers", do="leave it out")
    return examples.LabelledRowReader(Columns.of(data, split), required, examples.one_number)


def conversation_reader(data: Data, split: Split, required: bool) -> examples.RowReader:
    """Return what reads a conversation, or a raw text."""
    wanted = Columns.of(data, split)
    if data.format == "text":
        return conversations.RawTextReader(wanted, required)
    return conversations.ConversationReader(wanted, data.format, required)


def _read_texts(data: Data, split: Split, reader: examples.LabelledRowReader) -> examples.ParsedRows:
    return examples.collect(sources.tables(data, split, reader.wanted.settings().values()), split, reader)


def read_conversations(data: Data, split: Split, required: bool) -> examples.ParsedRows:
    """Read conversations. required: each must end with an answer."""
    wanted = Columns.of(data, split)
    used = [*conversations.COLUMNS, wanted.text, *filter(None, (wanted.group, wanted.split))]
    tables = sources.tables(data, split, used)
    parsed = examples.collect(tables, split, conversation_reader(data, split, required))
    return replace(parsed, label_names=None)


LABELLED = TaskReader(
    parse=read_labelled,
    columns=lambda data, split: tuple(Columns.of(data, split).settings().values()),
    strata=classification.strata,
    row_reader=label_reader,
    check_train=classification.check_train,
    names_labels=True,
    orders_labels=True,
)
LABEL_LISTS = TaskReader(
    parse=read_label_lists,
    columns=LABELLED.columns,
    strata=multilabel.strata,
    row_reader=label_list_reader,
    check_train=multilabel.check_train,
    names_labels=True,
)
NUMBERS = TaskReader(
    parse=read_numbers,
    columns=LABELLED.columns,
    strata=regression.strata,
    row_reader=number_reader,
    check_train=regression.check_train,
)
CONVERSATIONS = TaskReader(
    parse=read_conversations,
    columns=lambda data, split: tuple(filter(None, (split.group, split.column))),
    strata=instruction.strata,
    row_reader=conversation_reader,
)


def read(data: Data, split: Split, seed: int, reader: TaskReader = LABELLED, used_later: Sequence[str] = ()) -> Splits:
    """Read every row, check it, and freeze the splits. The same recipe, rows and seed give the same splits.

    Those of large files are kept in the user's cache. used_later: columns that `column_values` reads, which are not
    noted as unused.
    """
    seed = seed if split.seed is None else split.seed
    of_reader = [f"{part.__module__}.{part.__qualname__}" for part in (reader.parse, reader.strata)]
    key = split_cache.key(data, split, [seed, *of_reader, *used_later])
    if key and (known := split_cache.load(key)):
        return known
    frozen = _read(data, split, seed, reader, used_later)
    return split_cache.store(key, frozen) if key else frozen


def _read(data: Data, split: Split, seed: int, reader: TaskReader, used_later: Sequence[str]) -> Splits:
    parsed = reader.parse(data, split, True)
    with naming(data):
        if not parsed.rows_by_split.get("train"):
            examples.handle_rejected(parsed.rejected, data.on_bad_rows, len(parsed.rejected))
            raise DataError(
                "no rows are left in train",
                expected="rows to learn from",
                found=_sizes(parsed.rows_by_split),
                do="check the data and split.train",
            )
        named = examples.name_labels(parsed)
        index = near_duplicates.find(list(named.values()), split.duplicate_threshold)
        rows_by_split, duplicated = duplicates.resolve(named, index, split.leaks)
        sizes = splits.to_make(rows_by_split, split)
        unlearnable: list[RejectedRow] = []
        label_notes: list[DataNote] = []
        if reader.names_labels:
            rows_by_split, unlearnable, label_notes = examples.check_labels(rows_by_split, making=bool(sizes))
        dropped = examples.handle_rejected([*parsed.rejected, *unlearnable], data.on_bad_rows, parsed.total)
        if empty := [name for name, rows in rows_by_split.items() if not rows]:
            raise DataError(
                f"no rows are left in {' and '.join(empty)}",
                expected="rows in every split",
                found=_sizes(rows_by_split),
                do="check the data and its labels",
            )
        if reader.check_train is not None:
            reader.check_train(example_table.targets(rows_by_split["train"]))
        rows_by_split, short = splits.cut(rows_by_split, sizes, seed, reader.strata, index)
        new = SPLITS if split.leaks == "report" else sizes
        rows_by_split, leaked = duplicates.resolve_leaks(rows_by_split, index, split.leaks, new)
        rows_by_split, left_out = _sampled(rows_by_split, split, seed, reader.strata)
        notes = [*parsed.all_notes(used_later), *dropped, *duplicated, *label_notes, *short, *leaked, *left_out]
        test = rows_by_split.get("test", ())
        notes += _grouped(test, split)
        order = data.label_order if reader.orders_labels else "none"
        labels = examples.label_order(
            rows_by_split["train"], parsed.label_names, None if isinstance(order, str) else order
        )
        values = classification.label_values(labels, order)
        if values and order == "auto":
            what = f"labels are numbers, and taken as ordered from {labels[0]} to {labels[-1]} (data.label_order)"
            notes.append(DataNote(what, len(labels)))
        return Splits(
            train=rows_by_split["train"],
            validation=rows_by_split.get("validation", ()),
            test=test,
            labels=labels,
            label_values=values,
            fingerprints=splits.fingerprints(rows_by_split),
            made=tuple(name for name in SPLITS if name in sizes),
            notes=merge(notes),
            copies=index,
        )


def _grouped(test: Sequence[Example], split: Split) -> Iterator[DataNote]:
    groups = len({row.group for row in example_table.targets(test)})
    if split.group is not None and groups < len(test):
        what = f"test rows lie in {groups} groups of {split.group}"
        yield DataNote(f"{what}: intervals take rows as independent and are too narrow", len(test))


def _sampled(
    rows_by_split: RowsBySplit, split: Split, seed: int, strata: splits.Strata
) -> tuple[RowsBySplit, list[DataNote]]:
    """Return at most as many rows of each split as the settings say, and notes on what is left out."""
    rows_by_split, notes = splits.sample(rows_by_split, split.max_samples, seed, strata)
    part = seed if split.train_samples_seed is None else split.train_samples_seed
    for name, most in (("train", split.max_train_samples), ("validation", split.max_validation_samples)):
        rows, more = nested_subsets.sample(rows_by_split.get(name, ()), most, part, strata, name)
        rows_by_split, notes = {**rows_by_split, name: rows}, [*notes, *more]
    return rows_by_split, notes


def column_values(
    data: Data, split: Split, columns: Sequence[str], ids: Sequence[str], computed: Sequence[str] = ()
) -> dict[str, list[str]]:
    """Read the source again for more columns of a few rows: the values of each as text, in the order of `ids`.

    computed: columns that the source may lack, and that the result then lacks too. Raises DataError for any other.
    """
    values: dict[str, dict[str, str]] = {column: {} for column in columns}
    known, seen = set(ids), 0
    wanted = [*Columns.of(data, split).settings().values(), *columns]
    for table in sources.tables(data, split, wanted).values():
        present = [column for column in columns if column in table.columns]
        rows = [item for item in table.items if isinstance(item, Row) and item.id in known]
        seen += len(rows)
        if rows:
            _require(table, [column for column in columns if column not in (*present, *computed)])
        for column in present:
            values[column] |= {row.id: cells.group(row.values, column) or "" for row in rows}
    if seen < len(known):
        raise DataError(
            "the data has changed since it was read",
            expected=f"{len(known):,} rows to evaluate",
            found=f"{seen:,} of them",
            do="restore the data, or start again",
        )
    return {column: [of_column.get(name, "") for name in ids] for column, of_column in values.items() if of_column}


def _require(table: Table, missing: Sequence[str]) -> None:
    if missing:
        close = get_close_matches(missing[0], table.columns, n=1, cutoff=0.5)
        raise DataError(
            f"{table.name}: no column {' and no column '.join(map(quoted, missing))}, which evaluate.slices names",
            expected="columns of the data, or `length`",
            found=f"the columns {listed(table.columns)}",
            do=f"did you mean {close[0]}?" if close else "correct evaluate.slices",
        )


@contextmanager
def naming(data: Data) -> Iterator[None]:
    """Add the names of the source to errors of its rows as a whole."""
    try:
        yield
    except DataError as error:
        paths = (data.path, data.train, data.validation, data.test)
        raise error.within(listed(Path(path).name for path in paths if path)) from error


def _sizes(rows_by_split: RowsBySplit) -> str:
    return ", ".join(f"{len(rows)} rows in {name}" for name, rows in rows_by_split.items()) or "no rows"
