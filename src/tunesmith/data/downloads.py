"""Files from http and https addresses: fetched once into the cache, and compared with a SHA-256 where one is given."""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from tunesmith import assets, runs
from tunesmith.console import say
from tunesmith.errors import DataError, summary

TIMEOUT = 60
"""Seconds without an answer."""


def fetch(url: str, sha256: str | None = None) -> Path:
    """Return the file at an address. One that was fetched before is not fetched again, unless its SHA-256 differs.

    Raises DataError where it cannot be fetched.
    """
    name = PurePosixPath(urlsplit(url).path).name or "data"
    path = assets.cache() / "downloads" / hashlib.sha256(url.encode()).hexdigest()[:16] / name
    if path.exists() and (sha256 is None or digest(path) == sha256.lower()):
        say(f"{url} was fetched before: {path} (delete it to fetch it again)")
        return path
    say(f"fetching {url}")
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:  # noqa: S310 - the scheme is http or https
            content = response.read()
    except (OSError, ValueError) as error:  # what urllib raises is an OSError
        do = "check the address and the network"
        raise DataError(f"cannot fetch {url}", expected="a file", found=summary(error), do=do) from error
    return runs.write_whole(path, content)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
