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
        kind = "a folder" if path.is_dir() else "not a regular file"
        raise DataError(f"{name}: is {kind}", expected="a file with rows", do="give the path of a file")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {name}", found=str(error.strerror or error)) from error
    if not content or not (content.startswith(GZIP) or path.suffix.lower() == ".gz"):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{name}: broken gzip file", found=str(error), do="fetch or compress the file again") from error


def decode(file: File) -> Text:
    """Decode by the first of the file's encodings that fits all of it; a note says so where that is not the first."""
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
        do = "set data.encoding to a name that Python knows, for instance utf-8, cp1252 or utf-16"
        raise DataError(f"data.encoding: no such encoding: {name}", do=do) from error
    return "utf-8" if codec == "utf-8-sig" else codec  # a byte order mark is dropped in any case


def _refuse_binary(binary: bool, name: str) -> None:
    if binary:
        raise DataError(f"{name}: a binary file, not text", found="zero bytes", do="give a text file")


def _undecodable(file: File, names: list[str], error: UnicodeError) -> DataError:
    """Return an error that names the first byte that does not fit. Offsets count from 0, as in hex editors."""
    wanted = " or ".join(names)
    if file.content.startswith(UTF16):
        return DataError(
            f"{file.name}:1: not {wanted}", found="the byte order mark of UTF-16", do="set data.encoding=utf-16"
        )
    if not isinstance(error, UnicodeDecodeError):
        return DataError(f"{file.name}: not {wanted}", found=str(error), do="set data.encoding")
    line = len(LINE_END.findall(file.content[: error.start])) + 1
    return DataError(
        f"{file.name}:{line}: not {wanted}",
        found=f"byte 0x{file.content[error.start]:02x} at offset {error.start} of the file",
        do="set data.encoding, for instance data.encoding=cp1252, or data.encoding=utf-8,cp1252 to try both",
    )
