"""The runs that golden tests train and give to other commands."""

from __future__ import annotations

import shutil

from tests.golden.workspace import Workspace

PAIRS = ["data.path=pairs.csv", "data.text=first", "data.text_pair=second", "data.label=relation", "label_texts={}"]
BYTES = ["model.name_or_path=bytes", "max_length=400"]
GENERATOR = ["classification.yaml", "method=generator"]
CASES = {
    "linear": ["classification.yaml", "method=linear"],
    "linear_pairs": [
        "classification.yaml",
        "method=linear",
        *PAIRS,
        "vectorizer=count",
        "char_ngrams=[2, 3]",
        "word_ngrams=null",
        "class_weights=balanced",
    ],
    "linear_dirty": [
        "classification.yaml",
        "method=linear",
        "data.path=dirty.csv",
        "on_bad_rows=drop",
        "duplicates=remove",
    ],
    "probe": ["classification.yaml", "method=probe"],
    "probe_cls": [  # with much penalty, as the solver else stops at other digits on other processors
        "classification.yaml",
        "method=probe",
        "pooling=cls",
        "normalize=false",
        "class_weights={sport: 2}",
        "C=0.001",
    ],
    "encoder": ["classification.yaml"],
    "encoder_pairs": [
        "classification.yaml",
        *PAIRS,
        "class_weights=balanced",
        "freeze=embeddings",
        "eval_strategy=steps",
        "eval_steps=2",
        "metric_for_best_model=log_loss",
        "early_stopping_patience=1",
        "gradient_accumulation_steps=2",
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
        "instruction.yaml",
        "adapter.kind=lora",
        "use_rslora=true",
        "train_on_prompt=true",
        "prompt.system=Be brief.",
        "template=alpaca-short",
    ],
    "instruction_qlora": ["instruction.yaml", "adapter.kind=qlora", "max_responses=3", "do_sample=true"],
    "instruction_turns": ["instruction.yaml", *BYTES, "data.path=messages.json", "template=human-assistant"],
}
"""The words behind `train` that make a run."""


def made(workspace: Workspace, *names: str) -> list[str]:
    """Copies of some of these runs, as some commands write into them."""
    for name in names:
        if not (workspace.folder / "copies" / name).exists():
            shutil.copytree(workspace.train(name, CASES[name]), workspace.folder / "copies" / name)
    return [f"copies/{name}" for name in names]
