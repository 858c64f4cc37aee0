"""The methods by name: how each is described, trained and loaded. A new method is a row in METHODS.

What a method needs is imported when it runs: a linear model is trained and served without torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tunesmith.errors import RecipeError, RunError
from tunesmith.pipeline.fitting import inspection
from tunesmith.pipeline.fitting.inspection import TokenCounts
from tunesmith.pipeline.fitting.job import Job
from tunesmith.protocols import Classifier, Predictor, TextGenerator, TrainResult
from tunesmith.recipe import Recipe
from tunesmith.runs import Run
from tunesmith.types import Splits


@dataclass(frozen=True)
class Method:
    """One way to learn a task: all that the rest of the package knows of it."""

    tasks: tuple[str, ...]
    """Names of the tasks that it can learn."""
    describe: Callable[[Recipe], str]
    prepare: Callable[[Recipe], None]
    """Imports libraries and fetches files, so that the time of `fit` is training alone."""
    fit: Callable[[Job], TrainResult]
    load: Callable[[Path, Recipe], Predictor]
    """From a model folder and the run's recipe."""
    inspect: Callable[[Recipe, Splits], TokenCounts] | None = None
    """The data as the method's tokenizer sees it, where it has one."""
    variants: tuple[str, ...] = ()
    """What may follow the method's name behind a colon: keys of VARIANTS."""
    default_variant: str | None = None
    """The variant that goes by the method's name alone."""
    export_targets: tuple[str, ...] = ("safetensors",)

    def name(self, recipe: Recipe) -> str:
        """What the method is called in a comparison: `generator:lora`, and plain `encoder` where trained in full."""
        if not self.variants:
            return recipe.method
        trained = "full" if recipe.adapter.kind == "none" else recipe.adapter.kind
        variant = trained if _learns(recipe) else "untuned"
        return recipe.method if variant == self.default_variant else f"{recipe.method}:{variant}"

    def fallback(self, recipe: Recipe) -> tuple[str, str]:
        """Name and description of a qlora recipe that was trained as lora, as 4 bits cannot be used here."""
        adapter = recipe.adapter.model_copy(update={"kind": "lora"})
        trained = recipe.model_copy(update={"adapter": adapter})
        return f"{self.name(recipe)} (fell back to lora)", f"{self.describe(trained)}; 4 bits cannot be used here"


def find(recipe: Recipe) -> Method:
    """The method of a recipe. Raises RecipeError where it cannot learn the recipe's task."""
    method = METHODS[recipe.method]
    if recipe.task not in method.tasks:
        able = [name for name, other in METHODS.items() if recipe.task in other.tasks]
        raise RecipeError(
            f"method {recipe.method} cannot learn task {recipe.task}", expected=" or ".join(able), do="set method"
        )
    return method


def load_predictor(run: Run) -> Predictor:
    """What a finished run trained."""
    return METHODS[run.finished.method].load(run.model, run.recipe)


def load_classifier(run: Run) -> Classifier:
    """The classifier that a finished run trained. Raises RunError for a run of another task."""
    predictor = load_predictor(run)
    if not isinstance(predictor, Classifier):
        raise RunError(f"{run.path} is not a classifier", found=f"a run of task {run.recipe.task}")
    return predictor


def load_generator(run: Run) -> TextGenerator:
    """The text generator that a finished run trained. Raises RunError for a run of another task."""
    predictor = load_predictor(run)
    if not isinstance(predictor, TextGenerator):
        raise RunError(f"{run.path} is not a text generator", found=f"a run of task {run.recipe.task}")
    return predictor


def _prepare_linear(recipe: Recipe) -> None:
    from tunesmith.models import linear

    linear.prepare()


def _fit_linear(job: Job) -> TrainResult:
    from tunesmith.models import linear

    return linear.fit(job.splits.train, job.splits.labels, job.recipe.linear, job.weights())


def _load_linear(folder: Path, recipe: Recipe) -> Predictor:
    from tunesmith.models.linear import LinearClassifier

    return LinearClassifier.load(folder)


def _prepare_probe(recipe: Recipe) -> None:
    from tunesmith.models import linear, pretrained

    linear.prepare()
    pretrained.prepare(recipe.model)


def _fit_probe(job: Job) -> TrainResult:
    from tunesmith.models import pretrained
    from tunesmith.prediction import classify

    recipe, splits = job.recipe, job.splits
    tokenizer = pretrained.tokenizer(recipe.model)
    body, limit = pretrained.body(recipe.model, recipe.seed), pretrained.longest_input(recipe.model, tokenizer)
    encoder = classify.Encoder(body, tokenizer, limit, recipe.engine.max_tokens_per_micro_batch)
    return classify.fit_probe(encoder, splits.train, splits.labels, recipe.probe, recipe.linear, job.weights())


def _load_probe(folder: Path, recipe: Recipe) -> Predictor:
    from tunesmith.prediction.classify import ProbeClassifier

    return ProbeClassifier.load(folder, recipe.model.trust_remote_code)


def _prepare_tuning(recipe: Recipe) -> None:
    from tunesmith.models import pretrained
    from tunesmith.pipeline.fitting import encoders, generators  # noqa: F401

    pretrained.prepare(recipe.model)


def _fit_encoder(job: Job) -> TrainResult:
    from tunesmith.pipeline.fitting import encoders, finetune

    return finetune.fit(job, encoders.prepare)


def _load_encoder(folder: Path, recipe: Recipe) -> Predictor:
    from tunesmith.prediction.classify import EncoderClassifier

    return EncoderClassifier.load(folder, recipe.model.trust_remote_code)


def _fit_generator(job: Job) -> TrainResult:
    from tunesmith.pipeline.fitting import finetune, generators

    return finetune.fit(job, generators.prepare) if _learns(job.recipe) else generators.untuned(job)


def _load_generator(folder: Path, recipe: Recipe) -> Predictor:
    from tunesmith.pipeline.fitting import generators

    return generators.reload(recipe, folder)


def _describe_linear(recipe: Recipe) -> str:
    kind = {"tfidf": "TF-IDF", "count": "counts"}[recipe.linear.vectorizer]
    ranges = (("word", recipe.linear.word_ngrams), ("character", recipe.linear.char_ngrams))
    grams = " and ".join(f"{name} {pair[0]}-{pair[1]}-grams" for name, pair in ranges if pair)
    return f"{kind} of {grams} + logistic regression"


def _describe_probe(recipe: Recipe) -> str:
    return f"frozen {_model(recipe)} ({recipe.probe.pooling} pooling) + logistic regression"


def _describe_tuned(recipe: Recipe) -> str:
    if not _learns(recipe):
        return f"untuned {_model(recipe)}"
    part = {"none": "fine-tuned", "embeddings": "fine-tuned (embeddings frozen)", "body": "head trained on frozen"}
    how = {"none": part[recipe.train.freeze], "lora": "LoRA beside", "qlora": "LoRA beside 4-bit"}[recipe.adapter.kind]
    rank = "" if recipe.adapter.kind == "none" else f", r {recipe.adapter.r}"
    length = (
        f"{recipe.train.max_steps} steps" if recipe.train.max_steps else f"{recipe.train.num_train_epochs:g} epoch(s)"
    )
    return f"{how} {_model(recipe)}{rank}, {length}"


def _learns(recipe: Recipe) -> bool:
    return bool(recipe.train.max_steps or recipe.train.num_train_epochs)


def variants(method: str) -> dict[str, str]:
    """The settings behind `generator:lora` and its like. Raises RecipeError for an unknown method or variant."""
    name, _, variant = method.partition(":")
    if name not in METHODS or (variant and variant not in METHODS[name].variants):
        raise RecipeError(
            f"no method {method!r}", expected=", ".join([*METHODS, "generator:untuned", "generator:lora"])
        )
    return {"method": name, **(VARIANTS[variant] if variant else {})}


def _model(recipe: Recipe) -> str:
    path = Path(recipe.model.name_or_path.removeprefix("pypi:"))
    return path.parent.name if path.name == "model" else path.name  # a run's model goes by the run's name


PROGRAMS = ("onnx", "onnx-int8", "torch-export", "torchscript")
WEIGHTS = ("safetensors", "adapter", "pth")
METHODS = {
    "linear": Method(("classification",), _describe_linear, _prepare_linear, _fit_linear, _load_linear),
    "probe": Method(
        ("classification",),
        _describe_probe,
        _prepare_probe,
        _fit_probe,
        _load_probe,
        inspection.count_encoded,
        export_targets=("safetensors", *PROGRAMS),
    ),
    "encoder": Method(
        ("classification",),
        _describe_tuned,
        _prepare_tuning,
        _fit_encoder,
        _load_encoder,
        inspection.count_encoded,
        variants=("full", "lora", "qlora"),
        default_variant="full",
        export_targets=(*WEIGHTS, *PROGRAMS),
    ),
    "generator": Method(
        ("classification", "instruction"),
        _describe_tuned,
        _prepare_tuning,
        _fit_generator,
        _load_generator,
        inspection.render,
        variants=("untuned", "full", "lora", "qlora"),
        export_targets=(*WEIGHTS, "gguf", "ollama"),
    ),
}
VARIANTS = {
    "untuned": {"adapter.kind": "none", "train.num_train_epochs": "0", "train.max_steps": "null"},
    "full": {"adapter.kind": "none"},
    "lora": {"adapter.kind": "lora"},
    "qlora": {"adapter.kind": "qlora"},
}
"""What follows a method's name behind a colon -> settings."""
