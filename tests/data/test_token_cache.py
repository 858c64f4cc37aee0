"""Tokens from the cache are those that the tokenizer gives, for the same rows, tokenizer and settings alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tests import tiny
from tests.conftest import write_csv
from tunesmith.data import encode, example_table, token_cache
from tunesmith.data.encode import Encoded, EncodedText, Ending
from tunesmith.data.example_table import ExampleTable, collect
from tunesmith.models import pretrained
from tunesmith.recipe import Model
from tunesmith.tasks.classification import SingleLabel
from tunesmith.types import DataNote, Example, PredictionRow

LABELS = SingleLabel(("bad", "good"))


@pytest.fixture(autouse=True)
def many(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two rows are many, and lie in several blocks."""
    monkeypatch.setattr(example_table, "MOST_BYTES", 500)
    monkeypatch.setattr(example_table, "ROWS", 7)
    monkeypatch.setattr(token_cache, "BLOCK", 11)
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def tokenizer(tiny_models: Callable[[str], Path]) -> Any:
    return pretrained.tokenizer(Model(name_or_path=str(tiny_models("bert"))))


def rows(count: int = 60, pair: bool = False, word: str = "") -> Sequence[Example]:
    texts = tiny.texts(count)
    return collect(
        Example(
            f"r:{n}", f"{text} {word}".strip(), text[::-1] if pair else None, label=("bad", "good")[n % 2], weight=n
        )
        for n, (text, _) in enumerate(texts)
    )


def tokenized(
    examples: Sequence[Example], tokenizer: Any, max_length: int = 12
) -> tuple[Sequence[Encoded], list[DataNote]]:
    key = [*token_cache.identity(tokenizer), max_length]
    return token_cache.tokenized(
        examples, partial(encode.encode, tokenizer=tokenizer, max_length=max_length, target=LABELS), key
    )


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each making of tokens had."""
    counts: list[int] = []
    fill = token_cache._fill

    def counted(folder: Path, examples: ExampleTable, *rest: Any) -> None:
        counts.append(len(examples))
        fill(folder, examples, *rest)

    monkeypatch.setattr(token_cache, "_fill", counted)
    return counts


@pytest.mark.parametrize("pair", [False, True], ids=["texts", "pairs"])
def test_the_tokens_are_those_of_the_tokenizer(pair: bool, tokenizer: Any, made: list[int]) -> None:
    examples = rows(pair=pair)
    expected, notes = encode.encode(list(examples), tokenizer, 12, LABELS)
    for _ in range(2):
        table, noted = tokenized(examples, tokenizer)
        assert list(table) == expected
        assert noted == notes
        assert notes[0].count > 5
        assert table[-1] == expected[-1]
        assert table[3:9] == expected[3:9]
    assert made == [60]


def test_another_text_label_tokenizer_or_length_makes_other_tokens(
    tokenizer: Any, made: list[int], tiny_models: Callable[[str], Path]
) -> None:
    examples = list(rows())
    relabelled = [*examples[:-1], Example(examples[-1].id, examples[-1].text, label="bad", weight=59)]
    lower = pretrained.tokenizer(Model(name_or_path=str(tiny_models("bert"))))
    lower.truncation_side = "left"
    other = pretrained.tokenizer(Model(name_or_path=str(tiny_models("roberta"))))
    variants = [
        (examples, tokenizer, 12),
        (examples, tokenizer, 13),
        (rows(word="more"), tokenizer, 12),
        (relabelled, tokenizer, 12),
        (examples[::-1], tokenizer, 12),
        (examples, lower, 12),
        (examples, other, 12),
    ]
    for number, (texts, by, length) in enumerate(variants, 1):
        table, _ = tokenized(collect(texts), by, length)
        assert list(table) == encode.encode(list(texts), by, length, LABELS)[0]
        assert len(made) == number


def test_a_damaged_entry_is_made_anew(tokenizer: Any, made: list[int], tmp_path: Path) -> None:
    examples = rows()
    expected = list(tokenized(examples, tokenizer)[0])
    (entry,) = (tmp_path / "cache" / "tokens").iterdir()
    content = (entry / token_cache.TOKENS).read_bytes()
    (entry / token_cache.TOKENS).write_bytes(content[:-4])
    assert list(tokenized(examples, tokenizer)[0]) == expected
    assert len(made) == 2


def test_rows_of_causal_models_and_no_rows(made: list[int]) -> None:
    texts = [
        EncodedText("a \ud800", [1, 2, 3], [-100, -100, 3], (Ending(1, [9], [9]), Ending(2, [], []))),
        EncodedText("b", [], []),
        EncodedText("c", [7], [7]),
    ]

    def tokenize(examples: Sequence[Example]) -> tuple[list[EncodedText], list[DataNote]]:
        return [row for row in texts if row.id in {example.id for example in examples}], []

    examples = collect(Example(row.id, "text " * 50) for row in texts)
    assert list(token_cache.tokenized(examples, tokenize, [])[0]) == texts
    assert list(token_cache.tokenized(examples, tokenize, ["x"], keep=False)[0]) == texts
    none, _ = token_cache.tokenized(examples, lambda part: ([], []), ["none"])
    assert list(none) == []


@pytest.mark.parametrize("method", ["encoder", "generator"])
def test_a_training_on_tables_is_bit_for_bit_that_on_tuples(
    method: str, tmp_path: Path, tiny_models: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_csv(tmp_path / "reviews.csv", tiny.texts(80))
    model = (
        tiny_models("bert")
        if method == "encoder"
        else tiny.generator("llama", tmp_path / "llama", max_position_embeddings=256)
    )
    recipe = {"method": method, "data": {"path": str(source)}, "model": {"name_or_path": str(model)}}
    words = ["max_steps=4", "logging_steps=1", "bootstrap_samples=100", "model.max_length=160"]
    columns = tunesmith.train(recipe, words, quiet=True, run_dir=tmp_path / "columns")
    assert (tmp_path / "cache" / "tokens").exists()
    monkeypatch.setattr(example_table, "MOST_BYTES", 1 << 30)
    plain = tunesmith.train(recipe, words, quiet=True, run_dir=tmp_path / "plain")
    files = sorted(plain.model.rglob("*.safetensors"))
    assert files
    for path in files:
        assert path.read_bytes() == (columns.model / path.relative_to(plain.model)).read_bytes()
    assert columns.predictions("test", PredictionRow) == plain.predictions("test", PredictionRow)
