"""What a run leaves loads with plain transformers and peft, as its model card says, without tunesmith."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

import tunesmith
from tests import forked, tiny
from tests.conftest import write_csv
from tunesmith import assets
from tunesmith.data.prompts import ChatEncoder
from tunesmith.exporting import gguf
from tunesmith.runs import Run

QUICK = ["bootstrap_samples=100", "max_steps=2", "max_new_tokens=4", "num_samples=0", "base=false"]
HUB = {"pypi:toy": "owner/toy", "pypi:toy-encoder": "owner/encoder"}
WITHOUT_TUNESMITH = "import sys; sys.modules['tunesmith'] = None\n"
PLAIN = """
from pathlib import Path
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(folder)
ids = AutoTokenizer.from_pretrained(folder)("Name the topic.", return_tensors="pt")
print(model.eval()(**ids).logits.sum().item())
"""


@pytest.fixture(autouse=True)
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two assets: a generator in a GGUF file, and an encoder's folder."""
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    words = tiny.byte_tokenizer(eos="<|endoftext|>").train_new_from_iterator(["the topic of the text"] * 9, 280)
    words.chat_template = "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
    model = tiny.causal("llama", vocab_size=len(words), max_position_embeddings=512)
    small = tiny.causal("llama", vocab_size=len(words) - 1, max_position_embeddings=512)  # a row is added
    small.save_pretrained(tmp_path / "llama")
    words.save_pretrained(tmp_path / "llama")
    gguf.write(tmp_path / "toy.gguf", model, ChatEncoder(words), "float32", "toy")
    paths = {"pypi:toy": tmp_path / "toy.gguf", "pypi:toy-encoder": tiny.model("bert", tmp_path / "bert")}
    monkeypatch.setattr(assets, "fetch", lambda name: assets.Asset(paths[name], None))
    monkeypatch.setattr(assets, "hub_id", HUB.get)


def classify(tmp_path: Path, model: str, name: str, *more: str) -> Run:
    reviews = write_csv(tmp_path / "reviews.csv", tiny.texts(60))
    source = {"data": {"path": str(reviews)}, "model": {"name_or_path": model}}
    return tunesmith.train(source, [*QUICK, *more], run_dir=tmp_path / name, quiet=True)


def instruct(tmp_path: Path, model: str, name: str, *more: str) -> Run:
    rows = [{"instruction": "Name the topic.", "input": text, "output": label} for text, label in tiny.texts(40)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    source = {"task": "instruction", "data": {"path": str(tmp_path / "rows.json")}, "model": {"name_or_path": model}}
    return tunesmith.train(source, [*QUICK, *more], run_dir=tmp_path / name, quiet=True)


def python_of(run: Run) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", run.read_text("README.md"), re.DOTALL)
    return code


def output(tmp_path: Path, code: str) -> str:
    """What the code prints in a process that cannot import tunesmith."""
    return forked.run(forked.script, WITHOUT_TUNESMITH + code, tmp_path).strip()


def test_the_code_on_every_model_card_runs_without_tunesmith(tmp_path: Path) -> None:
    lora = "adapter.kind=lora"
    runs = [
        instruct(tmp_path, "pypi:toy", "full"),
        instruct(tmp_path, "pypi:toy", "lora", lora),
        instruct(tmp_path, str(tmp_path / "llama"), "lora-folder", lora),
        instruct(tmp_path, str(tmp_path / "toy.gguf"), "lora-gguf", lora),
        instruct(tmp_path, "pypi:toy", "untuned", "max_steps=null", "num_train_epochs=0"),
        classify(tmp_path, "pypi:toy-encoder", "encoder"),
        classify(tmp_path, "pypi:toy-encoder", "encoder-lora", lora),
    ]
    replies = [output(tmp_path, python_of(run)) for run in runs]
    for run, reply in zip(runs[:5], replies[:5], strict=True):
        (row,) = tunesmith.predict(run, ["Name three primary colours."])
        assert reply == row["response"], run.path.name
    for run, reply in zip(runs[5:], replies[5:], strict=True):
        (row,) = tunesmith.predict(run, ["Some text"], top_k=3)
        scores = {entry["label"]: entry["score"] for entry in ast.literal_eval(reply)}
        assert scores == pytest.approx(row["scores"], abs=1e-4), run.path.name


def test_an_adapter_is_what_plain_transformers_loads(tmp_path: Path) -> None:
    """A folder with an adapter is no full model: transformers loads its base, and the adapter beside it."""
    run = instruct(tmp_path, "pypi:toy", "lora", "adapter.kind=lora", "learning_rate=0.1")
    base = json.loads((run.model / "base_config.json").read_text())["_name_or_path"]
    assert base == "pypi:toy"
    folder = json.loads((run.model / "adapter_config.json").read_text())["base_model_name_or_path"]
    adapted, plain = (output(tmp_path, f"folder = {str(path)!r}\n{PLAIN}") for path in (run.model, folder))
    assert adapted != plain
    assert "base_model: owner/toy" in run.read_text("README.md")
