"""A tiny model that answers, and instructions for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import tiny


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.generator("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose tokens are words, yes and no among them, which it learns sooner than bytes."""
    folder = tmp_path_factory.mktemp("words")
    tokenizer = tiny.tokenizer("llama")
    tokenizer.add_tokens(["yes", "no", "none", ":", ",", ".", *tiny.WORDS, "2.5"])
    tiny.causal("llama", vocab_size=len(tokenizer), max_position_embeddings=256).save_pretrained(folder)
    tokenizer.model_max_length = 256
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 instructions to name a topic."""
    rows = [{"instruction": "Name the topic.", "input": text, "output": label} for text, label in tiny.texts(60)]
    path = tmp_path_factory.mktemp("data") / "pairs.json"
    path.write_text(json.dumps(rows))
    return path
