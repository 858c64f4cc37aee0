"""Tables from CSV and TSV files: what separates their fields, and what quotes mean in them."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from tunesmith.data.files import File, Text, decode
from tunesmith.data.rows import Item, RejectedRow, Row, Table, no_rows, refuse_repeated
from tunesmith.errors import DataError
from tunesmith.types import DataNote

MANY_LINES = 20
"""Lines of a CSV file from which a row is named, as its quotes may be a mistake."""
LARGEST_FIELD = 2**31 - 1
DOUBLED_QUOTE = re.compile(r'(?:^|\t)"[^"\t\r\n]*""')
SEPARATOR_LINE = re.compile(r'"?sep=(.)"?[\r\n]*')
"""The first line of a CSV file by which Excel is told what separates the fields."""
OTHER_DELIMITERS = ";\t|"
SAMPLE_LINES, SAMPLE_CHARACTERS = 500, 2**18
"""How much of a file the delimiter is detected from."""
Record = tuple[int, int, list[str]]
"""First line, last line and fields of a row; lines count from 1."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How the fields of a file are written."""

    delimiter: str
    quoted: bool
    """Whether quotes around a field are markup."""
    begins_with_separator: bool = False
    """The first line says what separates the fields, and is no row."""


def read_csv(file: File) -> Table:
    """Comma-separated values as RFC 4180 has them: quotes around a field, doubled quotes inside.

    Spreadsheets of some languages separate the fields by semicolons, others by tabs or bars: that is detected, with a
    note, unless the file's `delimiter` says what it is.
    """
    text = decode(file)
    sample, is_cut = _sample(text)
    separator = SEPARATOR_LINE.fullmatch(sample[0]) if sample else None
    delimiter = file.delimiter
    if delimiter == "auto":
        delimiter = separator[1] if separator else _detect(sample, is_cut)
    table = _table(text, Dialect(delimiter, quoted=True, begins_with_separator=separator is not None))
    if delimiter == "," or file.delimiter != "auto":
        return table
    note = DataNote(f"read with the delimiter {delimiter!r} instead of a comma", 1, (file.name,))
    return Table(table.name, table.columns, chain([note], table.items))


def read_tsv(file: File) -> Table:
    """Tab-separated values. Quotes are plain characters unless the file is evidently quoted.

    GLUE's TSVs hold bare, unbalanced quotes that belong to the text; pandas quotes fields with tabs, line breaks or
    quotes in them. Quotes are markup if the header has them, or if the file is well-formed when read with quotes
    and either has fewer ragged rows that way, or doubles quotes within a quoted field.
    """
    text = decode(file)
    header = next((line for line in text.lines() if line.strip()), "")
    quoted = header.startswith('"') or '\t"' in header
    if not quoted and any('"' in line for line in text.lines()):
        try:
            ragged = _count_ragged(_records(text, Dialect("\t", quoted=True)))
            plain = _count_ragged(_records(text, Dialect("\t", quoted=False)))
            quoted = ragged < plain or any(map(DOUBLED_QUOTE.search, text.lines()))
        except DataError:  # broken when read with quotes
            quoted = False
    return _table(text, Dialect("\t", quoted))


def _sample(text: Text) -> tuple[list[str], bool]:
    """Return the first lines, and whether there are more."""
    sample: list[str] = []
    characters = 0
    for line in text.lines():
        if len(sample) == SAMPLE_LINES or characters > SAMPLE_CHARACTERS:
            return sample, True
        sample.append(line)
        characters += len(line)
    return sample, False


def _detect(sample: Sequence[str], is_cut: bool) -> str:
    """Return what separates the fields of a CSV file that begins with these lines.

    That is a comma wherever every row then has as many fields as a header of several. Anything else must give the
    header several fields, and as many to every row, or to most of them where the header has no comma at all.
    """
    commas = _widths(sample, is_cut, ",")
    width = commas[0] if commas else 1
    if width > 1 and set(commas) == {width}:
        return ","
    best, best_share = ",", 0.5 if width == 1 else 1.0
    for delimiter in OTHER_DELIMITERS:
        widths = _widths(sample, is_cut, delimiter)
        if not widths or widths[0] == 1:
            continue
        share = sum(other == widths[0] for other in widths[1:]) / max(1, len(widths) - 1)
        is_better = share > best_share or (best == "," and share == best_share)
        if is_better or (len(widths) == 1 and width == 1 and best == ","):
            best, best_share = delimiter, share
    return best


def _widths(sample: Sequence[str], is_cut: bool, delimiter: str) -> list[int]:
    """Return the numbers of fields; the last row is left out where it may be cut off."""
    csv.field_size_limit(LARGEST_FIELD)
    records = list(csv.reader(sample, delimiter=delimiter))
    if is_cut and len(records) > 1:
        records.pop()
    return [len(fields) for fields in records if not _is_blank(fields)]


def _count_ragged(records: Iterator[Record]) -> int:
    widths = (len(fields) for _, _, fields in records if not _is_blank(fields))
    first = next(widths, 0)
    return sum(width != first for width in widths)


def _records(text: Text, dialect: Dialect) -> Iterator[Record]:
    csv.field_size_limit(LARGEST_FIELD)
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if dialect.quoted else csv.QUOTE_NONE
    reader = csv.reader(text.lines(), delimiter=dialect.delimiter, quoting=quoting, strict=True)
    start = 1
    try:
        if dialect.begins_with_separator:
            next(reader)
            start = 2
        for fields in reader:
            end = reader.line_num
            yield start, end, fields
            start = end + 1
    except csv.Error as error:
        unclosed = "end of data" in str(error)
        raise DataError(
            f"{text.name}:{start}: {'a quote is opened and never closed' if unclosed else 'broken quotes'}",
            expected="quotes around a whole field, doubled inside it",
            found=f"{error}, up to line {reader.line_num}",
            do="correct the line, or write the file again with a library such as pandas",
        ) from error


def _is_blank(fields: list[str]) -> bool:
    return not fields or (len(fields) == 1 and not fields[0].strip())


def _table(text: Text, dialect: Dialect) -> Table:
    records = _records(text, dialect)
    start, header = next(((start, fields) for start, _, fields in records if not _is_blank(fields)), (1, []))
    if not header:
        raise no_rows(text.name)
    refuse_repeated(f"{text.name}:{start}", header)
    return Table(text.name, tuple(header), chain(text.notes, _rows(text.name, header, records)))


def _rows(name: str, header: list[str], records: Iterator[Record]) -> Iterator[Item]:
    width = len(header)
    unnamed = [place for place, column in enumerate(header) if not column][1:]
    for start, end, fields in records:
        if len(fields) == width and fields:
            yield Row(f"{name}:{start}", dict(zip(header, fields, strict=True)))
            if unnamed and any(fields[place] for place in unnamed):
                yield DataNote("ignored: cells of a further column without a name", 1, (f"{name}:{start}",))
            if end - start >= MANY_LINES:
                what = f"rows of more than {MANY_LINES} lines; a stray pair of quotes joins lines to such a row"
                yield DataNote(what, 1, (f"{name}:{start}-{end}",))
        elif _is_blank(fields):
            yield DataNote("skipped: blank line", 1, (f"{name}:{start}",))
        else:
            note = f"{len(fields)} fields instead of {width}"
            yield RejectedRow("ragged row", f"{name}:{start}", note + (f", up to line {end}" if end > start else ""))
