"""Held-out rows that two processes divide are predicted as one process predicts them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import tunesmith
from tests import forked, tiny
from tunesmith import processes
from tunesmith.runs import Run

TRAINED = ["num_train_epochs=2", "learning_rate=1e-3", "eval_strategy=steps", "eval_steps=3"]
UNTUNED = ["num_train_epochs=0"]
TOPICS = ["method=generator", "template=plain"]
ANSWERS = ["task=instruction", "template=plain", "num_samples=1", "max_responses=9", "max_new_tokens=3"]
CASES = {
    "linear": ("bert", ["method=linear"]),
    "probe": ("bert", ["method=probe", "max_length=12", "evaluate.slices=[length]"]),
    "encoder": ("bert", ["method=encoder", "max_length=12", *TRAINED]),
    "contrastive": ("bert", ["method=encoder:contrastive", "layout=padded", *TRAINED]),
    "label tree": ("llama", [*TOPICS, "adapter.kind=lora", "lora_dropout=0", *TRAINED]),
    "nearest shots": ("llama", [*TOPICS, *UNTUNED, "shots=2", "shot_selection=nearest", "max_length=300"]),
    "free": ("llama", [*TOPICS, *UNTUNED, "predict.mode=free"]),
    "answers": ("llama", [*ANSWERS, *TRAINED]),
    "stream": ("llama", [*ANSWERS, *TRAINED, "data.streaming=true", "shuffle_buffer=9", "max_steps=7"]),
    "padded answers": ("llama", [*ANSWERS, *TRAINED, "layout=padded"]),
}
"""Model family, and settings."""


def numbers(value: Any) -> list[float]:
    """All fractions in a record, in their order."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [value] if isinstance(value, float) else [number for part in parts for number in numbers(part)]


def without_numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_numbers(part) for name, part in value.items()}
    if isinstance(value, list):
        return [without_numbers(part) for part in value]
    return 0.0 if isinstance(value, float) else value


def predictions(run: Run, split: str) -> Any:
    path = run.path / "predictions" / f"{split}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else None


@pytest.mark.parametrize("case", CASES)
def test_two_processes_predict_what_one_predicts(case: str, tmp_path: Path) -> None:
    """Labels, answers and notes are equal, probabilities within 1e-6, losses within 1e-6 of themselves."""
    family, settings = CASES[case]
    rows = [
        {"instruction": "Topic?", "input": text, "output": label, "text": text, "label": label}
        for text, label in tiny.texts(80)
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    bert = tiny.model("bert", tmp_path / "bert", **dropout)
    model = bert if family == "bert" else tiny.generator(family, tmp_path / family)
    content = {
        "data": {"path": str(tmp_path / "rows.json")},
        "model": {"name_or_path": str(model)},
        "split": {"test_size": 23, "validation_size": 9},
        "prompt": {"shot_encoder": str(bert)},
        "evaluate": {"bootstrap_samples": 100, "num_samples": 1},
    }
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(content))
    size = "per_device_train_batch_size"
    alone = tunesmith.train(recipe, [*settings, f"{size}=10"], run_dir=tmp_path / "one")
    words = ["train", str(recipe), *settings, f"{size}=5", "--run-dir", str(tmp_path / "two")]
    forked.run(forked.command, *words, environments=forked.ranks(2, ACCELERATE_USE_CPU="true"))
    both = Run(tmp_path / "two")
    assert predictions(both, "test")
    for split in ("test", "validation", "base"):
        one, two = predictions(alone, split), predictions(both, split)
        assert without_numbers(two) == without_numbers(one)
        np.testing.assert_allclose(numbers(two), numbers(one), rtol=1e-6, atol=1e-6)
    one, two = alone.read("scores.json"), both.read("scores.json")
    assert without_numbers(two) == without_numbers(one)
    np.testing.assert_allclose(numbers(two), numbers(one), rtol=1e-6, atol=1e-5)  # a perplexity is in the hundreds
    assert both.finished.notes.cut == alone.finished.notes.cut
    assert both.finished.notes.cut_rows == alone.finished.notes.cut_rows
    assert both.finished.data == alone.finished.data
    assert both.finished.validation == pytest.approx(alone.finished.validation, abs=1e-5)


def share_and_tell() -> None:
    worked_on = []

    def double(items: Any) -> list[int]:
        worked_on.extend(items)
        return [2 * item for item in items]

    alone = processes.share(range(5), double)
    with processes.sharing():
        shared = processes.share(range(5), double)
        nothing = processes.share([], double)
        with processes.sharing(False):
            inner = processes.share([7], double)
    print(json.dumps([alone, shared, nothing, inner, worked_on]))


def test_work_is_divided_where_all_processes_do_it() -> None:
    """Three processes, five items: each does every third, and all have all results; otherwise each works alone."""
    said = [
        json.loads(line)
        for line in forked.run(share_and_tell, environments=forked.ranks(3, ACCELERATE_USE_CPU="true")).splitlines()
    ]
    whole = list(range(5))
    doubled = [2 * item for item in whole]
    assert [line[:4] for line in said] == [[doubled, doubled, [], [14]]] * 3
    assert sorted(line[4][5:-1] for line in said) == [[0, 3], [1, 4], [2]]
