"""Continued pretraining on raw text: every token is learned, once, however long the text is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tunesmith
from tests import tiny
from tunesmith import data, recipe as recipes
from tunesmith.data import truncation
from tunesmith.data.dataset import CONVERSATIONS
from tunesmith.data.encode import IGNORE
from tunesmith.data.prompts import ChatEncoder
from tunesmith.errors import DataError, RecipeError
from tunesmith.recipe import Data, Prompt, Split
from tunesmith.types import Message

TEXTS = [f"Once upon a time there were {n} little robots. " * (1 + 9 * (n % 5 == 0)) for n in range(40)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"body": text, "url": "x"}) + "\n" for text in TEXTS))
    return path


@pytest.mark.parametrize("bos", [None, "<bos>"])
@pytest.mark.parametrize("limit", [7, 10, 1000])
def test_every_token_is_learned_once(limit: int, bos: str | None) -> None:
    words = tiny.byte_tokenizer(bos=bos)
    encoder = ChatEncoder.of(Prompt(template="plain"), words)
    rows, notes = truncation.encode(["a"], [[Message("assistant", TEXTS[5])]], encoder, [limit], "truncate")
    whole = [*words(TEXTS[5])["input_ids"], words.eos_token_id]
    learned = [label for row in rows for label in row.labels[1:] if label != IGNORE]
    assert learned == whole[1:]
    assert all(len(row) <= limit and row.labels[1:] == row.ids[1:] for row in rows)
    assert [note.what for note in notes] == (["split into windows of model.max_length"] if limit < 1000 else [])


def test_rows_are_texts(source: Path) -> None:
    splits = data.read(Data(path=str(source), text="body", format="text"), Split(test_size=4), 1, CONVERSATIONS)
    assert len(splits.train) + len(splits.validation) + len(splits.test) == 40
    assert splits.train[0].messages == (Message("assistant", splits.train[0].text),)
    copies = ("near-duplicate", "same text but for")  # the texts are made of few words
    assert {note.what for note in splits.notes if not note.what.startswith(copies)} == {
        "raw texts, all tokens of which are learned",
        "unused columns: url",
    }
    with pytest.raises(DataError, match=r"did you mean data\.text=body"):
        data.read(Data(path=str(source), text="bod", format="text"), Split(), 1, CONVERSATIONS)


def test_a_model_is_trained_further_on_raw_text(source: Path, tmp_path: Path) -> None:
    model = tiny.generator("gpt2", tmp_path / "model")
    settings = ["max_steps=4", "max_length=64", "learning_rate=1e-2", "max_new_tokens=5", "bootstrap_samples=100"]
    recipe = {"task": "instruction", "data": {"path": str(source), "text": "body", "format": "text"}}
    run = tunesmith.train(recipe, [f"model={model}", *settings], run_dir=tmp_path / "run")
    assert run.finished.notes.layout == "packed"
    rows = [json.loads(line) for line in (run.path / "predictions" / "test.jsonl").read_text().splitlines()]
    assert [row["learned"] for row in rows] == [len(row["reference"].encode()) for row in rows]  # bytes, and the end
    scores = run.read("scores.json")
    assert scores["headline"]["loss"]["value"] < scores["base"]["headline"]["loss"]["value"]
    (going_on,) = tunesmith.predict(run, "Once upon")
    assert going_on["tokens"] <= 5
    assert len(tunesmith.predict(run, source=source)) == 40


def test_raw_text_has_no_prompts_to_answer() -> None:
    raw = {"task": "instruction", "data": {"path": "x", "format": "text"}}
    with pytest.raises(RecipeError, match="which has no prompts"):
        recipes.load(raw, ["evaluate.max_responses=3"])
    assert recipes.load({"stage": "pt", "dataset": "x"}).prompt.template == "plain"
