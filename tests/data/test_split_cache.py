"""Splits from the cache are those that were read, for the same contents and settings alone."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import tiny
from tests.conftest import write_csv
from tunesmith import assets
from tunesmith.data import dataset, split_cache
from tunesmith.data.example_table import ExampleTable
from tunesmith.pipeline.task_table import read_splits
from tunesmith.recipe import load
from tunesmith.types import Splits

Read = Callable[..., Splits]


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(split_cache, "SMALLEST", 1)
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    return write_csv(tmp_path / "reviews.csv", tiny.texts(120))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was read from its source, and not from the cache."""
    sources: list[str] = []
    read = dataset._read

    def counted(data: object, *rest: object) -> Splits:
        sources.append(str(data))
        return read(data, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(dataset, "_read", counted)
    return sources


def test_the_second_time_nothing_is_read_and_all_is_the_same(source: Path, reads: list[str]) -> None:
    recipe = load({}, [f"data.path={source}", "split.max_samples=50"])
    first, second = read_splits(recipe), read_splits(recipe)
    assert len(reads) == 1
    assert isinstance(second.train, ExampleTable)
    assert second == first
    assert first.notes
    assert first.copies is not None
    assert second.copies is not None
    for rows in (first.train, first.validation, first.test):
        assert second.copies.numbers.of_rows(rows).tolist() == first.copies.numbers.of_rows(rows).tolist()
    for name in ("first", "second", "similarity"):
        assert list(getattr(second.copies, name)) == list(getattr(first.copies, name))


@pytest.mark.parametrize(
    "change",
    ["seed=2", "split.test_size=0.3", "split.leaks=remove", "data.on_bad_rows=drop", "evaluate.slices=[length]"],
)
def test_another_setting_reads_again(change: str, source: Path, reads: list[str]) -> None:
    words = [f"data.path={source}"]
    read_splits(load({}, words))
    read_splits(load({}, [*words, change]))
    assert len(reads) == 2


def test_other_contents_read_again_whatever_size_and_time_say(source: Path, reads: list[str]) -> None:
    recipe = load({}, [f"data.path={source}"])
    before, status = read_splits(recipe), source.stat()
    content = source.read_bytes()
    place = content.index(b"\n") + 1
    changed = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
    source.write_bytes(changed)
    os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = read_splits(recipe)
    assert len(reads) == 2
    assert after.fingerprints["data"] != before.fingerprints["data"]


def test_a_damaged_entry_is_said_and_read_again(
    source: Path, reads: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    recipe = load({}, [f"data.path={source}"])
    first = read_splits(recipe)
    (entry,) = split_cache.folder().iterdir()
    content = (entry / "train.arrow").read_bytes()
    (entry / "train.arrow").write_bytes(content[:100] + b"x" + content[101:])
    with caplog.at_level(logging.WARNING, "tunesmith"):
        assert read_splits(recipe) == first
    assert "train.arrow has changed since it was written" in caplog.text
    assert len(reads) == 2
    assert read_splits(recipe) == first  # which wrote it anew
    assert len(reads) == 2


@pytest.mark.parametrize("words", [["data.cache=false"], []], ids=["not wanted", "small"])
def test_nothing_is_kept(words: list[str], source: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if not words:
        monkeypatch.setattr(split_cache, "SMALLEST", 1 << 20)
    for _ in range(2):
        read_splits(load({}, [f"data.path={source}", *words]))
    assert len(reads) == 2
    assert not split_cache.folder().exists()


def test_a_cache_that_cannot_be_written_is_a_warning(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING, "tunesmith"):
        assert len(read_splits(load({}, [f"data.path={source}"])).train) > 50
    assert "the splits are not kept for the next time" in caplog.text


def test_the_entries_that_were_used_longest_ago_make_room(
    source: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes = [load({}, [f"data.path={source}", f"seed={seed}"]) for seed in range(3)]
    for place, recipe in enumerate(recipes[:2]):
        read_splits(recipe)
        newest = max(split_cache.folder().iterdir(), key=lambda entry: entry.stat().st_mtime_ns)
        os.utime(newest, (place, place))
    read_splits(recipes[0])  # used again
    size = sum(file.stat().st_size for file in newest.iterdir())
    monkeypatch.setattr(assets, "MOST_CACHED", int(2.5 * size))
    read_splits(recipes[2])
    assert len(list(split_cache.folder().iterdir())) == 2
    assert len(reads) == 3
    read_splits(recipes[0])
    assert len(reads) == 3
    read_splits(recipes[1])
    assert len(reads) == 4
