"""The recipe's typed, frozen sections. Defaults are set only here; help, `init` and docs/recipe.md are derived."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from tunesmith.recipe.decide_settings import Decide
from tunesmith.recipe.generation_settings import Adapter, Generate, Predict, Prompt
from tunesmith.recipe.judge_settings import Judge
from tunesmith.recipe.names import DECIDING, METHODS, TASKS, BestMetric, ComparedMetric, OneOf
from tunesmith.recipe.serve_settings import Serve
from tunesmith.recipe.train_settings import Train
from tunesmith.recipe.values import (
    BOUNDED,
    Count,
    Fraction,
    ModelName,
    Plugin,
    Positive,
    Section,
    Size,
    Tree,
    as_list,
    label_keys,
    labels,
    no_as_text,
    numbers,
)

GENERATOR = "pypi:smollm2-135m-instruct"
"""The default causal language model of `generator`."""
LONGEST_NGRAM = 20
"""Of longer n-grams hardly any occurs twice, and their number exhausts the memory."""


class Model(Section):
    """The pretrained model under `probe`, `encoder` and `generator`; `linear` needs none."""

    name_or_path: ModelName = "pypi:all-minilm-l6-v2"
    """A hub id, a local folder, a GGUF file, or a `pypi:` asset (models that come in a PyPI wheel, no hub needed).
    Unless set, `generator` takes `pypi:smollm2-135m-instruct`."""
    generator: ModelName | None = None
    """In a comparison: the causal language model under `generator`, where `name_or_path` is an encoder."""
    revision: str | None = None
    """Branch, tag or commit of a hub model; a commit pins it."""
    max_length: Annotated[int, Field(ge=2), BOUNDED] = 256
    """Maximum input length in tokens, special tokens included; cut inputs are counted. Unless set, 1024 for task
    `instruction`."""
    dtype: Literal["float32", "bfloat16", "auto"] = "float32"
    """Number format of the weights in training. With `bfloat16` the optimizer keeps float32 copies; `auto` measures
    both on the device and takes the faster."""
    from_config: Tree | None = None
    """An architecture of your own with random weights, such as `{model_type: gpt2, n_layer: 4, n_embd: 256}`; only
    the tokenizer then comes from `name_or_path`, or is `tokenizer`."""
    tokenizer: ModelName | None = None
    """Another tokenizer than the model's: a hub id, a folder, `tiktoken:gpt2`, or a vocabulary file of tiktoken such as
    `tiktoken:folder/cl100k_base.tiktoken`. Mostly for `from_config`."""
    state_dict: str | None = None
    """Weights for this architecture from a `.pth` file (`torch.save` of a state dict)."""
    dropout: Fraction | None = None
    """Sets every dropout of the architecture; null keeps the model's own."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Only for sources you trust."""


class Data(Section):
    """Where the rows come from and what their columns mean."""

    path: str | None = None
    """One source: a file (csv, tsv, json, jsonl, parquet; also .gz) or its http(s) address, a folder, a hub id, or a
    `pypi:` asset. What an address gives is kept in the cache."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")] | None = None
    """SHA-256 of the file in `path`; another file is refused."""
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
    label: str | tuple[str, ...] = "label"
    """Column with the label (a string or integer), the number, or the list of labels; or, of task `multilabel`, one
    column of 0 and 1 for each label."""
    label_separator: Annotated[str, Field(min_length=1)] | None = None
    """Of task `multilabel`: what separates the labels in a text, such as `|`; a space stands for any white space."""
    label_order: Literal["auto", "none"] | Annotated[tuple[str, ...], BeforeValidator(labels)] = "auto"
    """Labels from least to most, where they have an order: a classification then also gets the mean absolute error,
    the quadratic weighted kappa and the share of predictions that are at most one off. `auto` takes 3 to 20 labels that
    are numbers in their order, and says so; `none` takes them as names."""
    label_names: Annotated[tuple[str, ...] | None, BeforeValidator(labels)] = None
    """Names for integer labels, in order from 0; a hub data set has its own."""
    votes: (
        str
        | tuple[str, ...]
        | Annotated[dict[str, Annotated[str, Field(min_length=1)]], BeforeValidator(label_keys)]
        | None
    ) = None
    """The labels of several annotators, which `audit` compares with the given one: a column with a list of labels, a
    column for each annotator, or a column with the number of votes for each label, `{spam: votes_spam, ham: votes_ham}`
    (a list of such columns stands in the order of the labels)."""
    format: Literal["auto", "alpaca", "messages", "sharegpt", "prompt-completion", "human-assistant", "text"] = "auto"
    """How rows of task `instruction` are written: columns `instruction`, `input`, `output`; a list of `messages`;
    ShareGPT's `conversations`; `prompt` and `completion`; or a text of `### Human:` and `### Assistant:` turns. `text`
    is raw text in column `data.text`, all of which is learned (continued pretraining): longer texts are split into
    windows of `model.max_length` tokens."""
    encoding: str = "utf-8"
    """Encoding of text files. A list such as `utf-8,cp1252` is tried in order, file by file; other choices than the
    first are counted."""
    on_bad_rows: Literal["error", "drop"] = "error"
    """Empty or null texts, missing or unseen labels, ragged or broken lines: stop and name them, or drop and count."""

    @model_validator(mode="after")
    def _one_source(self) -> Data:
        if self.path and self.train:
            raise ValueError("path and train exclude each other: one source, or one file a split")
        if (self.validation or self.test) and not (self.train or self.path):
            raise ValueError("validation and test need train")
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
    leaks: Literal["report", "remove", "error"] = "report"
    """Rows of train (and validation) that are copies of rows of a later split, exact, normalised or near: report them,
    remove them from the earlier split, or stop and name them."""
    duplicate_threshold: Annotated[float, Field(gt=0.3, le=1)] = 0.7
    """Jaccard similarity of words and word pairs from which two texts are near-duplicates; with 1 only texts are sought
    that are equal but for case, white space, punctuation, markup, URLs and digits. Near-duplicates stay together where
    splits are made."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    """Seed for cutting and sampling rows; null uses the recipe's. Set it to repeat a run with other seeds on the
    same split."""
    max_samples: Count | None = None
    """Maximum rows of each split, sampled with the seed and stratified; for quick trials."""
    max_train_samples: Count | None = None
    """Maximum training rows, where validation and test stay as they are: a part that has every label and its share of
    each, with groups and equal texts together. A smaller part lies inside a larger one."""
    train_samples_seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    """Seed of that part; null uses the split's."""


class Linear(Section):
    """Bag of words and logistic regression; `C` and `max_iter` also serve `probe`."""

    vectorizer: Literal["tfidf", "count"] = "tfidf"
    """Weights of the n-grams: TF-IDF with sublinear counts and unit length, or plain counts."""
    word_ngrams: Annotated[tuple[int, int] | None, BeforeValidator(numbers)] = (1, 2)
    """Shortest and longest word n-gram, or null for none."""
    char_ngrams: Annotated[tuple[int, int] | None, BeforeValidator(numbers)] = None
    """Shortest and longest character n-gram (within words), or null for none."""
    lowercase: bool = True
    """Fold case before counting."""
    min_df: Count = 2
    """Ignore n-grams that occur in fewer training texts."""
    max_features: Count | None = None
    """Keep only the most frequent n-grams."""
    C: Positive = 10.0
    """Inverse strength of the L2 penalty. Unless set, 1 for task `regression`."""
    max_iter: Count = 1000
    """Maximum iterations of an exact solver (thousands of classes have none: see docs/decisions.md)."""

    @model_validator(mode="after")
    def _ngrams(self) -> Linear:
        for name in ("word_ngrams", "char_ngrams"):
            pair = getattr(self, name)
            if pair is not None and not 1 <= pair[0] <= pair[1] <= LONGEST_NGRAM:
                raise ValueError(f"{name} needs two numbers, 1 <= shortest <= longest <= {LONGEST_NGRAM}, not {pair}")
        if self.word_ngrams is None and self.char_ngrams is None:
            raise ValueError("word_ngrams and char_ngrams cannot both be null")
        return self


class Probe(Section):
    """A frozen encoder with logistic regression on its embeddings."""

    pooling: Literal["mean", "cls"] = "mean"
    """The text's embedding: the mean over its tokens, or the first token."""
    normalize: bool = True
    """Scale every embedding to unit length."""


class Engine(Section):
    """How the work of training is done: speed, memory and safety. Of these only the precision can change a result by
    more than rounding."""

    max_tokens_per_micro_batch: Count | Literal["auto"] = "auto"
    """Maximum tokens of a micro-batch, padding included; `auto` suits the device. Halved once if memory runs out."""
    mixed_precision: Annotated[Literal["no", "bf16", "fp16", "auto"], BeforeValidator(no_as_text)] = "no"
    """Autocast of the forward pass; `auto` measures float32 against bf16 and takes the faster."""
    layout: Literal["auto", "packed", "padded"] = "auto"
    """How a step's texts lie in memory: concatenated in one row (causal models compute shared prefixes once), or in
    padded rows. `auto` packs where the model gives the same logits, and says so where it does not; encoders on CPUs
    only."""
    compile: Literal["auto"] | bool = False
    """`torch.compile` of the layers; `auto` compiles where the run is long enough to pay for it."""
    matmul_backend: Literal["auto", "onednn", "mkl"] = "auto"
    """Library of float32 linear layers on CPUs; `auto` takes the faster, measured once on a machine. Compiled layers
    always use torch's."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third slower."""
    save_strategy: Annotated[Literal["epoch", "steps", "no"], BeforeValidator(no_as_text)] = "epoch"
    """Write a checkpoint to resume from after each epoch, every `save_steps` steps, or only when interrupted."""
    save_steps: Count = 500
    """Steps between checkpoints where `save_strategy` is `steps`."""
    save_total_limit: Count = 2
    """Checkpoints to keep; the newest good one is never deleted, and the best weights lie in `model/`."""

    @model_validator(mode="after")
    def _compiles_or_not(self) -> Engine:
        if self.compile and self.matmul_backend == "onednn":
            raise ValueError("engine.matmul_backend: onednn cannot be compiled: set engine.compile to false")
        return self


class Evaluate(Section):
    """When to evaluate on the validation split, which metric selects the best model, and what the report shows."""

    eval_strategy: Annotated[Literal["epoch", "steps", "no"], BeforeValidator(no_as_text)] = "epoch"
    """Evaluate on validation after each epoch, every `eval_steps` steps, or never."""
    eval_steps: Count = 100
    """Steps between evaluations where `eval_strategy` is `steps`."""
    eval_batches: Count | None = None
    """During training, evaluate on this many batches of validation rows only, and on as many of training rows
    (`train_loss`); null for the whole validation split."""
    metric_for_best_model: BestMetric | Plugin = "macro_f1"
    """Metric on the validation split that selects the best checkpoint and stops early. Unless set, `rmse` of task
    `regression`, and of `instruction` the `loss`, the mean over the answers' tokens."""
    metric_for_comparison: ComparedMetric | None = None
    """Metric by which `compare` ranks classifiers and tests their differences. Unless set, the `cost` where
    `decide.costs` is set, else the accuracy."""
    metrics: Annotated[tuple[Plugin, ...], BeforeValidator(as_list)] = ()
    """Functions of your own, as `module:name`, from rows to a number. One of them may be `metric_for_best_model` of a
    classifier."""
    slices: Annotated[tuple[str, ...], BeforeValidator(as_list)] = ()
    """Columns whose values divide the test rows into slices that are scored one by one; `length` is the quartile of the
    text's length, where the data has no column of that name."""
    num_samples: Annotated[int, Field(ge=0), BOUNDED] = 3
    """Validation prompts of task `instruction` that are answered at each evaluation, for the log and the report."""
    load_best_model_at_end: bool = True
    """End with the best checkpoint instead of the last."""
    early_stopping_patience: Count | None = None
    """Stop after this many evaluations without improvement."""
    logging_steps: Count = 10
    """Steps between lines in metrics.jsonl and on the screen."""
    max_responses: Annotated[int, Field(ge=0), BOUNDED] | None = None
    """Test prompts of task `instruction` that are answered after training; null for all."""
    base: bool = True
    """For task `instruction`: also let the model before training answer the test prompts, so that the report shows
    what training gained. Off in `compare` unless set, as `generator:untuned` is a method there."""
    report_to: Annotated[tuple[Literal["tensorboard", "wandb", "mlflow"], ...], BeforeValidator(as_list)] = ()
    """Also send metrics to these trackers."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Confidence level of every interval; 1 - confidence is the significance level of every test."""
    bootstrap_samples: Annotated[int, Field(ge=100, le=100_000)] = 2000
    """Resamples behind bootstrap intervals and tests."""


class Recipe(Section):
    """One run, completely: the same recipe and seed give the same scores and weights on the same machine."""

    task: Annotated[str, AfterValidator(OneOf(TASKS))] = "classification"
    """What is learned of a text: its label (classification), any number of labels (multilabel), or a number
    (regression); or answers to instructions."""
    method: Annotated[str, AfterValidator(OneOf(METHODS))] = "encoder"
    """The kind of model: bag of words + logistic regression, frozen encoder + logistic regression, a fine-tuned
    encoder, or a causal language model that answers a prompt. Instructions need, and by default have, `generator`."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    """Seed for splits, initialisation, sampling order and dropout."""
    output_dir: str = "runs"
    """Folder in which run directories are made."""
    model: Model = Model()
    data: Data = Data()
    split: Split = Split()
    linear: Linear = Linear()
    probe: Probe = Probe()
    prompt: Prompt = Prompt()
    adapter: Adapter = Adapter()
    train: Train = Train()
    engine: Engine = Engine()
    evaluate: Evaluate = Evaluate()
    decide: Decide = Decide()
    predict: Predict = Predict()
    generate: Generate = Generate()
    judge: Judge = Judge()
    serve: Serve = Serve()

    @model_validator(mode="before")
    @classmethod
    def _dependent_defaults(cls, tree: Any) -> Any:
        """Defaults that follow from other settings, where the recipe has none of its own."""
        if not isinstance(tree, dict):
            return tree
        tree = dict(tree)
        if tree.get("task") == "instruction":
            tree.setdefault("method", "generator")
            _default(tree, "model", "max_length", 1024)
            if _setting(tree, "data", "format") == "text":  # there are no prompts to answer
                _default(tree, "prompt", "template", "plain")
                _default(tree, "evaluate", "max_responses", 0)
                _default(tree, "evaluate", "num_samples", 0)
        if tree.get("task") == "regression":
            _default(tree, "linear", "C", 1.0)
        if (task := tree.get("task")) in DECIDING:
            _default(tree, "evaluate", "metric_for_best_model", DECIDING[str(task)][0])
        if tree.get("method") == "generator":
            _default(tree, "model", "name_or_path", GENERATOR)
            if generator := _setting(tree, "model", "generator"):
                tree["model"]["name_or_path"] = generator
        if _setting(tree, "adapter", "kind") in ("lora", "qlora"):
            _default(tree, "train", "learning_rate", 2e-4)
        return tree

    @model_validator(mode="after")
    def _fits(self) -> Recipe:
        if self.task == "instruction" and self.method != "generator":
            raise ValueError(f"task instruction needs method generator, not {self.method}")
        deciding = self.evaluate.metric_for_best_model
        if ":" in deciding and (deciding not in self.evaluate.metrics or self.task == "instruction"):
            raise ValueError(f"evaluate.metric_for_best_model: {deciding} must be in evaluate.metrics of a classifier")
        known = DECIDING.get(self.task, DECIDING["classification"])
        if ":" not in deciding and deciding not in known:
            raise ValueError(f"evaluate.metric_for_best_model is {deciding}: task {self.task} has {', '.join(known)}")
        if self.train.loss in ("mse", "huber") and (self.task != "regression" or self.method == "generator"):
            raise ValueError(f"train.loss is {self.train.loss}, which is for task regression, but not by a generator")
        if self.task != "multilabel" and (self.data.label_separator or not isinstance(self.data.label, str)):
            raise ValueError("data.label_separator, and several columns in data.label, are for task multilabel")
        if self.task != "classification" and (self.decide.is_set or self.evaluate.metric_for_comparison):
            raise ValueError("decide, and evaluate.metric_for_comparison, are for task classification")
        if self.decide.is_set and self.method == "generator" and self.predict.mode != "score":
            raise ValueError(f"decide needs predict.mode=score, not {self.predict.mode}, with method generator")
        if self.evaluate.metric_for_comparison == "cost" and self.decide.costs is None:
            raise ValueError("evaluate.metric_for_comparison is cost: set decide.costs")
        if self.train.loss == "ordinal" and (self.task != "classification" or self.data.label_order == "none"):
            raise ValueError("train.loss is ordinal, which is for ordered labels of task classification")
        if self.task != "classification" and self.data.votes is not None:
            raise ValueError("data.votes, the labels of several annotators, are for task classification")
        raw = self.task == "instruction" and self.data.format == "text"
        if raw and (self.evaluate.max_responses != 0 or self.evaluate.num_samples or self.prompt.template != "plain"):
            raise ValueError(
                "data.format is text, which has no prompts: leave out evaluate.max_responses, evaluate.num_samples and "
                "prompt.template"
            )
        if self.task == "instruction" and self.evaluate.slices:
            raise ValueError("evaluate.slices is for labels and numbers, not for task instruction: leave it out")
        if self.method == "encoder" and not (self.train.num_train_epochs or self.train.max_steps):
            raise ValueError("train.num_train_epochs is 0: an encoder's new head must be trained")
        return self

    @model_validator(mode="after")
    def _learns_labels(self) -> Recipe:
        """Refuse settings against imbalance where the task or the method does not have them."""
        train = self.train
        limits = {
            "loss=focal": (train.loss == "focal", "labels learned by encoder", ("linear", "probe", "generator")),
            "sampling=balanced": (
                train.sampling == "balanced",
                "single labels learned by encoder or generator",
                ("linear", "probe", "multilabel"),
            ),
            "class_weights": (
                train.class_weights != "none",
                "labels learned by linear, probe or encoder",
                ("generator",),
            ),
        }
        for setting, (is_set, what, without) in limits.items():
            for kind, name in (("task", self.task), ("method", self.method)):
                if is_set and name in (*without, "regression", "instruction"):
                    raise ValueError(f"train.{setting} is for {what}, not for {kind} {name}: leave it out")
        if train.sampling == "balanced" and train.class_weights == "balanced":
            raise ValueError("train.sampling and train.class_weights are both balanced, which corrects twice: set one")
        return self


def _setting(tree: Tree, section: str, name: str) -> Any:
    inside = tree.get(section)
    return inside.get(name) if isinstance(inside, dict) else None


def _default(tree: Tree, section: str, name: str, value: Any) -> None:
    inside = tree.get(section) or {}
    if isinstance(inside, dict):
        tree[section] = {name: value} | inside
