"""What tells the content of a source to predict from any other."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tunesmith import integrity
from tunesmith.data import downloads, sources
from tunesmith.recipe import Data


def fingerprint(data: Data) -> str:
    """Return the SHA-256 of a file, or over the names and hashes of all files of a folder.

    Of a data set on a hub, or of an asset, it is over its name and revision.
    """
    source = data.path or ""
    path = downloads.fetch(source, data.sha256) if source.startswith(sources.SCHEMES) else Path(source).expanduser()
    if path.is_file():
        return integrity.digest(path)
    if path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if file.is_file()]
        parts = [f"{file.relative_to(path).as_posix()} {integrity.digest(file)}" for file in files]
    else:
        parts = [source, data.name or "", data.revision or ""]
    return hashlib.sha256("\n".join(parts).encode(errors="surrogateescape")).hexdigest()
