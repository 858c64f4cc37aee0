"""The settings of training by gradient."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from tunesmith.recipe.values import BOUNDED, Count, Fraction, Plugin, Positive, Section, as_list, weights


class Train(Section):
    """Training of `encoder` and `generator`. Names and meanings are those of Hugging Face's TrainingArguments."""

    learning_rate: Positive = 5e-5
    """Peak learning rate. Unless set, 2e-4 with an adapter, and 1e-4 of `encoder:contrastive`. `lion` needs 3 to 10
    times less than `adamw`."""
    num_train_epochs: Annotated[float, Field(ge=0)] = 3.0
    """Passes over the training split; fractions work. 0 leaves a `generator` untuned. Unless set, 12 of
    `encoder:contrastive`, within `max_pairs`."""
    max_steps: Count | None = None
    """Stop after this many optimizer steps, whatever the epochs."""
    per_device_train_batch_size: Count = 16
    """Examples of a step on one device; the step's total is this x accumulation x processes. Unless set, 64 of
    `encoder:contrastive`, which compares all of a step with each other."""
    gradient_accumulation_steps: Count = 1
    """Multiplies the examples of a step."""
    lr_scheduler_type: Literal["constant", "linear", "cosine"] = "linear"
    """Shape of the learning rate after the warm-up."""
    warmup_ratio: Fraction = 0.1
    """Share of the steps over which the learning rate rises from 0. Unless set, 0 of `encoder:contrastive`."""
    warmup_steps: Annotated[int, Field(ge=0), BOUNDED] | None = None
    """Number of these steps, instead of `warmup_ratio`."""
    optim: Literal["adamw", "adafactor", "lion", "adamw_8bit", "lion_8bit"] = "adamw"
    """Optimizer. `adafactor` keeps a fraction of AdamW's state, `lion` half; `lion` and those with 8-bit state need
    bitsandbytes (`tunesmith[qlora]`)."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Decoupled weight decay; biases and norms are left out."""
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    """Clip the gradient to this norm; 0 turns clipping off."""
    freeze: Literal["none", "embeddings", "body"] = "none"
    """Weights that are not trained: none (full training), the embeddings, or the whole body (only the head is)."""
    loss: Literal["focal", "mse", "huber", "ordinal"] | Plugin | None = None
    """Instead of cross-entropy, `focal` (Lin et al. 2017; `encoder` only), in which rows that are right already count
    less; or a loss of your own, as `module:name`: from logits (rows x classes, float32) and targets (rows) to one value
    per row. See docs/reference/engine.md. Of task `regression`, `mse` (the default) or `huber`, which outliers move
    less; both see numbers with standard deviation 1. `ordinal`, of ordered labels: the questions "is it above k?", as
    in CORAL (arXiv:1901.07884)."""
    focal_gamma: Annotated[float, Field(ge=0)] = 2.0
    """Focusing parameter of the focal loss, the exponent of 1 - p; 0 is cross-entropy."""
    contrastive_temperature: Positive = 0.1
    """Temperature of the supervised contrastive loss (arXiv:2004.11362) of `encoder:contrastive`: the lower, the more
    the most similar texts count."""
    max_pairs: Count = 500_000
    """Pairs of texts that `encoder:contrastive` compares at most, which bounds its steps: each compares all of its
    texts with each other."""
    callbacks: Annotated[tuple[Plugin, ...], BeforeValidator(as_list)] = ()
    """Classes of your own, as `module:name`, that are called after steps, evaluations and checkpoints."""
    neftune_noise_alpha: Positive | None = None
    """NEFTune (arXiv:2310.05914): add uniform noise to the embeddings in training, of this size; 5 is usual."""
    sampling: Literal["shuffled", "balanced"] = "shuffled"
    """Training rows of a step: `shuffled`, every row once an epoch; or `balanced`, drawn with replacement so that each
    label is equally likely (classification with `encoder` or `generator`). An epoch has the same number of steps."""
    class_weights: Annotated[Literal["none", "balanced"] | dict[str, Positive], BeforeValidator(weights)] = "none"
    """Weights of the classes in the loss, for every method but `generator`: `balanced` (inverse frequency) or
    `{label: weight}`."""
