"""Texts and labels in memory, in whatever form they come, as examples and indicator matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.data import frames
from tunesmith.errors import InputError
from tunesmith.tasks import multilabel
from tunesmith.types import Example

NAMES = "names"
"""The form of label sets that are lists of names; others are `array`, `pandas` and `polars`."""
COLLECTIONS = (list, tuple, set, frozenset, np.ndarray)


def read_examples(X: Any) -> list[Example]:
    """Return one example for each text, or pair of texts, in a list, a series, an array or a table of 1 or 2 columns.

    A string is one text. Raises InputError where a row is neither a text nor a pair, or where rows differ in that, and
    TypeError for anything without rows.
    """
    examples = []
    for number, row in enumerate(frames.texts(X)):
        parts = (row,) if isinstance(row, str) else tuple(row) if isinstance(row, (tuple, list, np.ndarray)) else ()
        if not 1 <= len(parts) <= 2 or not all(isinstance(part, str) and part.strip() for part in parts):
            raise InputError(
                f"cannot read row {number}: it is not a text",
                expected="a text, or a pair of texts, none of them empty",
                found=repr(row)[:80],
                do="leave the row out, or give its text",
            )
        examples.append(Example(f"row:{number}", str(parts[0]), str(parts[1]) if len(parts) > 1 else None))
    pairs = [example.text_pair is not None for example in examples]
    if any(pairs) and not all(pairs):
        raise InputError(
            "cannot read texts: some rows are pairs, and some are not",
            expected="one text in each row, or two",
            found=f"{sum(pairs)} of {len(pairs)} rows are pairs",
            do="give every row the same number of texts",
        )
    return examples


def read_label_sets(y: Any) -> tuple[NDArray[np.bool_], NDArray[Any], tuple[str, str]]:
    """Return N x K: which labels each row has, the K labels, and in which form they came, for `write_label_sets`.

    y: lists of names, or a matrix of 0 and 1 with a column for each label, as an array, nested lists or a DataFrame
    whose columns name the labels. Labels of other matrices are 0 to K - 1. Raises InputError for anything else.
    """
    if hasattr(y, "columns") and hasattr(y, "to_numpy"):
        matrix, form, labels = y.to_numpy(), type(y).__module__.partition(".")[0], np.asarray(list(y.columns))
    else:
        y = y if isinstance(y, (list, tuple)) or hasattr(y, "to_list") else np.asarray(y)
        rows = y.to_list() if hasattr(y, "to_list") else list(y)
        if _are_names(rows):
            names = sorted({str(name) for row in rows for name in row})
            return multilabel.indicators(rows, names), np.array(names), (NAMES, "str")
        matrix, form = y if isinstance(y, np.ndarray) else _array(rows), "array"
        labels = np.arange(matrix.shape[1] if matrix.ndim == 2 else 0)
    if matrix.ndim != 2 or not matrix.size or not np.isin(matrix, (0, 1)).all():
        raise InputError(
            "cannot read labels: neither lists of names nor a matrix of 0 and 1",
            expected="a list of names for each row, or a column of 0 and 1 for each label",
            found=f"an array of shape {matrix.shape} and type {matrix.dtype}, such as {matrix[:1].tolist()}"[:200],
            do="split texts into lists of names, and leave out rows whose labels are unknown",
        )
    dtype = "int64" if matrix.dtype == object else matrix.dtype.name
    return matrix.astype(bool), labels, (form, dtype)


def write_label_sets(known_NK: NDArray[np.bool_], labels: NDArray[Any], form: Sequence[str], X: Any) -> Any:
    """Return label sets in the form that `read_label_sets` found. A pandas DataFrame has the index of X, if X has one.

    known_NK: which of the K labels each row has.
    """
    kind, dtype = form
    if kind == NAMES:
        return [labels[row_K].tolist() for row_K in known_NK]
    matrix = known_NK.astype(dtype)
    if kind == "array":
        return matrix
    frame = frames.table_of(kind, dict(zip(labels.tolist(), matrix.T, strict=True)))
    if hasattr(frame, "iloc") and hasattr(X, "iloc"):
        frame.index = X.index
    return frame


def _are_names(rows: Sequence[Any]) -> bool:
    """Return whether rows are collections of texts, with one text at least."""
    cells = [cell for row in rows if isinstance(row, COLLECTIONS) for cell in row]
    all_lists = all(isinstance(row, COLLECTIONS) for row in rows)
    return all_lists and bool(cells) and all(isinstance(cell, str) for cell in cells)


def _array(rows: Sequence[Any]) -> NDArray[Any]:
    try:
        return np.asarray(rows)
    except ValueError:  # of unequal lengths
        return np.array([repr(row) for row in rows])
