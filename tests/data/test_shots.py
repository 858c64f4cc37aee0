"""Which training rows a prompt shows: balanced or most similar, never a text's own, and the same after reloading."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import tiny
from tunesmith.data import shots
from tunesmith.data.shots import Shots
from tunesmith.recipe import Prompt
from tunesmith.types import Example

ROWS = [Example(f"r:{n}", text, label=label) for n, (text, label) in enumerate(tiny.texts(60))]
SKEWED = [row for row in ROWS if row.label == "sport" or int(row.id[2:]) < 9]


def embedder(name: str) -> shots.Embed:
    """Letters of a text, counted and scaled to unit length; texts are embedded one by one after the first time."""

    def embed(examples: Sequence[Example]) -> Any:
        counts = np.array([[row.text.count(chr(97 + k)) for k in range(26)] for row in examples], np.float32)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)

    return embed


def choose(rows: Sequence[Example], number: int, selection: Any = "random", seed: int = 0) -> Shots:
    return shots.choose(rows, Prompt(shots=number, shot_selection=selection), seed, embedder)


@pytest.mark.parametrize("rows", [ROWS, SKEWED], ids=["even", "skewed"])
@pytest.mark.parametrize("number", [3, 4, 8])
def test_random_shots_have_each_label_equally_often(rows: list[Example], number: int) -> None:
    counts = Counter(row.label for row in choose(rows, number).rows)
    assert sum(counts.values()) == number
    assert max(counts.values()) - min(counts[label] for label in tiny.WORDS) <= 1


def test_the_seed_decides() -> None:
    assert choose(ROWS, 8) == choose(ROWS, 8)
    others = {choose(ROWS, 8, seed=seed).rows for seed in range(5)}
    assert len(others) == 5
    first = Counter(choose(ROWS, 3, seed=seed).rows[0].label for seed in range(60))
    assert min(first[label] for label in tiny.WORDS) > 8  # no label always comes first


def test_few_labels_of_many_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(choose(ROWS, 2).rows) == 2
    assert "the 2 shots have 2 of 3 labels" in capsys.readouterr().err
    choose(ROWS, 3)
    assert capsys.readouterr().err == ""


def test_numbers_are_shown_from_low_to_high() -> None:
    rows = [Example(str(n), f"text {n}", value=float(n)) for n in range(40)]
    for seed in range(5):
        values = sorted(row.value or 0 for row in choose(rows, 4, seed=seed).rows)
        assert [int(value // 10) for value in values] == [0, 1, 2, 3]


def test_sets_of_labels_are_shown_with_each_label_and_with_none() -> None:
    rows = [Example(f"n:{n}", f"nothing {n}", labels=()) for n in range(30)]
    rows += [Example(f"a:{n}", f"anger {n}", labels=("anger",)) for n in range(30)]
    rows += [Example(f"b:{n}", f"both {n}", labels=("anger", "joy")) for n in range(2)]
    for seed in range(5):
        shown = choose(rows, 3, seed=seed).rows
        assert {label for row in shown for label in row.all_labels} == {"anger", "joy"}
        assert () in [row.labels for row in shown]


@pytest.mark.parametrize("selection", ["random", "nearest"])
def test_fewer_rows_than_shots_are_all_shown_with_a_note(selection: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = choose(ROWS[:3] + ROWS[:2], 5, selection)
    assert "5 shots are asked for, but train has 3 different texts: all are shown" in capsys.readouterr().err
    assert {row.id for row in found.of(Example("new", "a new text"))} == {"r:0", "r:1", "r:2"}


def test_none_are_none(tmp_path: Path) -> None:
    assert choose(ROWS, 0) == Shots()
    Shots().save(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert shots.load(tmp_path, embedder) == Shots()


def test_the_most_similar_are_shown_and_the_most_similar_last() -> None:
    found, embed = choose(ROWS, 4, "nearest"), embedder("")
    for example in [Example("q:1", "the match of the team"), Example("q:2", "a phone with new code")]:
        similarity = embed(ROWS) @ embed([example])[0]
        expected = sorted(range(len(ROWS)), key=lambda i: similarity[i])[-4:]
        assert [row.id for row in found.of(example)] == [ROWS[i].id for i in expected]


@pytest.mark.parametrize("selection", ["random", "nearest"])
def test_a_text_never_sees_its_own_label(selection: str) -> None:
    """Also where it stands in train several times, and whatever id it has."""
    rows = [*ROWS, *(Example(f"again:{n}", row.text, label="wrong") for n, row in enumerate(ROWS[:20]))]
    found = choose(rows, 8, selection)
    for row in ROWS:
        shown = found.of(Example("test:1", row.text))
        assert row.text not in [shot.text for shot in shown]
        assert len({shot.text for shot in shown}) == len(shown) >= 7
    assert len(found.of(Example("test:2", ROWS[0].text, "and another"))) == 8  # a pair is another text


@pytest.mark.parametrize("selection", ["random", "nearest"])
def test_reloaded_they_are_the_same(selection: str, tmp_path: Path) -> None:
    rows = [Example("r:1", "caf\u00e9 \ud800", "second", label="x"), *ROWS]
    found = choose(rows, 4, selection)
    found.save(tmp_path)
    again = shots.load(tmp_path, embedder)
    assert again == found
    for example in [*ROWS[:5], Example("new", "a server and a treaty")]:
        assert again.of(example) == found.of(example)
    assert (tmp_path / shots.EMBEDDINGS).exists() == (selection == "nearest")


def test_neighbours_do_not_depend_on_other_texts() -> None:
    """An embedding is another in the last digits in a batch, so each text that is asked about is embedded alone."""
    sizes: list[int] = []

    def counting(name: str) -> shots.Embed:
        def embed(examples: Sequence[Example]) -> Any:
            sizes.append(len(examples))
            return embedder(name)(examples)

        return embed

    found = shots.choose(ROWS, Prompt(shots=2, shot_selection="nearest"), 0, counting)
    for text in ("a goal", "a robot"):
        found.of(Example("q", text))
    assert found.of(ROWS[0])  # whose embedding is known
    assert sizes == [len(ROWS), 1, 1]
