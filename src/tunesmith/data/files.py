"""Bytes and text of files: regular files only, gzip, encodings."""

from __future__ import annotations

import codecs
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tunesmith.errors import DataError
from tunesmith.types import DataNote

UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
GZIP = b"\x1f\x8b"
ARCHIVES = {
    GZIP: "gzip (within gzip)",
    b"PK\x03\x04": "a zip archive or a spreadsheet",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf": "a 7z archive",
    b"\xd0\xcf\x11\xe0": "an old spreadsheet",
    b"PAR1": "Parquet",
}
"""First bytes of files that are not text, and what they are."""
PLAUSIBLE_RATIO = 100
"""Text hardly ever shrinks further; what does is unpacked up to the limits below, as it may exhaust memory."""
UNPACKED_BYTES = 256 * 2**20
UNPACKED_ROWS = 2_000_000
"""Lines, objects or lists."""
LINE_END = re.compile(rb"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class File:
    """A file in memory. `name` is short, for ids and messages."""

    name: str
    content: bytes
    encodings: str = "utf-8"
    wanted: frozenset[str] | None = frozenset()
    """Columns that will be used, None for all; formats that store columns apart read only these."""


@dataclass(frozen=True, slots=True)
class Text:
    """Content as UTF-8, whatever the file's encoding was."""

    name: str
    content: bytes
    notes: tuple[DataNote, ...] = ()

    def decoded(self) -> str:
        """Return all of it as one string."""
        return self.content.decode("utf-8-sig")

    def lines(self) -> Iterator[str]:
        """Iterate over physical lines with their ends, decoded on the way: memory holds the text once."""
        return io.TextIOWrapper(io.BytesIO(self.content), "utf-8-sig", newline="")


def load(path: Path, name: str) -> bytes:
    """Return the bytes of a regular file, unpacked if they are gzip."""
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "a pipe, a device or a socket" if path.exists() else "nothing"
        raise DataError(f"{name}: not a file", expected="a file with rows", found=kind, do="give the path of a file")
    try:
        content = path.read_bytes()
    except OSError as error:
        do = "check the file and its permissions"
        raise DataError(
            f"cannot read {name}", expected="a file with rows", found=str(error.strerror or error), do=do
        ) from error
    if not content or not (content.startswith(GZIP) or path.suffix.lower() == ".gz"):
        return content
    most = max(UNPACKED_BYTES, PLAUSIBLE_RATIO * len(content))
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as packed:
            unpacked = packed.read(most + 1)
    except (OSError, EOFError, zlib.error) as error:
        do = "fetch or compress the file again"
        raise DataError(f"{name}: broken gzip file", expected="gzip", found=str(error), do=do) from error
    rows = max(unpacked.count(mark) for mark in (b"\n", b"\r", b"{", b"["))
    check_expansion(name, len(content), len(unpacked), rows, "unpack it first (gunzip), if you do want to read it")
    return unpacked


def check_expansion(name: str, packed: int, unpacked: int, rows: int, do: str) -> None:
    """Raise DataError where a compressed file holds more bytes or rows than its own size makes plausible."""
    if unpacked > max(UNPACKED_BYTES, PLAUSIBLE_RATIO * packed) or (
        rows > UNPACKED_ROWS and unpacked > PLAUSIBLE_RATIO * packed
    ):
        raise DataError(
            f"{name}: unpacks to too much",
            expected=f"at most {PLAUSIBLE_RATIO} times its size, or {UNPACKED_BYTES // 2**20} MB and "
            f"{UNPACKED_ROWS:,} rows",
            found=f"{packed:,} bytes that hold at least {unpacked:,} bytes and {rows:,} rows",
            do=do,
        )


def decode(file: File) -> Text:
    """Decode by the first of the file's encodings that fits all of it; a note says so where that is not the first."""
    if kind := next((kind for start, kind in ARCHIVES.items() if file.content.startswith(start)), None):
        do = "unpack it first, or save it as CSV" if kind != "Parquet" else "name it .parquet"
        raise DataError(f"{file.name}: not a text file", expected="text", found=kind, do=do)
    names = [name.strip() for name in file.encodings.split(",") if name.strip()] or ["utf-8"]
    failures = []
    for name in names:
        codec = _codec(name)
        try:
            text = file.content.decode(codec)
            content = file.content if codec == "utf-8" else text.encode()
        except UnicodeError as error:
            failures.append(error)
            continue
        _refuse_binary("\0" in text, file.name)
        notes = (DataNote(f"read as {name} instead of {names[0]}", 1, (file.name,)),) if failures else ()
        return Text(file.name, content, notes)
    _refuse_binary(b"\0" in file.content[:8192] and not file.content.startswith(UTF16), file.name)
    raise _undecodable(file, names, failures[0])


def _codec(name: str) -> str:
    try:
        codec = codecs.lookup(name).name
        "a".encode(codec)  # some codecs, such as rot13, do not encode text
    except (LookupError, UnicodeError) as error:
        raise DataError(
            "data.encoding: no such encoding",
            expected="a name that Python knows, for instance utf-8, cp1252 or utf-16",
            found=repr(name),
            do="correct data.encoding",
        ) from error
    return "utf-8" if codec == "utf-8-sig" else codec  # a byte order mark is dropped in any case


def _refuse_binary(binary: bool, name: str) -> None:
    if binary:
        do = "give a text file; for text in UTF-16 or UTF-32, set data.encoding"
        raise DataError(f"{name}: a binary file", expected="text", found="zero bytes", do=do)


def _undecodable(file: File, names: list[str], error: UnicodeError) -> DataError:
    """Return an error that names the first byte that does not fit. Offsets count from 0, as in hex editors."""
    wanted = " or ".join(names)
    if file.content.startswith(UTF16):
        return DataError(
            f"{file.name}:1: not {wanted}",
            expected=wanted,
            found="the byte order mark of UTF-16",
            do="set data.encoding=utf-16",
        )
    if not isinstance(error, UnicodeDecodeError):
        return DataError(f"{file.name}: not {wanted}", expected=wanted, found=str(error), do="set data.encoding")
    line = len(LINE_END.findall(file.content[: error.start])) + 1
    return DataError(
        f"{file.name}:{line}: not {wanted}",
        expected=wanted,
        found=f"byte 0x{file.content[error.start]:02x} at offset {error.start} of the file",
        do="set data.encoding, for instance data.encoding=cp1252, or data.encoding=utf-8,cp1252 to try both",
    )
