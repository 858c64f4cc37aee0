"""Which setting a name means: a full name, a name from another tool, or a bare name that one section has."""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import PurePath
from typing import Any

from pydantic import BaseModel

from tunesmith.console import printable, say
from tunesmith.errors import shorten
from tunesmith.recipe.sections import Recipe
from tunesmith.types import COLUMNS

ALIASES = {
    "base_model": "model.name_or_path",
    "model_name_or_path": "model.name_or_path",
    "cutoff_len": "model.max_length",
    "max_seq_length": "model.max_length",
    "sequence_len": "model.max_length",
    "micro_batch_size": "train.per_device_train_batch_size",
    "batch_size": "train.per_device_train_batch_size",
    "num_epochs": "train.num_train_epochs",
    "epochs": "train.num_train_epochs",
    "lr": "train.learning_rate",
    "lr_scheduler": "train.lr_scheduler_type",
    "duplicates": "split.leaks",
    "split.duplicates": "split.leaks",
    "val_size": "split.validation_size",
    "val_set_size": "split.validation_size",
    "dataset": "data.path",
    "dataset_name": "data.path",
    "lora_rank": "adapter.r",
    "lora_r": "adapter.r",
    "lora_target": "adapter.target_modules",
    "lora_target_modules": "adapter.target_modules",
    "bnb_4bit_quant_type": "adapter.quant_type",
    "bnb_4bit_use_double_quant": "adapter.double_quant",
    "bnb_4bit_compute_dtype": "adapter.compute_dtype",
    "drop_rate": "model.dropout",
    "torch_dtype": "model.dtype",
    "torch_compile": "engine.compile",
    "compile": "engine.compile",
    "train_on_inputs": "prompt.train_on_prompt",
    "allowed_max_length": "model.max_length",
    "model_max_length": "model.max_length",
    "model_revision": "model.revision",
    "train_file": "data.train",
    "validation_file": "data.validation",
    "test_file": "data.test",
    "dataset_config": "data.name",
    "dataset_config_name": "data.name",
    "dataset_train_split": "split.train",
    "dataset_test_split": "split.test",
    "dataset_text_field": "data.text",
    "text_column_name": "data.text",
    "text_column_names": "data.text",
    "label_column_name": "data.label",
    "evaluation_strategy": "evaluate.eval_strategy",
    "eval_iter": "evaluate.eval_batches",
    "num_fewshot": "prompt.shots",
}
"""Names that other tools use -> ours. They are accepted anywhere in a recipe or an override, with a note."""
LORA, QLORA, CHAT = {"adapter.kind": "lora"}, {"adapter.kind": "qlora"}, {"prompt.template": "chat"}
MODEL_TEMPLATES = (
    *("chatml", "llama2", "llama3", "llama4", "qwen", "qwen2_5", "qwen3", "qwen3_nothink", "gemma", "gemma2", "gemma3"),
    *("mistral", "phi", "phi_small", "phi4", "deepseek", "deepseek3", "smollm", "smollm2", "vicuna", "zephyr", "yi"),
)
"""LLaMA-Factory's names for the template that a model's tokenizer has."""
CONVERSIONS: dict[str, Mapping[object, Mapping[str, object]]] = {
    "fp16": {True: {"engine.mixed_precision": "fp16"}, False: {}},
    "bf16": {True: {"engine.mixed_precision": "bf16"}, False: {}},
    "use_peft": {True: LORA, False: {}},
    "load_in_4bit": {True: QLORA, False: {}},
    "quantization_bit": {4: QLORA, None: {}},
    "finetuning_type": {"full": {"adapter.kind": "none"}, "lora": LORA},
    "lora_target": {"all": {"adapter.target_modules": "all-linear"}},
    "stage": {"sft": {"task": "instruction"}, "pt": {"task": "instruction", "data.format": "text"}},
    "packing": {True: {}, False: {"engine.layout": "padded"}},
    "assistant_only_loss": {True: {"prompt.train_on_prompt": False}, False: {"prompt.train_on_prompt": True}},
    "completion_only_loss": {True: {"prompt.train_on_prompt": False}, False: {"prompt.train_on_prompt": True}},
    "max_steps": {-1: {"train.max_steps": None}},
    "optim": {
        **{name: {"train.optim": "adamw"} for name in ("adamw_torch", "adamw_torch_fused", "adamw_hf")},
        **{name: {"train.optim": "adamw_8bit"} for name in ("adamw_bnb_8bit", "paged_adamw_8bit")},
        "lion_32bit": {"train.optim": "lion"},
    },
    "template": {"default": {"prompt.template": "human-assistant"}, **dict.fromkeys(MODEL_TEMPLATES, CHAT)},
    "load_in_8bit": {False: {}},
    "push_to_hub": {False: {}},
    "streaming": {False: {}},
    "resume_from_checkpoint": {None: {}, False: {}},
    "do_train": {True: {}},
    "do_eval": {True: {}, False: {"evaluate.eval_strategy": "no"}},
    "do_predict": {True: {}},
}
"""Values that other tools write -> the settings that they mean here; none where it is so anyway."""
NO_EFFECT = (
    *("dataloader_num_workers", "preprocessing_num_workers", "dataset_num_proc", "overwrite_cache", "ddp_timeout"),
    *("overwrite_output_dir", "plot_loss", "save_only_model", "logging_dir", "remove_unused_columns", "flash_attn"),
    *(
        "attn_implementation",
        "per_device_eval_batch_size",
        "group_by_length",
        "pad_to_max_length",
        "use_fast_tokenizer",
    ),
    *("gradient_checkpointing_kwargs", "run_name", "dataset_dir", "lora_task_type", "logging_strategy", "use_cache"),
)
"""What other tools set and tunesmith decides itself, or does in one way only."""
FOR_INSTRUCTIONS = ("template", "finetuning_type", "use_peft", "packing", "dataset_text_field", "assistant_only_loss")
"""Names that stand in files for instruction tuning alone, which do not say that they are."""
SECTION_SETTINGS = {"model": "model.name_or_path", "data": "data.path", "adapter": "adapter.kind"}
"""What a section's own name means where a value follows it: `model=xlnet-base-cased`."""
APART = {"endpoint", "judge", "serve"}
"""Sections whose settings need the section's name: `model` and `temperature` alone mean others."""
TRAINING = tuple(name for name in Recipe.model_fields if name not in APART)
"""The sections that a training uses. They are one for all methods, since a comparison trains several with one list."""


def fields(model: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every setting as (`section.name`, pydantic field), in the order of the file."""
    for name, field in model.model_fields.items():
        if inside := section(field):
            yield from fields(inside, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def section(field: Any) -> type[BaseModel] | None:
    """Return the section that a field is; None for a setting."""
    kind = None if field is None else field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def settings(name: str, value: Any, sections: Collection[str], problems: list[str]) -> Mapping[str, Any]:
    """Return what `name: value` sets, by full names: its own setting, or those that another tool means by it."""
    if name in NO_EFFECT:
        say(f"note: {name} has no effect here")
        return {}
    known = CONVERSIONS.get(name, {})
    meant = known.get(value) if isinstance(value, (str, int, float, type(None))) else None
    if meant is not None:
        what = ", ".join(f"{setting}={value}" for setting, value in meant.items()) or "what is done anyway"
        say(f"note: {name}={value} means {what} here")
        return meant
    if known and name not in ALIASES and not any(full.endswith(f".{name}") for full, _ in fields()):
        problems.append(f"{name}={shorten(str(value))}: not offered; {name} may be {' or '.join(map(str, known))}")
        return {}
    full = setting(name, sections, problems)
    return {} if full is None else {full: value}


def is_setting(name: str, sections: Collection[str]) -> bool:
    """Return whether `name` begins as one of these sections' settings does, with or without the section's name."""
    return name.partition(".")[0] in {part for full, _ in fields() if _used(full, sections) for part in full.split(".")}


def setting(name: str, sections: Collection[str], problems: list[str]) -> str | None:
    """Return the full name of the setting that `name` means; None, and a problem, where it has none or several.

    sections: those that are used, or single settings of them.
    """
    names = [full for full, _ in fields()]
    if name in names or any(name.startswith(f"{full}.") for full in names):  # `train.class_weights.spam`
        if sections is TRAINING or _used(name, sections):  # a recipe to train holds the others too
            return name
        problems.append(f"{name}: this command does not use it; it uses {', '.join(sections)}")
        return None
    homes = [full for full in names if full.endswith(f".{name}")]  # also `guard.mask`
    known = ALIASES.get(name) or SECTION_SETTINGS.get(name)
    candidates = [known] if known and _used(known, sections) else [full for full in homes if _used(full, sections)]
    if len(candidates) == 1:
        if name != candidates[0].rpartition(".")[2]:
            say(f"note: {name} means {candidates[0]} here")
        return candidates[0]
    if candidates:
        problems.append(f"{name}: ambiguous, choose {' or '.join(candidates)}")
    elif elsewhere := [*filter(None, [known]), *homes]:
        problems.append(f"{name}: this run uses no setting of this name; did you mean {' or '.join(elsewhere)}?")
    else:
        problems.append(unknown(name))
    return None


def overrides_of(settings: Mapping[str, object]) -> list[str]:
    """Return settings given as keyword arguments as `name=value`.

    `learning_rate=1e-4` is a setting by a name that only one section has, `linear={"C": 3}` are settings of a section,
    and `text_column="review"` names a column. Raises TypeError for a value that no recipe can hold.
    """
    words = []
    for name, value in settings.items():
        if isinstance(value, Mapping) and section(Recipe.model_fields.get(name)):
            words += [f"{name}.{inner}={_as_yaml(inner, cell)}" for inner, cell in value.items()]
        else:
            words.append(f"{COLUMNS.get(name, name)}={_as_yaml(name, value)}")
    return words


def _as_yaml(name: str, value: object) -> str:
    def plain(other: object) -> object:
        if hasattr(other, "tolist"):  # of numpy
            return other.tolist()
        if isinstance(other, PurePath):
            return str(other)
        raise TypeError(f"{name}={shorten(repr(other))}: no setting has values of type {type(other).__name__}")

    return printable(json.dumps(value, default=plain, ensure_ascii=False))


def is_foreign(name: str) -> bool:
    """Return whether a name is another tool's."""
    return name in ALIASES or name in CONVERSIONS or name in NO_EFFECT


def unknown(name: str) -> str:
    """Return the problem with a name that no setting has, with the nearest one."""
    names = [full for full, _ in fields()] + list(Recipe.model_fields)
    near = difflib.get_close_matches(name, names, 1, 0.6)
    if not near:  # the right name in the wrong section, or without one
        by_last = {full.split(".")[-1]: full for full in names}
        near = [by_last[last] for last in difflib.get_close_matches(name.split(".")[-1], by_last, 1, 0.7)]
    return f"{shorten(name)}: no such setting" + (f"; did you mean {near[0]}?" if near else "")


def _used(name: str, sections: Collection[str]) -> bool:
    return any(name == used or name.startswith(f"{used}.") for used in sections)
