"""From files, folders and hubs to frozen splits."""

from tunesmith.data.dataset import (
    CONVERSATIONS,
    LABEL_LISTS,
    LABELLED,
    NUMBERS,
    TaskReader,
    column_values,
    read,
)
from tunesmith.data.row_stream import read_unlabelled

__all__ = [
    "CONVERSATIONS",
    "LABELLED",
    "LABEL_LISTS",
    "NUMBERS",
    "TaskReader",
    "column_values",
    "read",
    "read_unlabelled",
]
