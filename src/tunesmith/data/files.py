"""Bytes and text of files, a piece at a time: regular files only, compression, encodings."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import re
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

from tunesmith.errors import DataError
from tunesmith.types import DataNote

UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
MARKED = {"utf-16": UTF16, "utf-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)}
"""Encodings whose byte order a mark says; without it, it is this machine's."""
ARCHIVES = {
    b"PK\x03\x04": "a zip archive or a spreadsheet",
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
ROW_MARKS = (b"\n", b"\r", b"{", b"[")
LINE_END = re.compile(rb"\r\n|\r|\n")
PIECE = 2**20
"""Bytes that are read at once. A shorter file is read once, and kept."""
BUFFER = 2**16
"""Bytes that are taken for a file before it is known how long it is."""


def _open_zstd(path: Path) -> BinaryIO:
    import pyarrow

    return cast(BinaryIO, pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd"))


@dataclass(frozen=True, slots=True)
class Compression:
    """A format of compressed files."""

    name: str
    start: re.Pattern[bytes]
    """The first bytes of such a file."""
    unpack: str
    """The program that unpacks it."""
    open: Callable[[Path], Any]


COMPRESSIONS = {
    ".gz": Compression("gzip", re.compile(rb"\x1f\x8b"), "gunzip", gzip.open),
    ".bz2": Compression("bzip2", re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"), "bunzip2", bz2.open),
    ".xz": Compression("xz", re.compile(rb"\xfd7zXZ\0"), "unxz", lzma.open),
    ".zst": Compression("zstd", re.compile(rb"\x28\xb5\x2f\xfd"), "unzstd", _open_zstd),
}
"""By the suffix that follows that of the format, as in `reviews.csv.gz`."""
BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError)
"""What reading a damaged compressed file raises."""


def without_compression(name: str) -> str:
    """Return a file's name in lower case, without the suffix of a compression."""
    name = name.lower()
    return next((name.removesuffix(suffix) for suffix in COMPRESSIONS if name.endswith(suffix)), name)


@dataclass(frozen=True, slots=True)
class File:
    """A file to read, as often as is needed. `name` is short, for ids and messages."""

    path: Path
    name: str
    encodings: str = "utf-8"
    wanted: frozenset[str] | None = frozenset()
    """Columns that will be used, None for all; formats that store columns apart read only these."""
    delimiter: str = "auto"
    """What separates the fields of a CSV file."""
    sheet: str | None = None
    """The sheet of a workbook."""

    @property
    def size(self) -> int:
        """Bytes of the file as it is stored."""
        return self.path.stat().st_size

    def open(self) -> BinaryIO:
        """Open the content, unpacked where it is compressed. Raises DataError, also from reading, where it is bad."""
        plain, compression = self._opened()
        if compression is None:
            return cast(BinaryIO, io.BufferedReader(_Content(self.name, 0, None, plain), BUFFER))
        plain.close()
        try:
            stream = compression.open(self.path)
        except BROKEN as error:
            raise _unreadable(self.name, compression, error) from error
        return cast(BinaryIO, io.BufferedReader(_Content(self.name, self.size, compression, stream), BUFFER))

    def open_seekable(self) -> BinaryIO:
        """Open the content for formats that read here and there; compressed content goes to a temporary file first."""
        plain, compression = self._opened()
        if compression is None:
            return cast(BinaryIO, io.BufferedReader(plain))
        plain.close()
        unpacked = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as its reader
        with self.open() as stream:
            while piece := stream.read(PIECE):
                unpacked.write(piece)
        unpacked.seek(0)
        return cast(BinaryIO, unpacked)

    def _opened(self) -> tuple[io.FileIO, Compression | None]:
        """Return the file as it is stored, and its compression."""
        path = self.path
        if not path.is_file():
            kind = "a folder" if path.is_dir() else "a pipe, a device or a socket" if path.exists() else "nothing"
            do = "give the path of a file"
            raise DataError(f"{self.name}: not a file", expected="a file with rows", found=kind, do=do)
        try:
            stream = path.open("rb", buffering=0)
            start = stream.read(16)
            stream.seek(0)
        except OSError as error:
            raise _unreadable(self.name, None, error) from error
        by_content = next((kind for kind in COMPRESSIONS.values() if kind.start.match(start)), None)
        return stream, by_content or (COMPRESSIONS.get(path.suffix.lower()) if start else None)


class _Content(io.RawIOBase):
    """The content of a file, on the way out of its compression; counts what comes, against archives that explode."""

    def __init__(self, name: str, size: int, compression: Compression | None, stream: Any) -> None:
        self.name, self.size, self.compression, self.stream = name, size, compression, stream
        self.unpacked, self.marks = 0, dict.fromkeys(ROW_MARKS, 0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            if self.compression is None:
                return int(self.stream.readinto(buffer))
            piece = self.stream.read(len(buffer))
        except BROKEN as error:
            raise _unreadable(self.name, self.compression, error) from error
        buffer[: len(piece)] = piece
        self.unpacked += len(piece)
        if self.unpacked > PLAUSIBLE_RATIO * self.size:  # counting takes as long as unpacking
            for mark in self.marks:
                self.marks[mark] += piece.count(mark)
        do = f"unpack it first ({self.compression.unpack}), if you do want to read it"
        check_expansion(self.name, self.size, self.unpacked, max(self.marks.values()), do)
        return len(piece)

    def close(self) -> None:
        self.stream.close()
        super().close()


def _unreadable(name: str, compression: Compression | None, error: BaseException) -> DataError:
    if compression is None:
        found, do = str(getattr(error, "strerror", None) or error), "check the file and its permissions"
        return DataError(f"cannot read {name}", expected="a file with rows", found=found, do=do)
    do = "fetch or compress the file again"
    return DataError(f"{name}: broken {compression.name} file", expected=compression.name, found=str(error), do=do)


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


@dataclass(frozen=True, slots=True)
class Text:
    """The text of a file whose encoding is known to fit all of it."""

    file: File
    codec: str
    content: bytes | None
    """All of it, where that is at most a piece."""
    notes: tuple[DataNote, ...] = ()

    @property
    def name(self) -> str:
        """What ids and messages call the file."""
        return self.file.name

    def pieces(self) -> Iterator[bytes]:
        """Iterate over the bytes."""
        if self.content is not None:
            yield self.content
            return
        with self.file.open() as stream:
            while piece := stream.read(PIECE):
                yield piece

    def lines(self) -> Iterator[str]:
        """Iterate over physical lines with their ends; memory holds a piece of the text at a time."""
        stream = self.file.open() if self.content is None else io.BytesIO(self.content)
        with io.TextIOWrapper(stream, self.codec, newline="") as lines:
            if first := next(lines, "").removeprefix("\ufeff"):
                yield first
            yield from lines

    def decoded(self) -> str:
        """Return all of it as one string."""
        return b"".join(self.pieces()).decode(self.codec).removeprefix("\ufeff")


def decode(file: File) -> Text:
    """Find the first of the file's encodings that fits all of it; a note says so where that is not the first."""
    with file.open() as stream:
        start = stream.read(BUFFER)
        start += stream.read(PIECE - BUFFER) if len(start) == BUFFER else b""
    kinds = [f"{kind.name} (compressed twice)" for kind in COMPRESSIONS.values() if kind.start.match(start)]
    kinds += [kind for mark, kind in ARCHIVES.items() if start.startswith(mark)]
    if kinds:
        do = "unpack it first, or save it as CSV" if kinds[0] != "Parquet" else "name it .parquet"
        raise DataError(f"{file.name}: not a text file", expected="text", found=kinds[0], do=do)
    content = start if len(start) < PIECE else None
    names = [name.strip() for name in file.encodings.split(",") if name.strip()] or ["utf-8"]
    failures: list[tuple[int, UnicodeError]] = []
    for name in names:
        text = Text(file, _codec(name, start), content)
        failure, has_zeros = _check(text)
        if failure is None:
            _refuse_binary(has_zeros, file.name)
            other = DataNote(f"read as {name} instead of {names[0]}", 1, (file.name,))
            return replace(text, notes=(other,)) if failures else text
        failures.append(failure)
    _refuse_binary(b"\0" in start[:8192] and not start.startswith(UTF16), file.name)
    raise _undecodable(text, names, start, *failures[0])


def _check(text: Text) -> tuple[tuple[int, UnicodeError] | None, bool]:
    """Return the first error of decoding with the offset of its byte, or None; and whether there are zero bytes."""
    decoder, offset, has_zeros = codecs.getincrementaldecoder(text.codec)(), 0, False
    try:
        for piece in text.pieces():
            decoded = decoder.decode(piece)
            has_zeros = has_zeros or "\0" in decoded
            offset += len(piece)
        piece = b""
        decoder.decode(piece, final=True)
    except UnicodeDecodeError as error:  # its object is what was left of earlier pieces, and this piece
        return (offset + len(piece) - len(error.object) + error.start, error), has_zeros
    except UnicodeError as error:
        return (0, error), has_zeros
    return None, has_zeros


def _codec(name: str, start: bytes) -> str:
    """Return the name of an encoding, as it is read piece by piece."""
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
    if codec in MARKED and not start.startswith(MARKED[codec]):
        return f"{codec}-{'le' if sys.byteorder == 'little' else 'be'}"
    return "utf-8" if codec == "utf-8-sig" else codec  # a byte order mark is dropped in any case


def _refuse_binary(binary: bool, name: str) -> None:
    if binary:
        do = "give a text file; for text in UTF-16 or UTF-32, set data.encoding"
        raise DataError(f"{name}: a binary file", expected="text", found="zero bytes", do=do)


def _undecodable(text: Text, names: list[str], start: bytes, offset: int, error: UnicodeError) -> DataError:
    """Return an error that names the first byte that does not fit. Offsets count from 0, as in hex editors."""
    wanted = " or ".join(names)
    if start.startswith(UTF16):
        return DataError(
            f"{text.name}:1: not {wanted}",
            expected=wanted,
            found="the byte order mark of UTF-16",
            do="set data.encoding=utf-16",
        )
    if not isinstance(error, UnicodeDecodeError):
        return DataError(f"{text.name}: not {wanted}", expected=wanted, found=str(error), do="set data.encoding")
    return DataError(
        f"{text.name}:{_line_at(text, offset)}: not {wanted}",
        expected=wanted,
        found=f"byte 0x{error.object[error.start]:02x} at offset {offset} of the file",
        do="set data.encoding, for instance data.encoding=cp1252, or data.encoding=utf-8,cp1252 to try both",
    )


def _line_at(text: Text, offset: int) -> int:
    """Return the line of the byte at an offset; lines count from 1."""
    ends, before, last = 0, 0, b""
    for piece in text.pieces():
        part = piece[: offset - before]
        ends += len(LINE_END.findall(part)) - (last == b"\r" and part.startswith(b"\n"))
        before, last = before + len(part), part[-1:]
        if before == offset:
            break
    return ends + 1
