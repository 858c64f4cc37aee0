"""The recipe's typed, frozen sections. A default stands here once; help, `init` and docs/recipe.md come from here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


def _no_as_text(value: Any) -> Any:
    """YAML reads a bare `no` as false; where a setting has the word `no`, false means it."""
    return "no" if value is False else value


def _weights(value: Any) -> Any:
    """A bare `no` means none; labels that YAML reads as numbers are names all the same."""
    if isinstance(value, dict):
        return {_label(key): weight for key, weight in value.items()}
    return "none" if value is False or value is None else value


def _labels(value: Any) -> Any:
    return [_label(item) for item in value] if isinstance(value, (list, tuple)) else value


def _label(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"YAML reads a bare yes, no, on or off as {value}: put labels like these in quotes")
    return str(value) if isinstance(value, int) else value


def _as_list(value: Any) -> Any:
    """One name alone is a list of one; `none` is the empty list."""
    if isinstance(value, str):
        return () if value == "none" else (value,)
    return value or ()


Fraction = Annotated[float, Field(ge=0, lt=1)]
Size = Annotated[int, Field(ge=0)] | Fraction
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Settings of one concern: unknown keys are errors, values cannot be changed after checking."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=())


class Model(Section):
    """The pretrained model under `probe` and `encoder`; `linear` needs none."""

    name_or_path: str = "pypi:all-minilm-l6-v2"
    """A hub id, a local folder, or a `pypi:` asset (models that come in a PyPI wheel, no hub needed)."""
    revision: str | None = None
    """Branch, tag or commit of a hub model; give a commit to pin it."""
    max_length: Annotated[int, Field(ge=2)] = 256
    """Longest input in tokens, special tokens included; what is cut is counted and reported."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Only for sources you trust."""


class Data(Section):
    """Where the rows come from and what their columns mean."""

    path: str | None = None
    """One source: a file (csv, tsv, json, jsonl, parquet; also .gz), a folder, a hub id, or a `pypi:` asset."""
    train: str | None = None
    """Instead of `path`: the training file."""
    validation: str | None = None
    """The validation file, if there is one."""
    test: str | None = None
    """The test file, if there is one."""
    name: str | None = None
    """Configuration of a hub data set, for instance `rte` of `glue`."""
    revision: str | None = None
    """Branch, tag or commit of a hub data set."""
    text: str = "text"
    """Column with the text."""
    text_pair: str | None = None
    """Column with the second text, for sentence pairs."""
    label: str = "label"
    """Column with the label: strings or integers."""
    label_names: Annotated[tuple[str, ...] | None, BeforeValidator(_labels)] = None
    """Names for integer labels, in order from 0; a hub data set brings its own."""
    encoding: str = "utf-8"
    """Of text files. A list such as `utf-8,cp1252` is tried in order, file by file; the second choice is counted."""
    on_bad_rows: Literal["error", "drop"] = "error"
    """Empty or null texts, missing or unseen labels, ragged or broken lines: stop and name them, or drop and count."""

    @model_validator(mode="after")
    def _one_source(self) -> Data:
        if self.path and self.train:
            raise ValueError("path and train exclude each other: one source, or one file a split")
        if (self.validation or self.test) and not (self.train or self.path):
            raise ValueError("validation and test need train beside them")
        return self


class Split(Section):
    """How rows become train, validation and test. Splits that the data brings are kept; missing ones are made."""

    validation_size: Size = 0.1
    """Share (below 1) or number of rows to hold out for choosing; only used where the data has no validation split."""
    test_size: Size = 0.2
    """Share (below 1) or number of rows to hold out for the report; only used where the data has no test split."""
    column: str | None = None
    """Column that says which split a row belongs to (train, validation or test)."""
    train: str = "train"
    """Name of the training split on a hub or in `column`; on a hub slices such as `train[:80%]` work."""
    validation: str = "validation"
    """Name of the validation split on a hub or in `column`. `none` makes one from train."""
    test: str = "test"
    """Name of the test split on a hub or in `column`. `none` makes one from train."""
    group: str | None = None
    """Column whose equal values stay together (an author, a thread, a patient)."""
    duplicates: Literal["report", "remove"] = "report"
    """Texts that stand in two splits: report them, or remove them from the split that is learned from."""
    max_samples: Count | None = None
    """At most so many rows of each split, drawn with the seed and stratified; for quick trials."""


class Linear(Section):
    """Bag of words and logistic regression; `C` and `max_iter` also serve `probe`."""

    vectorizer: Literal["tfidf", "count"] = "tfidf"
    """Weights of the n-grams: TF-IDF with sublinear counts and unit length, or plain counts."""
    word_ngrams: tuple[int, int] | None = (1, 2)
    """Shortest and longest word n-gram, or null for none."""
    char_ngrams: tuple[int, int] | None = None
    """Shortest and longest character n-gram (within words), or null for none."""
    lowercase: bool = True
    """Fold case before counting."""
    min_df: Count = 2
    """Leave out n-grams that stand in fewer training texts."""
    max_features: Count | None = None
    """Keep only the most frequent n-grams."""
    C: Positive = 10.0
    """Inverse strength of the L2 penalty."""
    max_iter: Count = 1000
    """Most iterations of the solver."""

    @model_validator(mode="after")
    def _ngrams(self) -> Linear:
        for name in ("word_ngrams", "char_ngrams"):
            pair = getattr(self, name)
            if pair is not None and not 1 <= pair[0] <= pair[1]:
                raise ValueError(f"{name} needs two numbers, 1 <= shortest <= longest, not {list(pair)}")
        if self.word_ngrams is None and self.char_ngrams is None:
            raise ValueError("word_ngrams and char_ngrams cannot both be null")
        return self


class Probe(Section):
    """A frozen encoder with logistic regression on its embeddings."""

    pooling: Literal["mean", "cls"] = "mean"
    """The text's embedding: the mean over its tokens, or the first token."""
    normalize: bool = True
    """Scale every embedding to unit length."""


class Train(Section):
    """Training of `encoder`. Names and meanings are those of Hugging Face's TrainingArguments."""

    learning_rate: Positive = 5e-5
    """Peak learning rate of AdamW."""
    num_train_epochs: Positive = 3.0
    """Passes over the training split; fractions work."""
    max_steps: Count | None = None
    """Stop after so many optimizer steps, whatever the epochs."""
    per_device_train_batch_size: Count = 16
    """Examples of a step on one device; the step's total is this x accumulation x processes."""
    gradient_accumulation_steps: Count = 1
    """Multiplies the examples of a step."""
    lr_scheduler_type: Literal["constant", "linear", "cosine"] = "linear"
    """Shape of the learning rate after the warm-up."""
    warmup_ratio: Fraction = 0.1
    """Share of the steps over which the learning rate rises from 0."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """AdamW's decoupled weight decay; biases and norms are left out."""
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    """Clip the gradient to this norm; 0 turns clipping off."""
    freeze: Literal["none", "embeddings", "body"] = "none"
    """What stays as pretrained: nothing (full training), the embeddings, or the whole body (only the head learns)."""
    class_weights: Annotated[Literal["none", "balanced"] | dict[str, Positive], BeforeValidator(_weights)] = "none"
    """Weights of the classes in the loss, for every method: `balanced` (inverse frequency) or `{label: weight}`."""


class Engine(Section):
    """How the work of training is done: speed, memory and safety. Of these only the precision can change a result."""

    max_tokens_per_micro_batch: Count | Literal["auto"] = "auto"
    """Most tokens, padding included, in memory at once; `auto` suits the device. Halved once if memory runs out."""
    mixed_precision: Annotated[Literal["no", "bf16", "fp16", "auto"], BeforeValidator(_no_as_text)] = "no"
    """Autocast of the forward pass; `auto` measures float32 against bf16 and takes the faster."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third slower."""
    save_strategy: Annotated[Literal["epoch", "steps", "no"], BeforeValidator(_no_as_text)] = "epoch"
    """Write a checkpoint to resume from after each epoch, every `save_steps` steps, or only when interrupted."""
    save_steps: Count = 500
    """Steps between checkpoints where `save_strategy` is `steps`."""
    save_total_limit: Count = 2
    """Checkpoints to keep; the newest good one is never deleted, and the best weights lie in `model/`."""


class Evaluate(Section):
    """When the validation split is looked at, what counts as better, and what the report shows."""

    eval_strategy: Annotated[Literal["epoch", "steps", "no"], BeforeValidator(_no_as_text)] = "epoch"
    """Evaluate on validation after each epoch, every `eval_steps` steps, or never."""
    eval_steps: Count = 100
    """Steps between evaluations where `eval_strategy` is `steps`."""
    metric_for_best_model: Literal["macro_f1", "accuracy", "balanced_accuracy", "mcc", "log_loss"] = "macro_f1"
    """What decides which checkpoint is best and when to stop early; measured on validation."""
    load_best_model_at_end: bool = True
    """End with the best checkpoint instead of the last."""
    early_stopping_patience: Count | None = None
    """Stop after so many evaluations without a better one."""
    logging_steps: Count = 10
    """Steps between lines in metrics.jsonl and on the screen."""
    report_to: Annotated[tuple[Literal["tensorboard", "wandb", "mlflow"], ...], BeforeValidator(_as_list)] = ()
    """Also send metrics to these trackers."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Of every interval and, as 1 - confidence, the level of every test."""
    bootstrap_samples: Annotated[int, Field(ge=100)] = 2000
    """Resamples behind bootstrap intervals and tests."""


class Recipe(Section):
    """One run, completely: the same recipe and seed give the same scores and weights on the same machine."""

    task: Literal["classification"] = "classification"
    """What is learned."""
    method: Literal["linear", "probe", "encoder"] = "encoder"
    """How: bag of words + logistic regression, frozen encoder + logistic regression, or a fine-tuned encoder."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    """Of splits, initialisation, order and dropout."""
    output_dir: str = "runs"
    """Folder in which run directories are made."""
    model: Model = Model()
    data: Data = Data()
    split: Split = Split()
    linear: Linear = Linear()
    probe: Probe = Probe()
    train: Train = Train()
    engine: Engine = Engine()
    evaluate: Evaluate = Evaluate()
