"""Several files that are one table: patterns, folders of shards, and files of a split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from tests.written_files import COMPRESS, write_xlsx
from tunesmith import recipe as recipes
from tunesmith.data import read
from tunesmith.errors import DataError
from tunesmith.recipe import Data, Split
from tunesmith.types import Splits

pytest.importorskip("python_calamine")
ROWS = [{"text": f"text {number}, more; or less", "label": "ab"[number % 2]} for number in range(30)]
ALL = Split(test_size=0, validation_size=0)
CUT = Split(test_size=6, validation_size=4)


def write(path: Path, rows: list[dict[str, str]]) -> None:
    """Write rows in the format that the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.name.removesuffix(path.suffix) if path.suffix in COMPRESS else path.name
    plain = path.with_name(name)
    if name.endswith(".parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), plain)
    elif name.endswith(".xlsx"):
        write_xlsx(plain, {"Rows": [list(rows[0]), *([*row.values()] for row in rows)]})
    elif name.endswith(".jsonl"):
        plain.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    elif name.endswith(".json"):
        plain.write_text(json.dumps(rows))
    else:
        mark = "\t" if name.endswith(".tsv") else ","
        lines = [mark.join(f'"{cell}"' for cell in row) for row in [list(rows[0]), *([*r.values()] for r in rows)]]
        plain.write_text("\n".join(lines) + "\n")
    if path != plain:
        path.write_bytes(COMPRESS[path.suffix](plain.read_bytes()))
        plain.unlink()


def splits_of(split: Split = CUT, **data: Any) -> Splits:
    return read(Data(**data), split, 7)


@pytest.mark.parametrize(
    "name", ["b.tsv", "b.json", "b.jsonl", "b.parquet", "b.xlsx", *(f"b.csv{suffix}" for suffix in COMPRESS)]
)
def test_the_fingerprint_does_not_depend_on_the_container(tmp_path: Path, name: str) -> None:
    write(tmp_path / "a.csv", ROWS)
    expected = splits_of(path=str(tmp_path / "a.csv"))
    write(tmp_path / name, ROWS)
    assert splits_of(path=str(tmp_path / name)).fingerprints == expected.fingerprints
    suffix = name.removeprefix("b")
    for number, start in enumerate(range(0, 30, 11)):
        write(tmp_path / "shards" / f"part-{number}{suffix}", ROWS[start : start + 11])
    for source in (f"{tmp_path}/shards/*{suffix}", f"{tmp_path}/shards", f"{tmp_path}/**/part-?{suffix}"):
        assert splits_of(path=source).fingerprints == expected.fingerprints
    assert splits_of(train=f"{tmp_path}/shards").fingerprints == expected.fingerprints


def test_ids_name_the_shard(tmp_path: Path) -> None:
    for folder, name in (("one", "b.csv"), ("one", "a.csv"), ("two", "c.csv")):
        write(tmp_path / folder / name, ROWS[:2])
    rows = splits_of(ALL, path=f"{tmp_path}/*/*.csv").train
    assert [row.id for row in rows[::2]] == ["a.csv:2", "b.csv:2", "c.csv:2"]
    write(tmp_path / "two/a.csv", ROWS[:2])
    rows = splits_of(ALL, path=f"{tmp_path}/*/*.csv").train
    assert [row.id for row in rows[::2]] == ["one/a.csv:2", "one/b.csv:2", "two/a.csv:2", "two/c.csv:2"]


def test_shards_of_splits(tmp_path: Path) -> None:
    """As hubs publish them, and as Spark writes them."""
    for number in range(3):
        write(tmp_path / "hub" / f"train-0000{number}-of-00003.parquet", ROWS[number * 8 : number * 8 + 8])
        write(tmp_path / "spark/train" / f"part-0000{number}.jsonl", ROWS[number * 8 : number * 8 + 8])
    write(tmp_path / "hub/test-00000-of-00001-9ad84bb9cf65a42f.parquet", ROWS[24:])
    write(tmp_path / "spark/test/part-00000.jsonl", ROWS[24:])
    (tmp_path / "spark/train/_SUCCESS").touch()
    for name in ("hub", "spark"):
        splits = splits_of(Split(validation_size=0), path=str(tmp_path / name))
        assert [row.text for row in splits.train + splits.test] == [row["text"] for row in ROWS]
        assert splits.made == ()
    assert splits.test[0].id == "test/part-00000.jsonl:1"
    given = splits_of(Split(validation_size=0), train=f"{tmp_path}/hub/train-*", test=f"{tmp_path}/hub/test-*.parquet")
    assert given.fingerprints == splits.fingerprints


def test_shards_must_agree(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", ROWS)
    write(tmp_path / "b.csv", [{"text": row["text"], "labels": row["label"]} for row in ROWS])
    with pytest.raises(DataError, match=r"b\.csv: a shard with other columns(.|\n)*no column 'label'; also 'labels'"):
        splits_of(path=f"{tmp_path}/*.csv")
    write(tmp_path / "b.jsonl", ROWS)
    with pytest.raises(DataError, match=r"b\.jsonl: a shard of another format(.|\n)*found: \.jsonl"):
        splits_of(path=f"{tmp_path}/*")
    (tmp_path / "b.csv").write_text("text,label\na,b,c\n")
    with pytest.raises(DataError, match=r"b\.csv:2: 3 fields instead of 2"):
        splits_of(path=f"{tmp_path}/*.csv")


def test_a_shard_of_json_lines_may_lack_a_key(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", ROWS[:10])
    write(tmp_path / "b.jsonl", [{**row, "group": "g"} for row in ROWS[10:]])
    assert len(splits_of(Split(test_size=0, validation_size=0, group="group"), path=f"{tmp_path}/*.jsonl").train) == 30


def test_patterns_and_folders_without_data(tmp_path: Path) -> None:
    for setting in ("path", "train"):
        with pytest.raises(DataError, match=rf"data\.{setting}: no file matches .*\*\.csv(.|\n)*found: nothing"):
            splits_of(**{setting: f"{tmp_path}/*.csv"})
    write(tmp_path / "tset.csv", ROWS)
    write(tmp_path / "test.csv", ROWS)
    with pytest.raises(DataError, match="no data found in this folder"):  # a test split never becomes training data
        splits_of(path=str(tmp_path))
    with pytest.raises(DataError, match="one file given for two splits"):
        splits_of(train=f"{tmp_path}/*.csv", test=str(tmp_path / "test.csv"))
    with pytest.raises(DataError, match=r"data\.sha256 is that of one file"):
        splits_of(path=f"{tmp_path}/*.csv", sha256="0" * 64)


def test_a_pattern_does_not_make_test_rows_training_rows(tmp_path: Path) -> None:
    for name in ("train-00000-of-00001.csv", "test.csv"):
        write(tmp_path / name, ROWS)
    with pytest.raises(
        DataError, match=r"files of several splits as one table(.|\n)*files of train and test: test\.csv"
    ):
        splits_of(path=f"{tmp_path}/*.csv")
    assert len(splits_of(CUT, path=f"{tmp_path}/train*").train) == 20


def test_files_beside_shards_are_named(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", ROWS)
    write(tmp_path / "b.csv", ROWS[:1])
    (tmp_path / "LICENSE").touch()
    notes = {note.what: note.where for note in splits_of(ALL, path=str(tmp_path)).notes}
    assert notes["ignored: not a data file"] == ("LICENSE",)


def test_a_name_with_brackets_is_a_name(tmp_path: Path) -> None:
    write(tmp_path / "a[1].csv", ROWS)
    assert len(splits_of(ALL, path=str(tmp_path / "a[1].csv")).train) == 30


def test_a_stored_pattern_works_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "data/a.csv", ROWS)
    monkeypatch.chdir(tmp_path)
    for written in ("data/*.csv", "data/a*", "d*/a.csv"):
        assert recipes.load({"data": {"path": written}}).data.path == str(tmp_path / written)
    (tmp_path / "shop.db").touch()
    for written in ("sqlite:///shop.db", f"sqlite:///{tmp_path}/shop.db"):
        assert recipes.load({"data": {"path": written}}).data.path == f"sqlite:///{tmp_path}/shop.db"
    for other in ("sqlite:///gone.db", "s3://bucket/*.csv", "no/folder/*.csv", "owner/name"):
        assert recipes.load({"data": {"path": other}}).data.path == other
