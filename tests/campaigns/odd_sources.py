"""Sources of rows with something wrong or odd about them, from a seed."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from tests import tiny

Row = dict[str, Any]


@dataclass
class Source:
    """A source of rows that an attempt writes. rows: what was written, None where nobody can know what is there."""

    path: Path
    format: str
    rows: list[Row] | None
    settings: tuple[str, ...] = ()


# What is wrong with the rows.

UNUSUAL = (
    "",
    " ",
    "\u00a0",
    "\u200b",
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "\x9b31m",
    "\u202egnp.exe",
    "\ufeff",
    "a\x00b",
    "line\nline",
    "line\r\nline",
    "line\rline",
    "a\u2028b\x85c\x1cd",
    'quo"te',
    '"quoted"',
    "com,ma",
    "t\tab",
    ";",
    "'",
    "\\",
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "NULL",
    "NaN",
    "None",
    "nan",
    "-1.5",
    "1e400",
    "0x10",
    "\U0001f600",
    "e\u0301",
    "<script>alert(1)</script>",
    "{{ x }}",
    "%s %n",
    "../../etc/passwd",
    "x" * 10_000,
)


def _one_cell(random: Random, rows: list[Row]) -> None:
    for _ in range(random.choice((1, 1, 5))):
        random.choice(rows)[random.choice(("text", "text", "label"))] = random.choice(UNUSUAL)


def _label_everywhere(random: Random, rows: list[Row]) -> None:
    label = random.choice(UNUSUAL)
    for row in rows[: random.choice((len(rows), len(rows) // 2))]:
        row["label"] = label


def _labels_in_number(random: Random, rows: list[Row]) -> None:
    if random.random() < 0.2:
        rows[:] = [{"text": f"text {number} of many", "label": f"label {number % 5000}"} for number in range(15_000)]
    else:
        count = random.choice((1, 2, len(rows)))
        for number, row in enumerate(rows):
            row["label"] = f"label {number % count}"


def _few_rows(random: Random, rows: list[Row]) -> None:
    del rows[random.choice((0, 1, 2, 3, 5)) :]


def _equal_texts(random: Random, rows: list[Row]) -> None:
    for row in rows[random.choice((0, len(rows) // 2)) :]:
        row["text"] = "always the same"


def _long_cell(random: Random, rows: list[Row]) -> None:
    word = random.choice(("x", "word ", 'say "x" ', "ä", "a,"))
    random.choice(rows)[random.choice(("text", "text", "label"))] = word * (1_000_000 // len(word))


def _columns(random: Random, rows: list[Row]) -> None:
    kind = random.randrange(7)
    for number, row in enumerate(rows):
        if kind == 0:
            row["Text"] = row.pop("text")
        elif kind == 1:
            del row["label"]
        elif kind == 2:
            row[random.choice(UNUSUAL) if number == 0 else "other"] = "x"
        elif kind == 3:
            row |= {f"column {place}": place for place in range(300)}
        elif kind == 4:
            row |= {"=1+1": "x", "\x1b[2J": "y", "id": number, "": "z"}
        elif kind == 5:
            row["x" * 100_000] = 1
        else:
            row["predicted_label"] = "x"


def _values(random: Random, rows: list[Row]) -> None:
    """Of JSON and Parquet; CSV writes them as text."""
    odd = (
        None,
        True,
        3,
        -1.5,
        2.0,
        float("nan"),
        float("inf"),
        10**30,
        [],
        ["a"],
        {},
        {"a": {"b": 1}},
        "\ud800",
        b"\xff",
    )
    value = random.choice(odd)
    for row in rows[: random.choice((1, len(rows) // 2, len(rows)))]:
        row[random.choice(("text", "label"))] = value


ROW_FLAWS: tuple[Callable[[Random, list[Row]], None], ...] = (
    _one_cell,
    _one_cell,
    _one_cell,
    _label_everywhere,
    _labels_in_number,
    _few_rows,
    _equal_texts,
    _long_cell,
    _columns,
    _columns,
    _values,
    _values,
)


# What is wrong with the bytes.


def _bytes(random: Random, content: bytes) -> bytes:
    at = random.randrange(len(content) + 1)
    piece = random.choice(
        (b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\x1b[2J", b'"', b"\r", b"\n", b",", b"}", b"\xef\xbb\xbf")
    )
    return content[:at] + piece + content[at + random.choice((0, 1)) :]


def _cut(random: Random, content: bytes) -> bytes:
    return content[: random.randrange(len(content) + 1)]


def _lines(random: Random, content: bytes) -> bytes:
    """Repeat the header, or mix in lines that are blank, of another kind, too short or too long."""
    lines = content.split(b"\n")
    other = (
        lines[0],
        b"",
        b"  ",
        b"a",
        b"a,b,c,d",
        b"{}",
        b"[1]",
        b"# comment",
        b'{"text": "a", "text": "b", "label": "c"}',
    )
    lines.insert(random.randrange(len(lines) + 1), random.choice(other))
    return b"\n".join(lines)


def _line_ends(random: Random, content: bytes) -> bytes:
    ends = random.choice(((b"\r",), (b"\r\n",), (b"\r", b"\n", b"\r\n"), (b"\n\n",), (b"\n\r",)))
    return b"".join(line + random.choice(ends) for line in content.split(b"\n"))


def _quote_pair(random: Random, content: bytes) -> bytes:
    lines = content.split(b"\n")
    first = random.randrange(max(1, len(lines) - 4))
    last = min(len(lines) - 1, first + random.choice((1, 2, 5, 30)))
    lines[first] = b'"' + lines[first]
    lines[last] = lines[last].replace(b",", b'",', 1)
    return b"\n".join(lines)


def _encoding(random: Random, content: bytes) -> bytes:
    codec = random.choice(("utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "utf-8-sig", "utf-7", "shift_jis"))
    return content.decode(errors="replace").encode(codec, errors="replace")


def _other_file(random: Random, content: bytes) -> bytes:
    return random.choice(
        (
            b"",
            b"\n",
            b" ",
            b"\xef\xbb\xbf",
            b"\0" * 5000,
            b"<html><body>404 Not Found</body></html>",
            b"PAR1PAR1",
            b"[]",
            b"{}",
            b"null",
            b"[" * 100_000,
            b'{"a":' * 100_000,
            b'{"data": [1, {}], "rows": [{}]}',
            b"text,label",
            b"text,label\n",
            b'"',
            b"%PDF-1.7\n\xff",
            b"version https://git-lfs.github.com/spec/v1\n",
            b"9" * 5000,
            b'[{"text": ' + b"9" * 5000 + b"}]",
            b"text,text,label\na,b,c\n",
            b",,\n,,\n",
            bytes(range(256)) * 20,
        )
    )


def _packed(random: Random, content: bytes) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("reviews.csv", content)
    kinds = (archive.getvalue(), bz2.compress(content), lzma.compress(content), gzip.compress(gzip.compress(content)))
    return random.choice(kinds)


def _twice(random: Random, content: bytes) -> bytes:
    return content + random.choice((b"", b"\n")) + content


BYTE_FLAWS: tuple[Callable[[Random, bytes], bytes], ...] = (
    _bytes,
    _bytes,
    _bytes,
    _cut,
    _lines,
    _lines,
    _line_ends,
    _quote_pair,
    _encoding,
    _other_file,
    _packed,
    _twice,
)


# Sources.


def written(random: Random, folder: Path) -> Source:
    """Write a source with flaws."""
    if random.random() < 0.12:
        return random.choice(SPECIAL)(random, folder)
    rows: list[Row] = [{"text": row["text"], "label": row["label"]} for row in _clean(random)]
    if random.random() < 0.6:
        random.choice(ROW_FLAWS)(random, rows)
    kind = random.choice(("csv", "csv", "csv", "tsv", "json", "jsonl", "jsonl", "parquet"))
    content = _content(random, kind, rows)
    if random.random() < 0.65:
        content = random.choice(BYTE_FLAWS)(random, content)
    name = random.choice(
        ("reviews", "reviews", "rev iews", "=1+1", "<img src=x onerror=alert(1)>", "\x1b[31m", "ä" * 60)
    )
    suffix = f".{kind}"
    if random.random() < 0.15:
        content = gzip.compress(content)
        content = content[: random.choice((len(content), len(content), random.randrange(len(content))))]
        suffix += random.choice((".gz", ""))
    elif random.random() < 0.05:
        suffix += random.choice((".gz", ".zip", ".txt", ""))
    path = folder / f"{name}{suffix}"
    path.write_bytes(content)
    settings = ()
    if random.random() < 0.2:
        settings = (f"data.encoding={random.choice(('cp1252', 'utf-16', 'latin-1', 'utf-8', 'nonsense', 'rot13'))}",)
    return Source(path, kind, None, settings)


def _clean(random: Random) -> list[Row]:
    examples = tiny.texts(random.choice((30, 60)), seed=random.randrange(100))
    return [{"text": text, "label": label} for text, label in examples]


def _content(random: Random, kind: str, rows: list[Row]) -> bytes:
    if kind == "jsonl":
        return "".join(json.dumps(row, default=repr) + "\n" for row in rows).encode()
    if kind == "json":
        return json.dumps(rows if random.random() < 0.8 else {"data": rows}, default=repr).encode()
    columns = list(dict.fromkeys(column for row in rows for column in row))
    if kind == "parquet":
        import pyarrow
        import pyarrow.parquet

        out = io.BytesIO()
        values = {column: [row.get(column) for row in rows] for column in columns}
        try:
            table = pyarrow.table(values)
        except (pyarrow.ArrowException, UnicodeEncodeError, OverflowError):  # values of several kinds
            table = pyarrow.table({name: [ascii(value) for value in column] for name, column in values.items()})
        pyarrow.parquet.write_table(table, out)
        return out.getvalue()
    text = io.StringIO(newline="")
    mark = "\t" if kind == "tsv" else random.choice(",,,;")
    csv.writer(text, delimiter=mark, lineterminator=random.choice(("\n", "\r\n"))).writerows(
        [columns, *([row.get(column) for column in columns] for row in rows)]
    )
    return text.getvalue().encode(errors="backslashreplace")


def _folder(random: Random, folder: Path) -> Source:
    """A folder of texts by class with something odd among them."""
    path = folder / "classes"
    rows = _clean(random)
    for number, row in enumerate(rows):
        (path / str(row["label"])).mkdir(parents=True, exist_ok=True)
        (path / str(row["label"]) / f"{number:03}.txt").write_text(str(row["text"]))
    kind, one = random.randrange(9), next(path.glob("*"))
    if kind == 0:
        (one / "empty.txt").touch()
    elif kind == 1:
        (one / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    elif kind == 2:
        (one / "loop.txt").symlink_to("loop.txt")
    elif kind == 3:
        os.mkfifo(one / "pipe.txt")
    elif kind == 4:
        (one / "folder.txt").mkdir()
    elif kind == 5:
        (path / "\x1b[31mred").mkdir()
        (path / "\x1b[31mred" / "1.txt").write_text("text")
    elif kind == 6:
        (one / "device.txt").symlink_to("/dev/zero")
    elif kind == 7:
        (path / "train.csv").write_text("text,label\n")
    else:
        (path / "up").symlink_to("..")
    return Source(path, "folder", rows if kind in (7, 8) else None)


def _no_file(random: Random, folder: Path) -> Source:
    path = folder / f"reviews.{random.choice(('csv', 'json', 'parquet', 'csv.gz'))}"
    kind = random.randrange(7)
    if kind == 0:
        path.mkdir()
    elif kind == 1:
        path.symlink_to(path.name)
    elif kind == 2:
        os.mkfifo(path)
    elif kind == 3:
        path.symlink_to(random.choice(("/dev/zero", "/dev/null", "/dev/full")))
    elif kind == 4:
        path.symlink_to("nowhere")
    elif kind == 5:
        path = folder / f"{'x' * 300}.csv"
    return Source(path, "none", None)


def _bomb(random: Random, folder: Path) -> Source:
    line = random.choice(
        (b"a" * 2**20, b"text,label\n", b'{"text": "a", "label": "b"}\n', b"[", b"[{},", b"\n" * 100, b"\0")
    )
    path = folder / f"bomb{random.choice(('.csv', '.csv.gz', '.jsonl', '.json.gz', '.tsv.gz'))}"
    with gzip.open(path, "wb", compresslevel=1) as file:
        block = line * (2**22 // len(line))
        for _ in range(random.choice((20, 75))):  # 80 or 300 MB
            file.write(block)
    return Source(path, "none", None)


def _parquet_bomb(random: Random, folder: Path) -> Source:
    import pyarrow
    import pyarrow.parquet

    path = folder / "bomb.parquet"
    size, rows = random.choice(((2**20, 4000), (2**20, 20_000), (1, 20_000_000)))
    texts = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 1000, pyarrow.int32()), ["a" * size])
    column = pyarrow.chunked_array([texts] * (rows // 1000))
    labels = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0, 1] * 500, pyarrow.int32()), ["a", "b"])
    table = pyarrow.table({"text": column, "label": pyarrow.chunked_array([labels] * (rows // 1000))})
    pyarrow.parquet.write_table(table, path)
    return Source(path, "none", None)


SPECIAL: tuple[Callable[[Random, Path], Source], ...] = (*[_folder] * 4, *[_no_file] * 3, _bomb, _parquet_bomb)
