"""Every method and task through `train`: what is said, scored, predicted and reported."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.golden.record import Record
from tests.golden.workspace import DATA, Workspace, real_rows

Golden = Callable[[str], Record]
PAIRS = ["data.path=pairs.csv", "data.text=first", "data.text_pair=second", "data.label=relation", "label_texts={}"]
BYTES = ["model.name_or_path=bytes", "max_length=400"]
GENERATOR = ["classification.yaml", "method=generator"]
CASES = {
    "linear": ["classification.yaml", "method=linear"],
    "linear_pairs": [
        "classification.yaml", "method=linear", *PAIRS, "vectorizer=count", "char_ngrams=[2, 3]", "word_ngrams=null",
        "class_weights=balanced",
    ],
    "linear_dirty": [
        "classification.yaml", "method=linear", "data.path=dirty.csv", "on_bad_rows=drop", "duplicates=remove",
    ],
    "probe": ["classification.yaml", "method=probe"],
    "probe_cls": [  # with much penalty, as the solver else stops at other digits on other processors
        "classification.yaml", "method=probe", "pooling=cls", "normalize=false", "class_weights={sport: 2}", "C=0.001",
    ],
    "encoder": ["classification.yaml"],
    "encoder_pairs": [
        "classification.yaml", *PAIRS, "class_weights=balanced", "freeze=embeddings", "eval_strategy=steps",
        "eval_steps=2", "metric_for_best_model=log_loss", "early_stopping_patience=1", "gradient_accumulation_steps=2",
    ],
    "encoder_lora": ["classification.yaml", "adapter.kind=lora", "layout=padded", "max_length=12"],
    "generator_untuned": [*GENERATOR, "max_steps=null", "num_train_epochs=0", "predict.calibrate=true"],
    "generator_full": [*GENERATOR, "template=plain"],
    "generator_lora": [*GENERATOR, "adapter.kind=lora", "predict.mode=constrained"],
    "generator_qlora": [*GENERATOR, "adapter.kind=qlora", "predict.mode=free"],
    "instruction_untuned": ["instruction.yaml", "max_steps=null", "num_train_epochs=0"],
    "instruction_full": ["instruction.yaml", "eval_strategy=steps", "eval_steps=2"],
    "instruction_padded": ["instruction.yaml", "layout=padded", "template=plain", "max_length=12", "base=false"],
    "instruction_lora": [
        "instruction.yaml", "adapter.kind=lora", "use_rslora=true", "train_on_prompt=true", "prompt.system=Be brief.",
        "template=alpaca-short",
    ],
    "instruction_qlora": ["instruction.yaml", "adapter.kind=qlora", "max_responses=3", "do_sample=true"],
    "instruction_turns": ["instruction.yaml", *BYTES, "data.path=messages.json", "template=human-assistant"],
}  # fmt: skip
"""The words behind `train` that make a run."""
PAGES = ("linear", "instruction_full")
"""Runs whose page is recorded as well as its Markdown twin."""
CARDS = (*PAGES, "encoder", "generator_lora", "instruction_lora", "instruction_untuned")
"""Runs whose model card is recorded."""
REAL = {
    "real_sms_spam": ("sms_spam/SMSSpamCollection.csv.gz", 120, [
        "classification.yaml", "method=linear", "label_texts={}",
    ]),
    "real_ag_news": ("ag_news/test_even.csv.gz", 120, [
        "classification.yaml", "label_texts={}", "data.label_names=[World, Sports, Business, Science]",
    ]),
    "real_alpaca": ("alpaca_gpt4_1k/train.jsonl.gz", 30, ["instruction.yaml", *BYTES]),
    "real_book": ("llms_from_scratch_ch07/instruction-data.json", 30, ["instruction.yaml", *BYTES, "template=alpaca"]),
}  # fmt: skip
"""Source, rows and words of runs on real rows."""


def whole(record: Record, workspace: Workspace, name: str, words: list[str]) -> None:
    """Train, and record what was said and everything that the run directory holds."""
    run = workspace.train(name, words)
    record.add(f"tunesmith train {' '.join(words)}", str(workspace.said[name]))
    predictions = sorted(f"predictions/{path.name}" for path in (run / "predictions").iterdir() if path.stat().st_size)
    names = ["manifest.json", "scores.json", "metrics.jsonl", *predictions, "report.md"]
    names += ["worst.json", "README.md"] if name in CARDS else []
    names += ["report.html"] if name in PAGES else []
    record.files(run, *(each for each in names if (run / each).exists()))
    record.add("files", "\n".join(sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())))
    record.check()


@pytest.mark.parametrize("name", CASES)
def test_train(name: str, workspace: Workspace, golden: Golden) -> None:
    whole(golden(f"train_{name}"), workspace, name, CASES[name])


@pytest.mark.parametrize("name", REAL)
def test_train_on_real_rows(name: str, workspace: Workspace, golden: Golden) -> None:
    source, rows, words = REAL[name]
    if not (DATA / source).exists():
        pytest.skip("the shared data sets are not here")
    path = real_rows(source, workspace.folder / name, rows)
    whole(golden(f"train_{name}"), workspace, name, [*words, f"data.path={path.name}"])
