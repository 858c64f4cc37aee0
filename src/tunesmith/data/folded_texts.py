"""Folded texts of many rows, as `shingles` takes them: in memory, or where they are many in a file that has no name."""

from __future__ import annotations

import os
import tempfile
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tunesmith import disk
from tunesmith.data.text_keys import Index

MOST_BYTES = 64 << 20
"""Bytes that are kept in memory."""
WAITING = 4096
"""Texts that are written together."""


class FoldedTexts:
    """The folded texts of rows, a fixed number of parts for each row: the two of a pair, or a text and an empty one.

    Shapes: N rows, P parts of a row.
    """

    parts = 2

    def __init__(self) -> None:
        self.file = tempfile.SpooledTemporaryFile(MOST_BYTES)  # noqa: SIM115 - `close` closes it
        self.folder = Path(tempfile.gettempdir())
        self.waiting: list[bytes] = []
        self.starts = array("q", [0])

    def append(self, encoded: Sequence[bytes]) -> None:
        """Add the parts of a row, by `shingles.encode`."""
        for part in (*encoded, *[b""] * (self.parts - len(encoded))):
            self.waiting.append(part)
            self.starts.append(self.starts[-1] + len(part))
        if len(self.waiting) >= WAITING:
            self._flush()

    def __len__(self) -> int:
        return len(self.starts) // self.parts

    def bounds(self) -> Index:
        """Return where each part of each row begins and ends in bytes, N x P x 2."""
        starts = np.frombuffer(self.starts, dtype=np.int64)
        return np.stack([starts[:-1], starts[1:]], axis=1).reshape(len(self), self.parts, 2)

    def read(self, bounds_N2: Index) -> bytes:
        """Return the bytes between these bounds, one after the other."""
        apart = np.flatnonzero(bounds_N2[1:, 0] != bounds_N2[:-1, 1])
        self._flush()
        firsts, lasts = [0, *(apart + 1).tolist()], [*apart.tolist(), len(bounds_N2) - 1]
        read = []
        for first, last in zip(firsts, lasts, strict=True):
            start, end = bounds_N2[first, 0], bounds_N2[last, 1]
            self.file.seek(start)
            read.append(self.file.read(end - start))
        return b"".join(read)

    def _flush(self) -> None:
        with disk.explained("write", self.folder):
            self.file.seek(0, os.SEEK_END)
            self.file.write(b"".join(self.waiting))
        self.waiting = []

    def close(self) -> None:
        """Give up the texts."""
        self.file.close()
