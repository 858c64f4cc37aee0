"""The sections for causal language models: prompts, adapters, classification and generation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from tunesmith.recipe.values import (
    BOUNDED,
    Count,
    Fraction,
    ModelName,
    Positive,
    Section,
    as_list,
    label_keys,
    no_as_none,
)


class Prompt(Section):
    """How a `generator` is prompted: the template, and for labels and numbers the instruction and their texts."""

    template: str = "auto"
    """`alpaca`, `alpaca-short` (one preamble, with and without input), `human-assistant`, `classify`, `chat` (the
    tokenizer's own), `plain`, or a Jinja file. `auto` is `classify` for labels and numbers; for instructions `chat`
    where the tokenizer has a template, else `alpaca`."""
    system: str | None = None
    """A system message before every conversation that has none."""
    instruction: str | None = None
    """Instruction before each text that gets labels or a number; `{labels}` is replaced by their texts. Null asks
    for the class, the labels that apply or the number, and names them if there are at most 20."""
    label_texts: Annotated[dict[str, str], BeforeValidator(label_keys)] = Field(default={})
    """The answer that stands for a label or number (verbalizer), such as `{neg: negative}`; others are answered as they
    are."""
    shots: Annotated[int, Field(ge=0), BOUNDED] = 0
    """Training rows that every prompt shows with their answers before its text (few-shot); a text's own row is never
    among them. Shots that do not fit beside a text are left out, the first ones first, and counted."""
    shot_selection: Literal["random", "nearest"] = "random"
    """`random`: the same shots for every text, drawn with the seed, each label equally often, or low and high numbers
    alike. `nearest`: for each text the training texts with the most similar embeddings, the most similar last (not for
    task `instruction`)."""
    shot_encoder: ModelName = "pypi:all-minilm-l6-v2"
    """The frozen encoder whose embeddings say which texts are `nearest`."""
    train_on_prompt: bool = False
    """Also train on the tokens of the prompt."""
    truncation: Literal["truncate", "drop", "error"] = "truncate"
    """What to do with conversations over `model.max_length`: shorten the prompt (never the end of an answer), drop the
    row, or stop with an error. All of them are counted."""


class Adapter(Section):
    """Low-rank adapters on frozen weights (PEFT), for `encoder` and `generator`."""

    kind: Annotated[Literal["none", "lora", "qlora"], BeforeValidator(no_as_none)] = "none"
    """Full training, LoRA, or LoRA on weights in 4 bits (bitsandbytes)."""
    r: Count = 16
    """Rank of the matrices."""
    lora_alpha: Positive = 32.0
    """Scale: the update is multiplied by lora_alpha / r."""
    lora_dropout: Fraction = 0.05
    """Dropout before the matrices."""
    target_modules: Annotated[tuple[str, ...], BeforeValidator(as_list)] = ("all-linear",)
    """Names of the modules that get adapters; `all-linear` is every linear layer except the head."""
    use_dora: bool = False
    """Weight-decomposed LoRA: direction and magnitude are learned separately."""
    use_rslora: bool = False
    """Scale by lora_alpha / sqrt(r) instead."""
    quant_type: Literal["nf4", "fp4"] = "nf4"
    """4-bit format of `qlora`."""
    double_quant: bool = True
    """For `qlora`: quantize the quantization constants too."""
    compute_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """For `qlora`: the number format in which the 4-bit weights are multiplied."""


class Predict(Section):
    """How a `generator` predicts labels and numbers."""

    mode: Literal["score", "constrained", "free"] = "score"
    """`score` every answer in one forward pass: the text of each label, for `multilabel` each label with yes and with
    no, for `regression` each number; or generate, `constrained` to the labels' texts (`classification` alone) or `free`
    (not `regression`), where anything else counts as invalid, and labels have no probabilities. For `multilabel`,
    `free` writes a list of labels, and training teaches that list instead of yes and no."""
    normalize_length: bool = True
    """Divide a label's log-probability by its number of tokens, for task `classification`."""
    calibrate: bool = False
    """Divide by the probabilities for texts without content, such as `N/A` (contextual calibration)."""


class Generate(Section):
    """How answers are generated. Greedy unless `do_sample` is set."""

    engine: Literal["auto", "torch", "onnx", "openvino", "llama-cpp"] = "auto"
    """What computes the answers of a finished run: torch, or the export `onnx`, `openvino` or `gguf` that lies in the
    run; `auto` takes the fastest of those whose parity report is good. Training always uses torch."""
    max_new_tokens: Count = 256
    """Maximum tokens of an answer."""
    do_sample: bool = False
    """Sample tokens instead of taking the most likely one; the recipe's seed makes it repeatable."""
    temperature: Positive = 1.0
    """For sampling: below 1 sharper, above 1 flatter."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """For sampling: from the smallest set of tokens with this much probability."""
    top_k: Annotated[int, Field(ge=0), BOUNDED] = 0
    """For sampling: from this many most likely tokens; 0 for all."""
    repetition_penalty: Positive = 1.0
    """Values above 1 make repeated tokens less likely."""
    batch_size: Count = 64
    """Most prompts answered at once; fewer where their keys and values would take over a quarter of the free memory."""
