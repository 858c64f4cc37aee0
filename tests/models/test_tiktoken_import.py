"""A vocabulary of tiktoken gives tiktoken's ids: for every text, in every encoding."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import tiktoken_ext.openai_public
from hypothesis import given, settings, strategies
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

import tunesmith
from tests import tiny
from tunesmith.errors import ModelError
from tunesmith.models import pretrained, tiktoken_import
from tunesmith.recipe import Model

CORPUS = [text for text, _ in tiny.texts(200)] + [
    "I'll say: don't! We've 1234 apples, they'RE 56.",
    "Grüße aus Köln, Übergröße 99",
    "a\n\n  b\t\tc  \r\n d",
    "名前は何ですか",
] * 20
TEXTS = [
    *CORPUS[-4:],
    "",
    " ",
    "\n",
    "x  ",
    "  x",
    "\n \n x",
    "🙂🙃 emoji",
    "THE HTTPServer's 3,141,592",
    "e\u0301 combining",
]
READERS: dict[str, Any] = {}


def ranks() -> dict[bytes, int]:
    """Merges learned from a few texts, in the form of tiktoken."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    )
    byte = {character: number for number, character in tiktoken_import._byte_characters().items()}
    vocabulary = sorted(raw.get_vocab().items(), key=lambda entry: entry[1])
    return {bytes(byte[letter] for letter in token): rank for rank, (token, _) in enumerate(vocabulary)}


def reference(name: str, known: dict[bytes, int]) -> tiktoken.Encoding:
    """tiktoken's own encoding, with its own pattern, over other tokens."""
    function = getattr(tiktoken_ext.openai_public, name)
    with pytest.MonkeyPatch.context() as patch:
        for loader in ("load_tiktoken_bpe", "data_gym_to_mergeable_bpe_ranks"):
            patch.setattr(tiktoken_ext.openai_public, loader, lambda *_, **__: known)
        pattern = function()["pat_str"]
    return tiktoken.Encoding("tiny", pat_str=pattern, mergeable_ranks=known, special_tokens={"<|endoftext|>": 600})


def pair(name: str) -> tuple[Any, tiktoken.Encoding]:
    if name not in READERS:
        known = ranks()
        pattern, _ = tiktoken_import.ENCODINGS[name]
        READERS[name] = tiktoken_import.build(known, pattern, {"<|endoftext|>": 600}), reference(name, known)
    return READERS[name]


@pytest.mark.parametrize("name", tiktoken_import.ENCODINGS)
def test_ids_are_those_of_tiktoken(name: str) -> None:
    ours, theirs = pair(name)
    for text in TEXTS:
        assert ours(text)["input_ids"] == theirs.encode_ordinary(text), text
        assert ours.decode(ours(text)["input_ids"], clean_up_tokenization_spaces=False) == text
    assert len(ours) == 601
    assert ours("a<|endoftext|>")["input_ids"][-1] == ours.eos_token_id == 600


def test_ids_that_no_token_has_are_counted() -> None:
    ours = tiktoken_import.build(ranks(), tiktoken_import.GPT2, {"<|endoftext|>": 700})
    assert len(ours) == 701
    assert len(ours("<|unused_650|>")["input_ids"]) > 1


@pytest.mark.parametrize("name", ["gpt2", "cl100k_base", "o200k_base"])
@settings(deadline=None, max_examples=200)
@given(text=strategies.text(max_size=40))
def test_so_they_are_for_any_text(name: str, text: str) -> None:
    ours, theirs = pair(name)
    assert ours(text.replace("<|", ""))["input_ids"] == theirs.encode_ordinary(text.replace("<|", ""))


def write(path: Path) -> Path:
    lines = (f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in ranks().items())
    path.write_text("".join(lines))
    return path


def test_a_model_of_ones_own_is_trained_with_it(tmp_path: Path) -> None:
    file = write(tmp_path / "gpt2.tiktoken")
    rows = [{"instruction": f"Go {n}.", "input": "", "output": "Gone."} for n in range(20)]
    model = {"from_config": {"model_type": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 8, "n_positions": 128}}
    model |= {"tokenizer": f"tiktoken:{file}", "max_length": 100}
    recipe = {"task": "instruction", "data": {"path": rows}, "model": model}
    run = tunesmith.train(recipe, ["max_steps=2", "max_new_tokens=3", "bootstrap_samples=100", "template=plain"])
    stored = AutoTokenizer.from_pretrained(run.model)
    loaded = pretrained.tokenizer(Model(tokenizer=f"tiktoken:{file}"))
    assert [stored(text)["input_ids"] for text in TEXTS] == [loaded(text)["input_ids"] for text in TEXTS]
    assert tunesmith.predict(run, "Go 3.")[0]["tokens"] <= 3


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("tiktoken:gpt5", "no such encoding of tiktoken: gpt5"),
        ("tiktoken:cl100k_base", "model.tokenizer=tiktoken:FOLDER/cl100k_base.tiktoken"),
        ("tiktoken:broken/gpt2.tiktoken", "is no vocabulary of tiktoken"),
    ],
)
def test_what_cannot_be_loaded_is_explained(name: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "gpt2.tiktoken").write_text("not a vocabulary\n")
    with pytest.raises(ModelError, match=problem):
        pretrained.tokenizer(Model(tokenizer=name))


@pytest.mark.real
def test_gpt2_comes_from_its_wheel() -> None:
    loaded = pretrained.tokenizer(Model(tokenizer="tiktoken:gpt2"))
    assert len(loaded) == 50257
    assert loaded("Hello world, it's 2026.<|endoftext|>")["input_ids"] == [
        15496,
        995,
        11,
        340,
        338,
        1160,
        2075,
        13,
        50256,
    ]
