"""Files are read a piece at a time: the same text, the same errors at the same places, out of every compression."""

from __future__ import annotations

import gzip
import json
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, strategies as st

from tests.written_files import COMPRESS
from tunesmith.data import files, formats
from tunesmith.data.rows import Row
from tunesmith.errors import DataError

ROWS = [{"text": f"text {number}, and\nmore", "label": "ab"[number % 2]} for number in range(50)]


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def rows_of(path: Path) -> list[Row]:
    return [item for item in formats.table(path, path.name, "utf-8", None).items if isinstance(item, Row)]


def as_csv(path: Path, mark: str = ",") -> None:
    lines = [f'"{row["text"]}"{mark}"{row["label"]}"\n' for row in ROWS]
    path.write_text(f'"text"{mark}"label"\n' + "".join(lines))


FORMATS: dict[str, Callable[[Path], object]] = {
    "a.csv": as_csv,
    "a.tsv": lambda path: as_csv(path, "\t"),
    "a.json": lambda path: path.write_text(json.dumps(ROWS)),
    "a.jsonl": lambda path: path.write_text("".join(json.dumps(row) + "\n" for row in ROWS)),
    "a.parquet": lambda path: pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path, row_group_size=17),
}


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("name", FORMATS)
def test_compressed_files_give_the_rows_of_plain_ones(tmp_path: Path, name: str, suffix: str) -> None:
    FORMATS[name](tmp_path / name)
    plain = rows_of(tmp_path / name)
    assert [row.values for row in plain] == ROWS
    packed = COMPRESS[suffix]((tmp_path / name).read_bytes())
    rows = rows_of(write(tmp_path / f"{name}{suffix}", packed))
    assert [row.values for row in rows] == ROWS
    assert [row.id for row in rows] == [row.id.replace(name, name + suffix) for row in plain]
    assert [row.values for row in rows_of(write(tmp_path / f"misnamed.{name}", packed))] == ROWS


@pytest.mark.parametrize("suffix", COMPRESS)
def test_broken_compressed_files_are_named(tmp_path: Path, suffix: str) -> None:
    kind = files.COMPRESSIONS[suffix].name
    draw = random.Random(0)
    content = "text,label\n" + "".join(f"{draw.random()},a\n" for _ in range(20_000))
    packed = COMPRESS[suffix](content.encode())
    for broken in (packed[: len(packed) // 2], b"text,label\na,x\n", packed[:20] + b"\xff" * 200 + packed[220:]):
        with pytest.raises(DataError, match=rf"a\.csv\{suffix}: broken {kind} file(.|\n)*compress the file again"):
            rows_of(write(tmp_path / f"a.csv{suffix}", broken))
    with pytest.raises(DataError, match=rf"not a text file(.|\n)*found: {kind} \(compressed twice\)"):
        rows_of(write(tmp_path / f"a.csv{suffix}", COMPRESS[suffix](packed)))
    with pytest.raises(DataError, match="no rows"):
        rows_of(write(tmp_path / f"a.csv{suffix}", b""))


@pytest.mark.parametrize("suffix", COMPRESS)
def test_archives_that_explode_are_refused_early(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of a few kB holds 128 MB; what is unpacked of it is a few pieces."""
    path = write(tmp_path / f"a.csv{suffix}", COMPRESS[suffix](b"text,label\n" + b"a" * 2**27))
    monkeypatch.setattr(files, "UNPACKED_BYTES", 2**22)
    tracemalloc.start()
    with pytest.raises(DataError, match=rf"unpacks to too much(.|\n)*{files.COMPRESSIONS[suffix].unpack}"):
        rows_of(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**25


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.csv.gz"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, name: str) -> None:
    draw = random.Random(0)
    text, mark = draw.randbytes(50_000).hex(), "\t" if "tsv" in name else ","
    line = json.dumps({"text": text}) if "json" in name else f"{text}{mark}a"
    header = "" if "json" in name else f"text{mark}label\n"
    content = (header + f"{line}\n" * 400).encode()
    path = write(tmp_path / name, gzip.compress(content, 1) if name.endswith(".gz") else content)
    tracemalloc.start()
    count = sum(isinstance(item, Row) for item in formats.table(path, name, "utf-8", None).items)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 400
    assert peak < len(content) / 4


def test_memory_holds_a_part_of_a_parquet_file(tmp_path: Path) -> None:
    """Texts that are stored once and repeated, and texts that are stored each, in one group of rows."""
    draw = random.Random(0)
    texts = ["x" * 2**20] * 300 + [draw.randbytes(2000).hex() for _ in range(5000)]
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "a.parquet")
    del texts
    pool = pyarrow.default_memory_pool()
    before, most, count = pool.bytes_allocated(), 0, 0
    for _ in formats.table(tmp_path / "a.parquet", "a.parquet", "utf-8", None).items:
        most, count = max(most, pool.bytes_allocated() - before), count + 1
    assert count == 5300
    assert most < 2 * formats.UNPACKED_BATCH < 300 * 2**20 / 2


ENCODINGS = ["utf-8", "cp1252", "utf-16", "utf-16-le", "utf-32", "shift_jis", "gb18030"]


@given(
    st.lists(st.text("aé日\n\r\U0001f600,"), min_size=0, max_size=20),
    st.sampled_from(ENCODINGS),
    st.integers(4, 9),
    st.booleans(),
)
def test_pieces_make_no_difference(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], encoding: str, piece: int, with_mark: bool
) -> None:
    """The text, the lines and the place of the first byte that does not fit are those of the whole file."""
    content = (("\ufeff" if with_mark else "") + "".join(texts)).encode(encoding, "ignore")
    path = write(tmp_path_factory.mktemp("files") / "a.txt", content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "PIECE", piece)
        for read_as in ("utf-8", encoding):
            try:
                expected = content.decode(read_as).removeprefix("\ufeff")
            except UnicodeDecodeError as error:
                if content.startswith(files.UTF16):
                    continue
                line = len(files.LINE_END.findall(content[: error.start])) + 1
                place = rf"a\.txt:{line}: not (.|\n)*0x{content[error.start]:02x} at offset {error.start} "
                with pytest.raises(DataError, match=f"{place}|binary"):
                    files.decode(files.File(path, "a.txt", read_as))
                continue
            if "\0" in expected:
                continue
            text = files.decode(files.File(path, "a.txt", read_as))
            assert text.decoded() == expected
            assert "".join(text.lines()) == expected


def test_an_error_far_inside_a_file_has_its_line(tmp_path: Path) -> None:
    content = b"text,label\r\n" + b"a,b\r\n" * 500_000 + b"\xe9,b\r\n"
    with pytest.raises(DataError, match=rf"a\.csv:500002: not utf-8(.|\n)*0xe9 at offset {len(content) - 5} "):
        rows_of(write(tmp_path / "a.csv", content))


def test_utf_16_without_a_mark_has_the_order_of_this_machine(tmp_path: Path) -> None:
    text = files.decode(files.File(write(tmp_path / "a.txt", "ä".encode("utf-16")[2:]), "a.txt", "utf-16"))
    assert text.decoded() == "".join(text.lines()) == "ä"


def test_a_disk_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.csv", b"text,label\na,b\n")

    class Failing:
        def readinto(self, buffer: object) -> int:
            raise OSError(5, "Input/output error")

        def close(self) -> None:
            pass

    content = files._Content("a.csv", 10, None, Failing())
    monkeypatch.setattr(files.File, "open", lambda self: content)
    with pytest.raises(DataError, match=r"cannot read a\.csv(.|\n)*Input/output error"):
        rows_of(path)
