"""Every kind of source gives the right rows with the right places; every malformed one a message with the place."""

from __future__ import annotations

import gzip
import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tunesmith import recipe as recipes
from tunesmith.data import files, read, read_unlabelled
from tunesmith.data.sources import is_published, short_names, tables
from tunesmith.errors import DataError
from tunesmith.recipe import Data, Split
from tunesmith.types import Example

NOTHING_MADE = Split(validation_size=0, test_size=0)
ROWS = [("good film", "pos"), ("bad film", "neg"), ("fine, really", "pos"), ("so\nso", "neg")]


def rows_of(path: Path, split: Split = NOTHING_MADE, **settings: Any) -> tuple[Example, ...]:
    return read(Data(path=str(path), **settings), split, 0).train


def changes_of(path: Path, **settings: Any) -> dict[str, tuple[int, tuple[str, ...]]]:
    changes = read(Data(path=str(path), **settings), NOTHING_MADE, 0).notes
    return {change.what: (change.count, change.where) for change in changes}


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def quoted(rows: list[tuple[str, str]], mark: str) -> str:
    lines = [mark.join('"' + field.replace('"', '""') + '"' for field in row) for row in [("text", "label"), *rows]]
    return "\n".join(lines) + "\n"


def as_csv(path: Path) -> None:
    write(path, quoted(ROWS, ","))


def as_tsv(path: Path) -> None:
    write(path, quoted(ROWS, "\t"))


def as_json(path: Path) -> None:
    write(path, json.dumps([{"text": text, "label": label} for text, label in ROWS], indent=1))


def as_wrapped_json(path: Path) -> None:
    write(path, json.dumps({"version": 1, "data": [{"text": text, "label": label} for text, label in ROWS]}))


def as_jsonl(path: Path) -> None:
    write(path, "\n".join(json.dumps({"text": text, "label": label}) for text, label in ROWS))


def as_parquet(path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"text": [text for text, _ in ROWS], "label": [label for _, label in ROWS]})
    pyarrow.parquet.write_table(table, path)


LINES = ("2", "3", "4", "5")
NUMBERS = ("row 1", "row 2", "row 3", "row 4")
FORMATS = [
    ("reviews.csv", as_csv, LINES),
    ("reviews.tsv", as_tsv, LINES),
    ("reviews.json", as_json, NUMBERS),
    ("wrapped.json", as_wrapped_json, NUMBERS),
    ("lines.json", as_jsonl, ("1", "2", "3", "4")),
    ("reviews.jsonl", as_jsonl, ("1", "2", "3", "4")),
    ("reviews.parquet", as_parquet, NUMBERS),
]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("name", "make", "places"), FORMATS)
def test_every_format_gives_the_same_rows(
    tmp_path: Path, name: str, make: Callable[[Path], None], places: tuple[str, ...], packed: bool
) -> None:
    path = tmp_path / name
    make(path)
    if packed:
        path = write(tmp_path / f"{name}.gz", gzip.compress(path.read_bytes()))
    rows = rows_of(path)
    assert [(row.text, row.label) for row in rows] == ROWS
    assert [row.id for row in rows] == [f"{path.name}:{place}" for place in places]


def test_csv_lines_are_physical_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", '\ufefftext,label\r\n"one\r\ntwo",x\r\n\r\nthree,y\rfour,x\n')
    assert [row.id for row in rows_of(path)] == ["a.csv:2", "a.csv:5", "a.csv:6"]
    assert [row.text for row in rows_of(path)] == ["one\r\ntwo", "three", "four"]
    assert changes_of(path)["skipped: blank line"] == (1, ("a.csv:4",))


def test_a_large_field_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", f"text,label\n{'x' * 200_000},a\nb,c\n")
    assert len(rows_of(path)[0].text) == 200_000


def test_fields_may_be_separated_by_semicolons(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", '\ufefftext;label\n"so; so";x\n1,5 stars;y\n')
    assert [(row.text, row.label) for row in rows_of(path)] == [("so; so", "x"), ("1,5 stars", "y")]
    assert changes_of(path)["read with the delimiter ';' instead of a comma"] == (1, ("a.csv",))


def test_cells_of_columns_without_a_name_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", ",text,label,\n0,a,x,\n1,b,y,lost\n")
    what = "ignored: cells of a further column without a name"
    assert changes_of(path)[what] == (1, ("a.csv:3",))


def test_a_link_to_data_has_its_own_name(tmp_path: Path) -> None:
    write(tmp_path / "blob", GOOD + "b,y\n")
    (tmp_path / "a.csv").symlink_to("blob")
    recipe = recipes.load({"data": {"path": str(tmp_path / "a.csv")}})
    assert len(read(recipe.data, NOTHING_MADE, 0).train) == 2


def test_a_gzip_file_unpacks_to_what_its_size_makes_plausible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the limits anything goes, and beyond them a ratio of 100; the message says how to read it all the same."""
    text = "text,label\n" + "a,x\nb,y\n" * 5000
    path = write(tmp_path / "a.csv", gzip.compress(text.encode()))
    assert len(text) > 100 * len(path.read_bytes())
    assert len(rows_of(path)) == 10_000
    limits = {"UNPACKED_BYTES": len(text) - 1, "UNPACKED_ROWS": 10_000}
    for name, limit in limits.items():
        with monkeypatch.context() as patch:
            patch.setattr(files, name, limit)
            with pytest.raises(DataError, match=r"a\.csv: unpacks to too much(.|\n)*gunzip"):
                rows_of(path)
    for name, limit in limits.items():
        monkeypatch.setattr(files, name, limit // 2)
    varied = "text,label\n" + "".join(f"{number} {number**3},{number % 2}\n" for number in range(10_000))
    assert len(rows_of(write(tmp_path / "b.csv.gz", gzip.compress(varied.encode())))) == 10_000


def test_parquet_unpacks_to_what_its_size_makes_plausible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "a.parquet"
    table = pyarrow.table(
        {"text.en": ["a" * 10_000] * 5000, "label": pyarrow.array(["x", "y"] * 2500).dictionary_encode()}
    )
    pyarrow.parquet.write_table(table, path)
    assert len(rows_of(path, text="text.en")) == 5000
    monkeypatch.setattr(files, "UNPACKED_BYTES", 49 * 10**6)
    with pytest.raises(DataError, match=r"a\.parquet: unpacks to too much(.|\n)*as CSV or JSON Lines"):
        rows_of(path, text="text.en")
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"] * 2_000_001}), path)
    with pytest.raises(DataError, match=r"a\.parquet: unpacks to too much(.|\n)*2,000,001 rows"):
        rows_of(path, label="text")


def test_a_row_of_many_lines_is_named(tmp_path: Path) -> None:
    """A stray pair of quotes makes one row of 31; a text of three lines is nothing special."""
    lines = [f"text {number},a" for number in range(80)]
    lines[10], lines[40] = '"text 10,a', 'text 40",a'
    path = write(tmp_path / "a.csv", "\n".join(["text,label", *lines, '"three\nlines\nhere",b']) + "\n")
    assert len(rows_of(path)) == 51
    notes = {what: note for what, note in changes_of(path).items() if "lines" in what}
    assert list(notes.values()) == [(1, ("a.csv:12-42",))]


@pytest.mark.parametrize(("name", "where"), [("a.json", r"a\.json"), ("a.jsonl", r"a\.jsonl:1")])
def test_repeated_keys_in_json_are_refused(tmp_path: Path, name: str, where: str) -> None:
    row = '{"text": "first", "text": "second", "label": "a"}'
    path = write(tmp_path / name, f"[{row}]" if name == "a.json" else f"{row}\n")
    with pytest.raises(DataError, match=rf"{where}: broken JSON(.|\n)*'text' is there more than once"):
        rows_of(path)


def test_a_stray_value_does_not_hide_a_list_of_rows(tmp_path: Path) -> None:
    row = {"text": "a", "label": "b"}
    with pytest.raises(DataError, match="an object with 2 such arrays"):
        rows_of(write(tmp_path / "a.json", json.dumps({"data": [row, 1], "other": [row]})))


def test_blank_jsonl_lines_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "a", "label": 0}\n\n{"text": "b", "label": 1}\n\n')
    assert changes_of(path)["skipped: blank line"] == (2, ("a.jsonl:2", "a.jsonl:4"))


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ('text\tlabel\n"The Osbournes" is a show\ta\nhe said "no\tb\n', ['"The Osbournes" is a show', 'he said "no']),
        ('text\tlabel\n"open\ta\nclose"\tb\n', ['"open', 'close"']),
        ('text\tlabel\n"whole"\ta\nb\tb\n', ['"whole"', "b"]),
        ('text\tlabel\n"a ""b"""\ta\nb\tb\n', ['a "b"', "b"]),
        ('text\tlabel\n"a\tb"\ta\nb\tb\n', ["a\tb", "b"]),
        ('"text"\t"label"\n"a"\t"a"\n"b"\t"b"\n', ["a", "b"]),
    ],
    ids=["glue", "unbalanced", "a quoted text", "doubled quotes", "tab in quotes", "quoted header"],
)
def test_quotes_in_tsv(tmp_path: Path, content: str, texts: list[str]) -> None:
    assert [row.text for row in rows_of(write(tmp_path / "a.tsv", content))] == texts


def test_encodings_are_tried_in_order(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\n£5,a\nb,b\n".encode("cp1252"))
    assert rows_of(path, encoding="utf-8,cp1252")[0].text == "£5"
    assert changes_of(path, encoding="utf-8,cp1252")["read as cp1252 instead of utf-8"] == (1, ("a.csv",))
    with pytest.raises(
        DataError, match=r"a\.csv:2: not utf-8\n(.|\n)*byte 0xa3 at offset 11(.|\n)*data.encoding=cp1252"
    ):
        rows_of(path)


def test_the_offset_counts_the_byte_order_mark(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.csv:2: (.|\n)*0xa3 at offset 14"):
        rows_of(write(tmp_path / "a.csv", b"\xef\xbb\xbftext,label\n\xa35,a\n"))


def test_utf_16(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\nä,a\nb,b\n".encode("utf-16"))
    assert [row.text for row in rows_of(path, encoding="utf-16")] == ["ä", "b"]
    with pytest.raises(DataError, match=r"a\.csv:1: (.|\n)*data\.encoding=utf-16"):
        rows_of(path)


# --- folders -------------------------------------------------------------------------------------------------------


def test_class_folders(tmp_path: Path) -> None:
    for name, text in {
        "sport/2.txt": "b",
        "sport/1.txt": "a",
        "tech/1.txt": "c\r\n",
        "tech/x.png": "",
        "README": "",
    }.items():
        write(tmp_path / name, text)
    rows = rows_of(tmp_path, text="whatever", label="implied")
    assert [(row.id, row.text, row.label) for row in rows] == [
        ("sport/1.txt", "a", "sport"),
        ("sport/2.txt", "b", "sport"),
        ("tech/1.txt", "c\r\n", "tech"),
    ]
    ignored = changes_of(tmp_path)["ignored: not a text file in a class folder"]
    assert ignored == (2, ("README", "tech/x.png"))


def test_split_folders_as_in_aclimdb(tmp_path: Path) -> None:
    for part in ("train", "dev", "test"):
        write(tmp_path / part / "pos/0_9.txt", f"good {part}")
        write(tmp_path / part / "neg/0_1.txt", f"bad {part}")
    write(tmp_path / "train/unsup/0_0.txt", "unknown")
    splits = read(Data(path=str(tmp_path)), Split(), 0)
    assert [row.id for row in splits.train] == ["train/neg/0_1.txt", "train/pos/0_9.txt"]
    assert [row.text for row in splits.validation + splits.test] == ["bad dev", "good dev", "bad test", "good test"]
    assert splits.made == ()
    assert ("ignored: files without a label in `unsup`", 1) in [(change.what, change.count) for change in splits.notes]


@pytest.mark.parametrize("name", ["validation", "val", "valid", "dev"])
def test_a_file_a_split(tmp_path: Path, name: str) -> None:
    write(tmp_path / "train.csv", "text,label\na,x\nb,y\n")
    write(tmp_path / f"{name}.jsonl", '{"text": "c", "label": "x"}')
    splits = read(Data(path=str(tmp_path)), Split(test_size=0), 0)
    assert [row.id for row in splits.train + splits.validation] == ["train.csv:2", "train.csv:3", f"{name}.jsonl:1"]


def test_a_split_called_none_is_made_instead(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "text,label\n" + "".join(f"{i},{'xy'[i % 2]}\n" for i in range(20)))
    write(tmp_path / "test.csv", "text,label\nlast,x\n")
    splits = read(Data(path=str(tmp_path)), Split(test="none", test_size=4, validation_size=0), 0)
    assert splits.made == ("test",)
    assert {row.id.split(":")[0] for row in splits.test} == {"train.csv"}


# --- given files, split column, unlabelled -------------------------------------------------------------------------


def test_files_of_one_name_get_longer_ids(tmp_path: Path) -> None:
    train = write(tmp_path / "one/data.csv", "text,label\na,x\nb,y\n")
    test = write(tmp_path / "two/data.csv", "text,label\nc,x\n")
    splits = read(Data(train=str(train), test=str(test)), Split(validation_size=0), 0)
    assert (splits.train[0].id, splits.test[0].id) == ("one/data.csv:2", "two/data.csv:2")
    beside = read(Data(path=str(train), test=str(test)), Split(validation_size=0), 0)
    assert beside.fingerprints == splits.fingerprints


def test_short_names() -> None:
    paths = [Path("/d/a/train.csv"), Path("/d/b/train.csv"), Path("/d/test.csv")]
    assert list(short_names(paths).values()) == ["a/train.csv", "b/train.csv", "d/test.csv"]


def test_split_column(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label,part\na,x,train\nb,y,Train\nc,x,val\nd,y,test\ne,y,dev\n")
    splits = read(Data(path=str(path)), Split(column="part"), 0)
    assert [[row.text for row in part] for part in (splits.train, splits.validation, splits.test)] == [
        ["a", "b"],
        ["c", "e"],
        ["d"],
    ]
    without = read(Data(path=str(path)), Split(column="part", test="none", test_size=0), 0)
    assert without.test == ()
    assert without.notes[0].count == 1
    renamed = read(Data(path=str(path), on_bad_rows="drop"), Split(column="part", validation="dev", test="val"), 0)
    assert (renamed.validation[0].text, renamed.test[0].text) == ("e", "c")
    assert [(change.what, change.count) for change in renamed.notes[:1]] == [
        ("dropped: unknown name in split.column", 1)
    ]


def test_split_column_with_unknown_names(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label,part\na,x,train\nb,y,train\nc,x,extra\n")
    with pytest.raises(DataError, match=r"unknown name in split.column: 1 \(a.csv:4: 'extra'\)"):
        read(Data(path=str(path)), Split(column="part"), 0)


def test_unlabelled_rows(tmp_path: Path) -> None:
    rows, changes = read_unlabelled(Data(path=str(write(tmp_path / "a.csv", "text\na\n\nb\n"))))
    assert [(row.id, row.text, row.label) for row in rows] == [("a.csv:2", "a", None), ("a.csv:4", "b", None)]
    assert [change.what for change in changes] == ["skipped: blank line"]
    rows, _ = read_unlabelled(Data(path=str(write(tmp_path / "b.jsonl", '{"text": "a", "label": 3}\n{"text": "b"}'))))
    assert [row.label for row in rows] == ["3", None]


def test_assets_bring_their_encoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a/1.txt", b"\xa35")
    write(tmp_path / "b/1.txt", "b")
    fake = SimpleNamespace(fetch=lambda name: SimpleNamespace(path=tmp_path, encoding="utf-8,cp1252"))
    monkeypatch.setitem(sys.modules, "tunesmith.assets", fake)  # type: ignore[arg-type]
    monkeypatch.setattr("tunesmith.assets", fake, raising=False)
    assert [row.text for row in read(Data(path="pypi:bbc-news"), NOTHING_MADE, 0).train] == ["£5", "b"]
    assert read(Data(path="pypi:bbc-news", encoding="latin-1"), NOTHING_MADE, 0).notes[:-1] == ()


# --- the hub -------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Mapping[str, Any]]]:
    """The real `load_dataset`, looking into a local folder instead of the hub."""
    import datasets

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets.disable_progress_bars()
    load = datasets.load_dataset
    calls: list[Mapping[str, Any]] = []

    def build(**parts: list[int]) -> list[Mapping[str, Any]]:
        features = datasets.Features(
            {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
        )
        for part, labels in parts.items():
            rows = {"text": [f"{part} {i}" for i in range(len(labels))], "label": labels}
            (tmp_path / "set").mkdir(exist_ok=True)
            datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "set" / f"{part}.parquet")
        return calls

    def fake(path: str, name: str | None, *, revision: str | None, split: str | None = None) -> Any:
        calls.append({"path": path, "name": name, "revision": revision, "split": split})
        return load(str(tmp_path / "set"), split=split, cache_dir=str(tmp_path / "cache"))

    monkeypatch.setattr(datasets, "load_dataset", fake)
    return build


def test_hub_splits_and_label_names(hub: Callable[..., list[Mapping[str, Any]]]) -> None:
    calls = hub(train=[0, 1] * 10, validation=[1, 0])
    splits = read(Data(path="owner/reviews", name="small", revision="abc"), Split(test_size=4), 0)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (16, 2, 4)
    assert splits.labels == ("no", "yes")
    assert splits.made == ("test",)
    assert [(row.id, row.label) for row in splits.validation] == [("validation:0", "yes"), ("validation:1", "no")]
    assert calls == [{"path": "owner/reviews", "name": "small", "revision": "abc", "split": None}]


def test_hub_slices(hub: Callable[..., list[Mapping[str, Any]]]) -> None:
    hub(train=[0, 1] * 10, test=[1, 0])
    slices = Split(train="train[:80%]", validation="train[80%:]", test="none", test_size=0)
    splits = read(Data(path="owner/reviews"), slices, 0)
    assert [row.text for row in splits.validation] == ["train 16", "train 17", "train 18", "train 19"]
    assert (len(splits.train), splits.test, splits.made) == (16, (), ())
    assert splits.validation[0].id == "train[80%:]:0"


def test_hub_label_names_of_the_recipe_win(hub: Callable[..., list[Mapping[str, Any]]]) -> None:
    hub(train=[0, 1, 1])
    assert read(Data(path="owner/reviews", label_names=("nein", "ja")), NOTHING_MADE, 0).labels == ("nein", "ja")


def test_hub_split_without_labels(hub: Callable[..., list[Mapping[str, Any]]]) -> None:
    hub(train=[0, 1], test=[-1, -1])
    with pytest.raises(DataError, match=r"test: no row has a label(.|\n)*split\.test=none"):
        read(Data(path="owner/reviews"), Split(validation_size=0), 0)


def test_hub_split_that_is_not_there(hub: Callable[..., list[Mapping[str, Any]]]) -> None:
    hub(train=[0, 1])
    with pytest.raises(DataError, match=r"no split 'holdout'(.|\n)*  found: train\n.*split\.test"):
        read(Data(path="owner/reviews"), Split(test="holdout"), 0)


def test_hub_errors_keep_their_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def offline(*args: Any, **kwargs: Any) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(DataError, match=r"owner/reviews(.|\n)*ConnectionError: no network(.|\n)*data\.name") as caught:
        read(Data(path="owner/reviews"), Split(), 0)
    assert isinstance(caught.value.__cause__, ConnectionError)


# --- what is wrong with a file, and where --------------------------------------------------------------------------

GOOD = "text,label\na,x\n"
MALFORMED: list[tuple[str, str | bytes, str]] = [
    ("empty.csv", "", r"empty\.csv: no rows"),
    ("empty.tsv", "", r"empty\.tsv: no rows"),
    ("empty.json", "", r"empty\.json: no rows"),
    ("empty.jsonl", "", r"empty\.jsonl: no rows"),
    ("empty.parquet", "", r"empty\.parquet: broken Parquet"),
    ("empty.csv.gz", "", r"empty\.csv\.gz: no rows"),
    ("blank.csv", "\n\n\n", r"blank\.csv: no rows"),
    ("bom.csv", b"\xef\xbb\xbf", r"bom\.csv: no rows"),
    ("header.csv", "text,label\n", r"header\.csv: no rows"),
    ("header.tsv", "text\tlabel\n\n", r"header\.tsv: no rows"),
    ("list.json", "[]", r"list\.json: no rows"),
    ("wide.csv", GOOD + "b,y,z\n", r"ragged row: 1 \(wide\.csv:3: 3 fields instead of 2\)"),
    ("narrow.csv", GOOD + "b\n", r"ragged row: 1 \(narrow\.csv:3: 1 fields instead of 2\)"),
    ("ragged.tsv", "text\tlabel\na\tx\nb\ty\tz\n", r"ragged\.tsv:3: 3 fields"),
    ("stray.csv", GOOD + '"b\nc","y",z\n', r"stray\.csv:3: 3 fields instead of 2, up to line 4"),
    ("open.csv", GOOD + 'b,y\n"c,x\nd,y\n', r"open\.csv:4: a quote is opened and never closed"),
    ("quotes.csv", GOOD + '"b" c,y\n', r"quotes\.csv:3: broken quotes"),
    ("open_header.csv", '"text,label\na,x\n', r"open_header\.csv:1: a quote is opened"),
    ("twice.csv", "text,label,text\na,x,b\n", r"twice\.csv:1: duplicate column names(.|\n)*'text'"),
    ("later.csv", "\n\ntext,text\na,x\n", r"later\.csv:3: duplicate column names"),
    ("semicolon.csv", "text;label\na;x\nb;y;z\n", r"semicolon\.csv:3: 3 fields instead of 2"),
    (
        "long.jsonl",
        json.dumps({"text": "a", "label": "b" * 1001}),
        r"label of more than 1,000 characters: 1 \(long\.jsonl:1",
    ),
    ("twice.csv.gz", gzip.compress(gzip.compress(GOOD.encode())), r"twice\.csv\.gz: not a text file(.|\n)*gzip"),
    ("zip.csv", b"PK\x03\x04 and more", r"zip\.csv: not a text file(.|\n)*zip(.|\n)*unpack it first"),
    ("columns.csv", "Text,labels\na,x\n", r"columns\.csv: (.|\n)*data\.text=Text(.|\n)*data\.label=labels"),
    ("null.jsonl", '{"text": null, "label": 1}\n', r"null text: 1 \(null\.jsonl:1\)"),
    ("brace.json", '[\n {"text": "a",\n  "label": }\n]', r"brace\.json:3:12: broken JSON"),
    ("cut.json", '[{"text": "a"', r"cut\.json:1:14: broken JSON"),
    ("two.json", '{"a": [{"x": 1}], "b": [{"x": 1}]}', r"two\.json: no table(.|\n)*2 such arrays"),
    ("none.json", '{"text": "a", "label": 1}', r"none\.json: no table"),
    ("number.json", "3", r"number\.json: no table(.|\n)*int"),
    ("deep.json", "[" * 100_000, r"deep\.json.*: broken JSON"),
    ("mixed.json", '[{"text": "a", "label": 1}, 7]', r"mixed\.json:row 2: int"),
    ("broken.jsonl", '{"text": "a", "label": 1}\n{"text": \n', r"broken JSON line: 1 \(broken\.jsonl:2: Expecting"),
    ("list.jsonl", '{"text": "a", "label": 1}\n[1]\n', r"list\.jsonl:2: not an object"),
    ("all.jsonl", "nothing\nhere\n", r"all\.jsonl:1: broken JSON"),
    ("nested.jsonl", '{"text": ["a"], "label": 1}\n', r"neither a string nor a number: 1 \(nested\.jsonl:1: list"),
    ("half.jsonl", '{"text": "\\ud800", "label": 1}\n', r"lone surrogate\): 1 \(half\.jsonl:1"),
    ("label.jsonl", '{"text": "a", "label": 1.5}\n', r"whole number: 1 \(label\.jsonl:1: float\)"),
    ("unlabelled.csv", "text,label\na,\nb, \n", r"unlabelled\.csv: no row has a label"),
    ("binary.csv", b"\x89PNG\x00\x00\xff\xff", r"binary\.csv: a binary file"),
    ("zeros.csv", b"text,label\na\x00,x\n", r"zeros\.csv: a binary file"),
    ("latin.csv", b"text,label\na,x\n\xe9,x\n", r"latin\.csv:3: not utf-8(.|\n)*0xe9 at offset 15"),
    ("latin.jsonl", b'{"text": "a"}\n{"text": "\xe9"}\n', r"latin\.jsonl:2: not utf-8"),
    ("utf16.csv", "text".encode("utf-16"), r"utf16\.csv:1: (.|\n)*utf-16"),
    ("plain.csv.gz", GOOD, r"plain\.csv\.gz: broken gzip"),
    ("short.csv.gz", gzip.compress(GOOD.encode() * 50)[:-9], r"short\.csv\.gz: broken gzip"),
    ("text.parquet", GOOD, r"text\.parquet: broken Parquet"),
    ("sheet.xls", b"\xd0\xcf\x11\xe0", r"sheet\.xls: unknown file format(.|\n)*\.csv, \.tsv"),
    ("one.csv", "text,label\na,x\nb,x\n", r"single label(.|\n)*'x'"),
]


@pytest.mark.parametrize(("name", "content", "message"), MALFORMED, ids=[name for name, _, _ in MALFORMED])
def test_malformed_files_are_named_with_their_line(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        rows_of(write(tmp_path / name, content))
    parts = str(caught.value)
    assert name in parts
    assert re.findall(r"^  (expected|found|do): ", parts, re.MULTILINE) == ["expected", "found", "do"]


def test_a_damaged_parquet_page_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    as_parquet(path)
    content = bytearray(path.read_bytes())
    content[4:60] = b"\xff" * 56
    with pytest.raises(DataError, match=r"a\.parquet.*broken Parquet"):
        rows_of(write(path, bytes(content)))


def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(DataError, match=r"pipe\.csv: not a file(.|\n)*found: a pipe"):
        rows_of(tmp_path / "pipe.csv")


def test_a_folder_given_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(DataError, match=r"a\.csv: not a file(.|\n)*found: a folder"):
        read(Data(train=str(tmp_path / "a.csv")), Split(), 0)


def test_a_folder_with_nothing_we_know(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", GOOD)
    (tmp_path / "deep").mkdir()
    with pytest.raises(DataError, match=r"no data found in this folder(.|\n)*found: a\.csv, deep/"):
        rows_of(tmp_path)


def test_two_files_for_train(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", GOOD)
    write(tmp_path / "train.json", "[]")
    with pytest.raises(DataError, match=r"several candidates for train(.|\n)*  found: train\.csv, train\.json"):
        rows_of(tmp_path)


@pytest.mark.parametrize(
    "source", ["{folder}/reviws.csv", "~/no/such/reviews.csv", "./gone", "a/b/c", "a\\b", "gone.csv"]
)
def test_missing_files_are_not_looked_for_on_the_hub(
    tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "reviews.csv", GOOD)
    with pytest.raises(DataError, match=r"data\.path: no such file") as caught:
        read(Data(path=source.format(folder=tmp_path)), Split(), 0)
    assert ("did you mean" in str(caught.value)) == ("reviws" in source)


def test_settings_that_contradict(tmp_path: Path) -> None:
    path = str(write(tmp_path / "a.csv", GOOD))
    with pytest.raises(DataError, match="one file given for two splits"):
        read(Data(train=path, test=path), Split(), 0)
    other = str(write(tmp_path / "b.csv", GOOD))
    with pytest.raises(DataError, match=r"split\.column needs a single table"):
        read(Data(train=path, test=other), Split(column="label"), 0)
    for encoding in ("utf-9", "rot13"):
        with pytest.raises(DataError, match=f"(?s)no such encoding.*{encoding}"):
            read(Data(path=path, encoding=encoding), Split(), 0)
    with pytest.raises(DataError, match="no data"):
        read(Data(), Split(), 0)


# --- real data -----------------------------------------------------------------------------------------------------

REAL = Path(os.environ.get("TUNESMITH_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.mark.real
@pytest.mark.skipif(not (REAL / "rte").is_dir(), reason="needs the real corpora")
def test_rte_keeps_its_bare_quotes() -> None:
    files = Data(
        train=str(REAL / "rte/train.tsv.gz"),
        validation=str(REAL / "rte/dev.tsv.gz"),
        text="sentence1",
        text_pair="sentence2",
    )
    splits = read(files, Split(test_size=0), 0)
    assert (len(splits.train), len(splits.validation)) == (2490, 277)
    lines = gzip.decompress((REAL / "rte/train.tsv.gz").read_bytes()).decode().splitlines()
    marks = [row.text.count('"') + (row.text_pair or "").count('"') for row in splits.train]
    assert sum(marks) == sum(line.count('"') for line in lines) > 500


@pytest.mark.parametrize("scheme", ["s3", "http"])
def test_an_address_that_cannot_be_fetched_is_refused_without_its_key(scheme: str) -> None:
    with pytest.raises(DataError, match=r"data\.test: cannot fetch this kind of address") as caught:
        tables(Data(train="reviews.csv", test=f"{scheme}://me:secret@bucket/reviews.csv"), Split(), None)
    assert f"{scheme}://" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_only_assets_and_data_sets_on_a_hub_are_published(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").touch()
    (tmp_path / "stanfordnlp" / "mine").mkdir(parents=True)
    published = ("pypi:bbc-news", "stanfordnlp/sst2", "ag_news")
    own = ("rows.csv", "stanfordnlp/mine", "https://intranet.example/rows.csv", str(tmp_path))
    assert [is_published(Data(path=path)) for path in (*published, *own)] == [True] * 3 + [False] * 4
    assert not is_published(Data(train="rows.csv"))
