"""Tables from data sets on a Hugging Face hub; the only door to `datasets`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from tunesmith.data.rows import Item, Row, Table, listed, part_names
from tunesmith.errors import DataError
from tunesmith.recipe import Data, Split


def tables(data: Data, split: Split, wanted: Iterable[str]) -> dict[str, Table]:
    """Tables by part, ids as in `train:17`: the row's index in the split, from 0, as the hub's viewer counts."""
    found = _load(data)
    used = set(wanted)
    given = {}
    for part, names in part_names(split).items():
        name = next((name for name in names if _base(name) in found), None)
        if name is None:
            _refuse_missing(data, split, part, sorted(found))
            continue
        rows = found[name] if name in found else _load(data, split=name)
        given[part] = _table(name, rows, used, keep_integers=data.label_names is not None, label=data.label)
    return given


def _base(name: str) -> str:
    """`train` for `train[:80%]` and for `train+test`."""
    return name.split("+")[0].split("[")[0]


def _load(data: Data, **which: str) -> Any:
    import datasets

    try:
        return datasets.load_dataset(data.path, data.name, revision=data.revision, **which)
    except Exception as error:  # the hub, the network, the set's own files: whatever it is, the cause is kept
        tried = f"load_dataset({data.path!r}, {data.name!r}, revision={data.revision!r})"
        raise DataError(
            f"{data.path}: cannot be loaded as a hub data set; there is no file or folder of that name either",
            found=f"{tried} raised {type(error).__name__}: {str(error)[:400]}",
            do="check the name and the network, set data.name if the set has configurations and HF_TOKEN if it is "
            "private, or give local files with data.path or data.train",
        ) from error


def _refuse_missing(data: Data, split: Split, part: str, found: list[str]) -> None:
    """A part under its default name may be missing: it is then made from train. Any other was asked for."""
    asked = getattr(split, part)
    if part == "train" or asked not in (part, "none"):
        do = f"set split.{part} to one of them" + ("" if part == "train" else f", or to none to make {part} from train")
        raise DataError(f"{data.path}: no split {asked!r}", found=listed(found), do=do)


def _table(name: str, rows: Any, used: set[str], *, keep_integers: bool, label: str) -> Table:
    columns = tuple(rows.column_names)
    feature = (rows.features or {}).get(label)
    names = None if keep_integers or feature is None else getattr(feature, "names", None)
    picked = rows.select_columns([column for column in columns if column in used])
    label_names = tuple(names) if names else None
    return Table(name, columns, _rows(name, picked, label, label_names), label_names)


def _rows(name: str, rows: Any, label: str, names: tuple[str, ...] | None) -> Iterator[Item]:
    start = 0
    for batch in rows.with_format("arrow").iter(batch_size=4096):
        for index, values in enumerate(batch.to_pylist(), start):
            if names is not None:
                values[label] = _named(values[label], names)
            yield Row(f"{name}:{index}", values)
        start += batch.num_rows


def _named(label: Any, names: tuple[str, ...]) -> Any:
    """The name of a ClassLabel; -1 is the hub's way to say that there is none."""
    if not isinstance(label, int) or label >= len(names):
        return label
    return names[label] if label >= 0 else None
