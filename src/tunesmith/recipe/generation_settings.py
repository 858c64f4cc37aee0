"""The sections of a causal language model: how it is asked, adapted, read as a classifier, and made to answer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from tunesmith.recipe.values import Count, Fraction, Positive, Section, as_list, label_keys, no_as_none


class Prompt(Section):
    """How a `generator` is asked: the template, and for classification the instruction and the labels' texts."""

    template: str = "auto"
    """`alpaca`, `alpaca-short` (one preamble, with and without input), `human-assistant`, `classify`, `chat` (the
    tokenizer's own), `plain`, or a Jinja file. `auto` is `classify` for classification; for instructions `chat` where
    the tokenizer has a template, else `alpaca`."""
    system: str | None = None
    """A system message before every conversation that has none."""
    instruction: str | None = None
    """What is asked of each text in classification; `{labels}` stands for the texts of the labels. Null asks for the
    class, and names the labels where they are few."""
    label_texts: Annotated[dict[str, str], BeforeValidator(label_keys)] = Field(default={})
    """The answer that stands for a label (verbalizer), such as `{neg: negative}`; others are answered by their name."""
    train_on_prompt: bool = False
    """Learn the prompt's tokens too, not only the answers."""
    truncation: Literal["truncate", "drop", "error"] = "truncate"
    """Of conversations over `model.max_length`: shorten the prompt (an answer never loses its end), leave out, or
    stop. Counted in every case."""


class Adapter(Section):
    """Training of small matrices beside frozen weights (PEFT), for `encoder` and `generator`."""

    kind: Annotated[Literal["none", "lora", "qlora"], BeforeValidator(no_as_none)] = "none"
    """Full training, LoRA, or LoRA on weights in 4 bits (bitsandbytes)."""
    r: Count = 16
    """Rank of the matrices."""
    lora_alpha: Positive = 32.0
    """Scale: the update is multiplied by lora_alpha / r."""
    lora_dropout: Fraction = 0.05
    """Dropout before the matrices."""
    target_modules: Annotated[tuple[str, ...], BeforeValidator(as_list)] = ("all-linear",)
    """Names of the modules that get matrices; `all-linear` is every linear layer but the head."""
    use_dora: bool = False
    """Weight-decomposed LoRA: direction and magnitude learn apart."""
    use_rslora: bool = False
    """Scale by lora_alpha / sqrt(r) instead."""
    quant_type: Literal["nf4", "fp4"] = "nf4"
    """4-bit format of `qlora`."""
    double_quant: bool = True
    """Of `qlora`: quantize the quantization constants too."""
    compute_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of `qlora`: the number format that the 4-bit weights are multiplied in."""


class Predict(Section):
    """How a `generator` classifies."""

    mode: Literal["score", "constrained", "free"] = "score"
    """`score` every label's text in one forward pass; or generate, `constrained` to the labels' texts or `free`, where
    what is no label counts as invalid."""
    normalize_length: bool = True
    """Divide a label's log-probability by its number of tokens."""
    calibrate: bool = False
    """Divide by what the model says of texts without content, such as `N/A` (contextual calibration)."""


class Generate(Section):
    """How answers are generated. Greedy unless `do_sample` is set."""

    max_new_tokens: Count = 256
    """Longest answer in tokens."""
    do_sample: bool = False
    """Draw tokens instead of taking the most likely one; the recipe's seed makes it repeatable."""
    temperature: Positive = 1.0
    """Of sampling: below 1 sharper, above 1 flatter."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Of sampling: from the smallest set of tokens with this much probability."""
    top_k: Annotated[int, Field(ge=0)] = 0
    """Of sampling: from the most likely tokens only; 0 for all."""
    repetition_penalty: Positive = 1.0
    """Above 1 makes tokens that were used less likely."""
    batch_size: Count = 8
    """Prompts answered at once."""
