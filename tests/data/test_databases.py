"""Rows of a query: of SQLite, with the errors of the database, and never with a password."""

from __future__ import annotations

import gc
import sqlite3
import sys
import tracemalloc
from pathlib import Path

import pytest

import tunesmith
from tunesmith import recipe as recipes
from tunesmith.data import read
from tunesmith.data.rows import Row
from tunesmith.data.sources import is_published, tables
from tunesmith.errors import DataError, MissingExtra, RecipeError
from tunesmith.recipe import Data, Split

pytest.importorskip("sqlalchemy")
ROWS = [(f"text {number}: {'good' if number % 2 else 'bad'} 100%", "ab"[number % 2], number) for number in range(40)]
QUERY = "SELECT text, label FROM reviews ORDER BY id"


@pytest.fixture
def address(tmp_path: Path) -> str:
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute("CREATE TABLE reviews (text TEXT, label TEXT, id INTEGER)")
        connection.executemany("INSERT INTO reviews VALUES (?, ?, ?)", ROWS)
    connection.close()
    return f"sqlite:///{tmp_path}/shop.db"


def test_a_query_gives_the_rows_of_a_file(address: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label, _ in ROWS))
    split = Split(test_size=8, validation_size=4)
    splits = read(Data(path=address, sql=QUERY), split, 3)
    assert splits.fingerprints == read(Data(path=str(path)), split, 3).fingerprints
    assert splits.train[0].id.startswith("shop.db:row ")
    assert read(Data(train=address, sql=QUERY), split, 3).fingerprints == splits.fingerprints
    assert not is_published(Data(path=address, sql=QUERY))


def test_a_query_for_each_split(address: str, tmp_path: Path) -> None:
    queries = {"train": f"{QUERY} LIMIT 30", "test": f"{QUERY} LIMIT 10 OFFSET 30"}
    for data in (
        Data(path=address, sql=queries),
        Data(train=address, test=address, sql=queries),
    ):
        splits = read(data, Split(validation_size=0), 0)
        assert [row.text for row in splits.train + splits.test] == [text for text, _, _ in ROWS]
        assert splits.test[0].id == "shop.db:test:row 1"
    (tmp_path / "test.csv").write_text("text,label\nx,a\ny,b\nz,a\nw,b\n")
    mixed = read(Data(train=address, test=str(tmp_path / "test.csv"), sql=QUERY), Split(validation_size=0), 0)
    assert (len(mixed.train), mixed.test[0].id) == (40, "test.csv:2")
    unused = read(Data(path=str(tmp_path / "test.csv"), sql=QUERY), Split(test_size=0, validation_size=0), 0)
    assert any("data.sql is not used" in note.what for note in unused.notes)
    with pytest.raises(DataError, match=r"data\.test: no query for it in data\.sql"):
        read(Data(train=address, test=address, sql={"train": QUERY}), Split(), 0)
    recipe = recipes.load({}, [f"data.path={address}", 'data.sql={train: "SELECT 1", test: "SELECT 2"}'])
    assert recipe.data.sql == {"train": "SELECT 1", "test": "SELECT 2"}


def test_an_order_is_advised(address: str) -> None:
    without = read(Data(path=address, sql="SELECT text, label FROM reviews"), Split(), 0)
    assert any("no ORDER BY" in note.what for note in without.notes)
    assert not any("ORDER BY" in note.what for note in read(Data(path=address, sql=QUERY), Split(), 0).notes)


def test_colons_and_percent_signs_are_those_of_the_query(address: str) -> None:
    query = "SELECT text, label, ':x' || text AS other FROM reviews WHERE text LIKE 'text %: good 100%' ORDER BY id"
    (table,) = tables(Data(path=address, sql=query), Split(), None).values()
    rows = [item.values for item in table.items if isinstance(item, Row)]
    assert len(rows) == 20
    assert rows[0]["other"] == ":xtext 1: good 100%"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT text FROM review", r"data\.sql: the database refuses(.|\n)*found: no such table: review\n"),
        ("SELEC", r'found: near "SELEC": syntax error'),
        ("SELECT text, text FROM reviews", r"shop\.db: duplicate column names"),
        ("SELECT text, label FROM reviews WHERE id < 0", r"shop\.db: no rows"),
        ("SELECT label FROM reviews", r"no column 'text'"),
        ("DELETE FROM reviews", "readonly database"),
        ("DROP TABLE reviews", "readonly database"),
        ("PRAGMA user_version = 3", "readonly database"),
    ],
)
def test_what_a_database_refuses(address: str, query: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(Data(path=address, sql=query), Split(), 0)
    gc.collect()  # a connection that stays open warns, and warnings are errors
    assert len(read(Data(path=address, sql=QUERY), Split(test_size=0, validation_size=0), 0).train) == 40


def test_what_no_database_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"no such database: .*gone\.db"):
        read(Data(path=f"sqlite:///{tmp_path}/gone.db", sql=QUERY), Split(), 0)
    assert not (tmp_path / "gone.db").exists()
    with pytest.raises(DataError, match=r"data\.train: a database without a query(.|\n)*data\.sql"):
        read(Data(train="postgresql://me@host/shop"), Split(), 0)
    monkeypatch.setenv("DB_PASSWORD", "p@ss/word")
    with pytest.raises(MissingExtra, match=r"driver of this database is not installed"):
        read(Data(train="oracle+cx_oracle://me:${DB_PASSWORD}@host/shop", sql=QUERY), Split(), 0)
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(MissingExtra, match=r"tunesmith\[sql\]"):
        read(Data(path="sqlite:///a.db", sql=QUERY), Split(), 0)


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:s3cret@host/shop",
        "postgresql+psycopg://me:s3c/ret@host:5432/shop",
        "mysql://host/shop?user=me&password=s3cret",
    ],
)
def test_a_password_is_not_taken_where_it_would_be_written(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("path", "train"):
        with pytest.raises(RecipeError, match=r"\$\{DB_PASSWORD\}") as caught:
            tunesmith.train(overrides=[f"data.{name}={address}", "data.sql=SELECT 1", f"output_dir={tmp_path}/runs"])
        assert "s3c" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_passwords_come_from_the_environment(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run holds the name of the variable; what a driver repeats of its value is masked."""
    written, secret = f"{address}?timeout=${{SECRET_SECONDS}}", "98765.4321"
    settings = ["method=linear", f"data.path={written}", f"data.sql={QUERY}", "evaluate.bootstrap_samples=100"]
    with pytest.raises(DataError, match=r"the environment has no SECRET_SECONDS"):
        tunesmith.train(overrides=settings)
    monkeypatch.setenv("SECRET_SECONDS", secret)
    run = tunesmith.train(overrides=settings)
    kept = "".join(path.read_text(errors="ignore") for path in run.path.rglob("*") if path.is_file())
    assert "${SECRET_SECONDS}" in kept
    assert secret not in kept + "".join(capsys.readouterr())
    with pytest.raises(DataError, match=r"the database refuses(.|\n)*near \"\*\*\*\"") as caught:
        read(Data(path=written, sql=f"SELECT text FROM {secret}"), Split(), 0)
    assert secret not in str(caught.value)


def test_rows_are_fetched_in_parts(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "large.db") as connection:
        connection.execute("CREATE TABLE reviews (text TEXT, label TEXT)")
        connection.executemany("INSERT INTO reviews VALUES (?, ?)", (("x" * 2000, "a") for _ in range(20_000)))
    connection.close()
    (table,) = tables(Data(path=f"sqlite:///{tmp_path}/large.db", sql="SELECT * FROM reviews"), Split(), None).values()
    tracemalloc.start()
    count = sum(isinstance(item, Row) for item in table.items)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 20_000
    assert peak < 10 * 2**20
