"""The recipe's typed, frozen sections. Defaults are set only here; help, `init` and the reference are derived."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ModelWrapValidatorHandler, model_validator

from tunesmith.recipe.cost_settings import CostRates
from tunesmith.recipe.data_settings import Data, Split
from tunesmith.recipe.decide_settings import Decide
from tunesmith.recipe.endpoint_settings import Endpoint
from tunesmith.recipe.generation_settings import Adapter, Generate, Predict, Prompt
from tunesmith.recipe.judge_settings import Judge
from tunesmith.recipe.names import (
    DECIDING,
    METHODS,
    OF_PROBABILITIES,
    TASKS,
    BestMetric,
    ComparedMetric,
    MethodName,
    OneOf,
)
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
    Tree,
    as_list,
    no_as_text,
    numbers,
)

GENERATOR = "pypi:smollm2-135m-instruct"
"""The default causal language model of `generator`."""
CONTRASTIVE = "encoder:contrastive"
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
    `instruction`, and for a `generator` with `prompt.shots`."""
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
    """Evaluate on validation after each epoch, every `eval_steps` steps, or never. Unless set, never for
    `encoder:contrastive`: few validation rows would choose by chance."""
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
    method: Annotated[str, AfterValidator(MethodName(METHODS))] = "encoder"
    """The kind of model: bag of words + logistic regression, frozen encoder + logistic regression, a fine-tuned
    encoder, an encoder fine-tuned on pairs of texts + logistic regression (for few labels), a causal language model
    that answers a prompt, or one behind an endpoint. Instructions need one of the last two, and by default have
    `generator`."""
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
    costs: CostRates = CostRates()
    decide: Decide = Decide()
    predict: Predict = Predict()
    generate: Generate = Generate()
    endpoint: Endpoint = Endpoint()
    judge: Judge = Judge()
    serve: Serve = Serve()

    @model_validator(mode="wrap")
    @classmethod
    def _dependent_defaults(cls, written: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Defaults that follow from other settings, where the recipe has none of its own.

        They do not count as set: with another method, a recipe has that method's.
        """
        if not isinstance(written, dict):
            return handler(written)
        tree = dict(written)
        if tree.get("task") == "instruction":
            tree.setdefault("method", "generator")
        derived = [pair for pair in _derived(tree) if _default(tree, *pair)]
        if tree.get("method") == "generator" and (generator := _setting(tree, "model", "generator")):
            tree["model"]["name_or_path"] = generator
        recipe = handler(tree)
        for section, name, _ in derived:
            getattr(recipe, section).model_fields_set.discard(name)
        return recipe

    @model_validator(mode="after")
    def _fits(self) -> Recipe:
        if self.task == "instruction" and self.method not in ("generator", "endpoint"):
            raise ValueError(f"task instruction needs method generator or endpoint, not {self.method}")
        if self.data.streaming and self.task != "instruction":
            raise ValueError(f"data.streaming is for task instruction, not {self.task}, whose labels it cannot know")
        if self.data.streaming and self.train.max_steps is None and self.train.num_train_epochs > 0:
            raise ValueError("data.streaming needs train.max_steps: a stream has no epochs")
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
        if self.method in ("encoder", CONTRASTIVE) and not (self.train.num_train_epochs or self.train.max_steps):
            raise ValueError("train.num_train_epochs is 0: an encoder's new head must be trained")
        if self.method == CONTRASTIVE:
            for name, value in (("loss", self.train.loss), ("freeze", self.train.freeze), ("kind", self.adapter.kind)):
                if value not in (None, "none"):
                    section = "adapter" if name == "kind" else "train"
                    raise ValueError(f"{section}.{name} is {value}, which method {self.method} has not: leave it out")
        return self

    @property
    def gives_probabilities(self) -> bool:
        """Whether predicted labels can have probabilities: not those that a generator writes.

        Those of an endpoint may have some where it is asked for them.
        """
        if self.method == "endpoint":
            return self.endpoint.samples > 1 or (self.endpoint.logprobs and self.task == "classification")
        return self.method != "generator" or self.predict.mode != "free"

    @model_validator(mode="after")
    def _measures_probabilities(self) -> Recipe:
        """Refuse metrics that need probabilities where there are none."""
        for name in ("metric_for_best_model", "metric_for_comparison"):
            metric = getattr(self.evaluate, name)
            if metric in OF_PROBABILITIES and not self.gives_probabilities:
                raise ValueError(
                    f"evaluate.{name} is {metric}, which needs probabilities: {self.method} gives none here"
                )
        return self

    @model_validator(mode="after")
    def _shows_shots(self) -> Recipe:
        """Refuse shots where the task or the prediction cannot have them."""
        prompt = self.prompt
        if self.endpoint.shots and self.endpoint.shot_selection == "nearest" and self.task == "instruction":
            raise ValueError("endpoint.shot_selection=nearest is for labels and numbers: set random")
        if prompt.shots and self.task == "instruction" and self.data.format == "text":
            raise ValueError("prompt.shots stand before a prompt, and data.format=text has none: leave them out")
        if prompt.shots and prompt.shot_selection == "nearest":
            if self.task == "instruction":
                raise ValueError("prompt.shot_selection=nearest is for labels and numbers: set random")
            if self.predict.calibrate:
                raise ValueError(
                    "predict.calibrate needs the same shots for every text: set prompt.shot_selection=random"
                )
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
                ("linear", "probe", CONTRASTIVE, "multilabel"),
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


def _derived(tree: Tree) -> Iterator[tuple[str, str, Any]]:
    """Yield section, name and value of every default that follows from other settings."""
    task, method = tree.get("task"), tree.get("method")
    if task == "instruction":
        yield "model", "max_length", 1024
        if _setting(tree, "data", "format") == "text":  # there are no prompts to answer
            yield "prompt", "template", "plain"
            yield "evaluate", "max_responses", 0
            yield "evaluate", "num_samples", 0
    if task == "regression":
        yield "linear", "C", 1.0
    if task in DECIDING:
        yield "evaluate", "metric_for_best_model", DECIDING[str(task)][0]
    if method == "generator":
        yield "model", "name_or_path", GENERATOR
        if _setting(tree, "prompt", "shots"):
            yield "model", "max_length", 1024
    if method == CONTRASTIVE:
        yield "train", "num_train_epochs", 12.0
        yield "train", "per_device_train_batch_size", 64
        yield "train", "learning_rate", 1e-4
        yield "train", "warmup_ratio", 0.0  # the first step of a warm-up has rate 0, and there are few steps
        yield "evaluate", "eval_strategy", "no"
    if _setting(tree, "adapter", "kind") in ("lora", "qlora"):
        yield "train", "learning_rate", 2e-4


def _setting(tree: Tree, section: str, name: str) -> Any:
    inside = tree.get(section)
    return inside.get(name) if isinstance(inside, dict) else None


def _default(tree: Tree, section: str, name: str, value: Any) -> bool:
    """Set a setting that the tree does not have; returns whether it did."""
    inside = tree.get(section) or {}
    if not isinstance(inside, dict) or name in inside:
        return False
    tree[section] = {**inside, name: value}
    return True
