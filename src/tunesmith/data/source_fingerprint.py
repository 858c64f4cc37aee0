"""What tells the content of a source to predict from any other."""

from __future__ import annotations

import hashlib

from tunesmith import integrity
from tunesmith.data import sources
from tunesmith.recipe import Data, Split


def fingerprint(data: Data) -> str:
    """Return the SHA-256 of a file, or over the names and hashes of all files of a source.

    Of a database it is over its address and the query, of a data set on a hub or an asset over name and revision.
    """
    files = sources.local_files(data, Split())
    if len(files) == 1:
        return integrity.digest(files[0])
    names = sources.short_names(files)
    parts = [f"{names[file]} {integrity.digest(file)}" for file in files]
    parts = parts or [str(part) for part in (data.path, data.sql, data.name, data.revision)]
    return hashlib.sha256("\n".join(parts).encode(errors="surrogateescape")).hexdigest()
