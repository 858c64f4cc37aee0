"""Tables from data sets on a Hugging Face hub; the only module that imports `datasets`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from tunesmith.data.rows import Item, Row, Table, listed, split_names
from tunesmith.errors import DataError
from tunesmith.recipe import Data, Split


def tables(data: Data, split: Split, wanted: Iterable[str] | None) -> dict[str, Table]:
    """Return the tables by split. Ids are as in `train:17`: the row's index from 0, as the hub's viewer counts."""
    available = _load(data)
    used = None if wanted is None else set(wanted)
    tables = {}
    for split_name, names in split_names(split).items():
        # `train[:80%]` and `train+test` are slices and sums of the split `train`
        name = next((name for name in names if name.split("+")[0].split("[")[0] in available), None)
        if name is None:
            wanted_name = getattr(split, split_name)
            if split_name != "train" and wanted_name in (split_name, "none"):
                continue  # a split under its default name may be missing, and is then cut from train
            make = "" if split_name == "train" else f", or to none to make {split_name} from train"
            raise DataError(
                f"{data.path}: no split {wanted_name!r}",
                expected=f"a split for {split_name}",
                found=listed(sorted(available)),
                do=f"set split.{split_name} to one of them{make}",
            )
        rows = available[name] if name in available else _load(data, split=name)
        columns = tuple(rows.column_names)
        label = data.label if isinstance(data.label, str) else ""
        feature = (rows.features or {}).get(label)
        feature = getattr(feature, "feature", feature)  # of a list of labels
        label_names = tuple(getattr(feature, "names", None) or ()) if data.label_names is None else ()
        picked = rows.select_columns([column for column in columns if used is None or column in used])
        tables[split_name] = Table(name, columns, _rows(name, picked, label, label_names), label_names or None)
    return tables


def _load(data: Data, **which: str) -> Any:
    import datasets

    try:
        return datasets.load_dataset(data.path, data.name, revision=data.revision, **which)
    except Exception as error:  # of the hub, the network or the files: the message keeps the cause
        tried = f"load_dataset({data.path!r}, {data.name!r}, revision={data.revision!r})"
        raise DataError(
            f"cannot load {data.path} as a hub data set; there is no file or folder of that name either",
            expected="a file, a folder, or a data set on the hub",
            found=f"{tried} raised {type(error).__name__}: {str(error)[:400]}",
            do="check the name and the network, set data.name if the set has configurations and HF_TOKEN if it is "
            "private, or give local files with data.path or data.train",
        ) from error


def _rows(name: str, rows: Any, label: str, label_names: tuple[str, ...]) -> Iterator[Item]:
    start = 0
    for batch in rows.with_format("arrow").iter(batch_size=4096):
        for index, values in enumerate(batch.to_pylist(), start):
            index_of_label = values[label] if label_names else None
            if isinstance(index_of_label, list):
                values[label] = [label_names[i] if 0 <= i < len(label_names) else i for i in index_of_label]
            if isinstance(index_of_label, int) and index_of_label < len(label_names):
                # -1 is how the hub writes a missing label
                values[label] = label_names[index_of_label] if index_of_label >= 0 else None
            yield Row(f"{name}:{index}", values)
        start += batch.num_rows
