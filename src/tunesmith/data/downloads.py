"""Files at addresses, fetched once into the cache; the only module that imports fsspec.

http and https are fetched by the standard library, every other protocol by the file system that fsspec has for it, with
the credentials that this finds in the environment.
"""

from __future__ import annotations

import hashlib
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import quote, urlsplit

from tunesmith import assets, integrity, runs
from tunesmith.console import say
from tunesmith.data.files import PIECE
from tunesmith.data.shards import WILDCARD
from tunesmith.errors import DataError, MissingExtra, TunesmithError, summary

NAMED = re.compile(r"\$\{(\w+)\}")
TIMEOUT = 60
"""Seconds without an answer."""
WEB = ("http", "https")
LOCAL = ("file", "local", "dir", "data", "git", "generic", "jlab", "jupyter", "asynclocal")
"""Protocols of fsspec for what a path says better, or for more than a file."""
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "abfs": "azure", "abfss": "azure", "az": "azure"}
"""The extra that a protocol needs."""


def filled(url: str, setting: str) -> str:
    """Return an address with the values of the environment's variables in it, escaped as addresses are.

    `${NAME}` stands for one, so that a key is written nowhere. Raises DataError for one that there is not.
    """
    missing = [name for name in NAMED.findall(url) if name not in os.environ]
    if missing:
        raise DataError(
            f"{setting}: the environment has no {missing[0]}",
            expected=f"a value for ${{{missing[0]}}} of the address",
            found="no such variable",
            do=f"export {missing[0]}=...",
        )
    return NAMED.sub(lambda name: quote(os.environ[name[1]], safe=""), url)


def protocol_of(source: str) -> str | None:
    """Return the protocol of an address, such as `s3`; None for a path."""
    protocol, mark, _ = source.partition("://")
    return protocol if mark else None


def is_fetched(source: str) -> bool:
    """Return whether a source is an address of files, by its protocol."""
    import fsspec

    protocol = protocol_of(source)
    return protocol in WEB or (protocol in fsspec.available_protocols() and protocol not in LOCAL)


def fetch_all(url: str, sha256: str | None = None) -> list[Path]:
    """Return the file at an address; of a pattern such as `s3://bucket/reviews/*.parquet` all files, by name.

    Raises DataError where nothing can be fetched.
    """
    if protocol_of(url) in WEB:
        return [fetch(url, sha256)]
    import fsspec

    protocol = str(protocol_of(url))
    try:
        fs, path = fsspec.core.url_to_fs(url)
        paths = sorted(fs.glob(path)) if WILDCARD.search(path) else [path]
        files = [path for path in paths if WILDCARD.search(url) is None or fs.isfile(path)]
        copies = [_copy(fs, path, protocol) for path in files]
    except TunesmithError:
        raise
    except ImportError as error:
        do = f"pip install 'tunesmith[{EXTRAS[protocol]}]'" if protocol in EXTRAS else str(error)
        raise MissingExtra(f"cannot fetch {protocol}:// addresses: a package is not installed", do=do) from None
    except Exception as error:  # of the storage's own library
        raise _unfetched(url, error) from error
    if not copies:
        do = "check the pattern; it is matched as fsspec does"
        raise DataError(f"no file matches {url}", expected="at least one file", found="nothing", do=do)
    return copies


def fetch(url: str, sha256: str | None = None) -> Path:
    """Return the file at an http(s) address.

    One that was fetched before is not fetched again, unless its SHA-256 differs. Raises DataError where it cannot be
    fetched.
    """
    path = _place(url, urlsplit(url).path)
    if path.exists() and (sha256 is None or integrity.digest(path) == sha256.lower()):
        say(f"{_public(url)} was fetched before: {path} (delete it to fetch it again)")
        return path
    say(f"fetching {_public(url)}")
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:  # noqa: S310 - the scheme is http or https
            return runs.write_whole(path, _pieces(response))
    except (OSError, ValueError) as error:  # what urllib raises is an OSError
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise _unfetched(url, error) from error


def _copy(fs: Any, path: str, protocol: str) -> Path:
    """Return a file of a storage in the cache. It is fetched again where the storage says that it has changed."""
    url = f"{protocol}://{str(path).removeprefix(f'{protocol}://').lstrip('/')}"
    target = _place(f"{url} {fs.ukey(path)}", path)
    if target.exists():
        say(f"{url} was fetched before: {target}")
        return target
    say(f"fetching {url}")
    with fs.open(path, "rb") as stream:
        return runs.write_whole(target, _pieces(stream))


def _place(key: str, path: str) -> Path:
    name = PurePosixPath(path).name or "data"
    return assets.cache() / "downloads" / hashlib.sha256(key.encode()).hexdigest()[:16] / name


def _pieces(stream: IO[bytes]) -> Iterator[bytes]:
    while piece := stream.read(PIECE):
        yield piece


def _public(url: str) -> str:
    """Return an address without what may be a key in it; in one of a storage a question mark is a wildcard."""
    address, mark, _ = url.partition("?")
    return f"{address}?..." if mark and protocol_of(url) in WEB else url


def _unfetched(url: str, error: BaseException) -> DataError:
    do = "check the address and the network, and the credentials in the environment where it needs some"
    found = summary(error).replace(url, _public(url))
    return DataError(f"cannot fetch {_public(url)}", expected="a file", found=found, do=do)


def check(path: Path, sha256: str | None) -> None:
    """Raise DataError where a file is not the one that `data.sha256` names."""
    if sha256 and (found := integrity.digest(path)) != sha256.lower():
        do = "use the file that the recipe was written for, or correct data.sha256"
        raise DataError(f"{path}: not the file that data.sha256 names", expected=sha256, found=found, do=do)
