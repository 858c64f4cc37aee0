"""From a recipe to the frozen splits that every method shares."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tunesmith.data import conversations, duplicates, examples, sources, splits
from tunesmith.data.rows import PARTS, Bad, Columns, Given, merge
from tunesmith.errors import DataError
from tunesmith.recipe import Data, Split
from tunesmith.types import DataNote, Example, Splits


def read(data: Data, split: Split, seed: int, task: str = "classification") -> Splits:
    """Read every row, check it, and freeze the splits. The same recipe, rows and seed give the same splits."""
    drafts = _collect(data, split, task)
    seed = seed if split.seed is None else split.seed
    if not drafts.given.get("train"):
        examples.settle(drafts.bad, data.on_bad_rows, len(drafts.bad))
        raise DataError("no rows are left in train", found=_sizes(drafts.given), do="check the data and split.train")
    given, doubled = duplicates.resolve(examples.name_labels(drafts), split.duplicates)
    missing = splits.to_make(given, split)
    kept, unlearnable, remarks = examples.check_labels(given, making=bool(missing))
    total = sum(map(len, drafts.given.values())) + len(drafts.bad)
    dropped = examples.settle([*drafts.bad, *unlearnable], data.on_bad_rows, total)
    _check_parts(kept, task)
    whole, short = splits.cut(kept, missing, seed)
    final, left_out = splits.sample(whole, split.max_samples, seed)
    changes = (*drafts.changes, *dropped, *doubled, *remarks, *short, *left_out, *_grouped(final, split.group))
    return _freeze(final, drafts.label_names, missing, changes)


def read_unlabelled(data: Data, task: str = "classification") -> tuple[tuple[Example, ...], tuple[DataNote, ...]]:
    """Rows to predict, from `data.path`. A label or answer is kept where there is one and never asked for."""
    drafts = _collect(data, Split(), task, required=False)
    total = sum(map(len, drafts.given.values())) + len(drafts.bad)
    dropped = examples.settle(drafts.bad, data.on_bad_rows, total)
    given = examples.name_labels(drafts, strict=False)
    parts = [part for part in PARTS if given.get(part)]
    chosen = ["test"] if "test" in parts and len(parts) > 1 else parts
    rows = tuple(row for part in chosen for row in given[part])
    left = [
        DataNote(f"left out: rows of {part}, as the source has a test split", len(given[part]))
        for part in parts
        if part not in chosen
    ]
    if not rows:
        raise DataError("no rows are left to predict", found=_dropped(drafts.bad))
    return rows, merge([*drafts.changes, *dropped, *left])


def _collect(data: Data, split: Split, task: str, *, required: bool = True) -> examples.ParsedRows:
    """Read all tables as the task has them."""
    wanted = Columns.of(data, split)
    if task == "instruction":
        tables = sources.tables(data, split, [*conversations.COLUMNS, *filter(None, (wanted.group, wanted.split))])
        drafts = examples.collect(tables, split, conversations.Conversations(wanted, data.format, required))
        return replace(drafts, label_names=None)
    drafts = examples.collect(
        sources.tables(data, split, wanted.settings().values()), split, examples.LabelledReading(wanted, required)
    )
    return replace(drafts, label_names=data.label_names or drafts.label_names)


def _grouped(given: Given, column: str | None) -> list[DataNote]:
    """Rows of one group are alike, and intervals take rows as independent: better said than overlooked."""
    test = given.get("test", ())
    groups = len({row.group for row in test})
    if column is None or groups == len(test):
        return []
    what = f"test rows lie in {groups} groups of {column}: intervals take rows as independent and are too narrow"
    return [DataNote(what, len(test))]


def _freeze(given: Given, names: tuple[str, ...] | None, made: Iterable[str], changes: Iterable[DataNote]) -> Splits:
    return Splits(
        train=given["train"],
        validation=given.get("validation", ()),
        test=given.get("test", ()),
        labels=examples.label_order(given["train"], names),
        fingerprints=splits.fingerprints(given),
        made=tuple(part for part in PARTS if part in made),
        changes=merge(changes),
    )


def _check_parts(given: Given, task: str) -> None:
    empty = [part for part, rows in given.items() if not rows]
    if empty:
        raise DataError(f"no rows are left in {' and '.join(empty)}", found=_sizes(given), do="check the data")
    labels = {row.label for row in given["train"]}
    if len(labels) == 1 and task == "classification":
        raise DataError("train has a single label", found=repr(labels.pop()), do="check data.label and the rows")


def _sizes(given: Given) -> str:
    return ", ".join(f"{len(rows)} rows in {part}" for part, rows in given.items()) or "no rows"


def _dropped(bad: Iterable[Bad]) -> str:
    return ", ".join(f"{change.what} {change.count}" for change in examples.settle(list(bad), "drop", 0))
