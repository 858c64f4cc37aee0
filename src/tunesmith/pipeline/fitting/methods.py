"""The methods by name: how each is described, trained and loaded. A new method is a class, and a row in METHODS.

What a method needs is imported when it runs: a linear model is trained and served without torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith import processes, recipe as recipes
from tunesmith.console import say
from tunesmith.errors import RecipeError, RunError
from tunesmith.pipeline.fitting import inspection
from tunesmith.pipeline.fitting.inspection import TokenCounts
from tunesmith.pipeline.fitting.job import Job
from tunesmith.protocols import Predictor, TextPredictor, TrainResult
from tunesmith.recipe import Probe, Recipe
from tunesmith.reporting.format import counted
from tunesmith.runs import Run
from tunesmith.tasks.text_targets import Target
from tunesmith.types import DataNote, Example, Splits

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tunesmith.prediction.classify import Encoder

PROGRAMS = ("onnx", "onnx-int8", "openvino", "torch-export", "torchscript")
WEIGHTS = ("safetensors", "adapter", "pth")


class Method:
    """One way to learn a task: all that the rest of the package knows of it."""

    tasks: tuple[str, ...]
    """Names of the tasks that it can learn."""
    variants: tuple[str, ...] = ()
    """What may follow the method's name behind a colon: keys of VARIANTS."""
    default_variant: str | None = None
    """The variant that goes by the method's name alone."""
    export_targets: tuple[str, ...] = ("safetensors",)
    weighs_rows: bool = False
    """Whether training rows may have weights."""
    refits_cheaply: bool = False
    """Whether it is fitted to many parts of the same rows in little time, always with the same result."""
    library: str | None = None
    """What loads the model folder of the default variant without tunesmith, as model hubs name it."""

    def describe(self, recipe: Recipe) -> str:
        """Return what the recipe trains, in a few words."""
        raise NotImplementedError

    def model(self, recipe: Recipe) -> str | None:
        """Return the name of the pretrained model; None if there is none."""
        return None

    def prepare(self, recipe: Recipe) -> None:
        """Import libraries and fetch files, so that the time of `fit` is training alone."""

    def fit(self, job: Job) -> TrainResult:
        """Train."""
        raise NotImplementedError

    def refits(self, recipe: Recipe) -> Callable[[Job], TrainResult]:
        """Return what does the same as `fit` for jobs on parts of the same rows, and computes what they share once."""
        return self.fit

    def load(self, folder: Path, recipe: Recipe) -> Predictor:
        """Return the predictor in a model folder. recipe: the run's."""
        raise NotImplementedError

    def load_graph(self, folder: Path, recipe: Recipe) -> Predictor:
        """Return the predictor in an export of a run that is computed without torch. recipe: the run's."""
        from tunesmith.exporting import onnx, openvino

        return openvino.load(folder) if (folder / openvino.MODEL).is_file() else onnx.load(folder)

    def inspect(self, recipe: Recipe, splits: Splits, target: Target) -> TokenCounts | None:
        """Return the data as the method's tokenizer sees it; None if it has none."""
        return None

    def name(self, recipe: Recipe) -> str:
        """Return what the method is called in a comparison: `generator:lora`, or plain `encoder` if trained in full."""
        if not self.variants:
            return recipe.method
        trained = "full" if recipe.adapter.kind == "none" else recipe.adapter.kind
        variant = trained if learns(recipe) else "untuned"
        return recipe.method if variant == self.default_variant else f"{recipe.method}:{variant}"

    def fallback(self, recipe: Recipe) -> tuple[str, str]:
        """Return name and description of a qlora recipe that was trained as lora, as 4 bits cannot be used here."""
        adapter = recipe.adapter.model_copy(update={"kind": "lora"})
        trained = recipe.model_copy(update={"adapter": adapter})
        return f"{self.name(recipe)} (fell back to lora)", f"{self.describe(trained)}; 4 bits cannot be used here"


class LinearMethod(Method):
    """Bag of words and logistic or ridge regression."""

    tasks = ("classification", "multilabel", "regression")
    weighs_rows = True
    refits_cheaply = True

    def describe(self, recipe: Recipe) -> str:
        kind = {"tfidf": "TF-IDF", "count": "counts"}[recipe.linear.vectorizer]
        ranges = (("word", recipe.linear.word_ngrams), ("character", recipe.linear.char_ngrams))
        grams = " and ".join(f"{name} {pair[0]}-{pair[1]}-grams" for name, pair in ranges if pair)
        return f"{kind} of {grams} + {_regression(recipe)}"

    def prepare(self, recipe: Recipe) -> None:
        from tunesmith.models import linear

        linear.prepare()

    def fit(self, job: Job) -> TrainResult:
        from tunesmith.models import linear

        return linear.fit(job.splits.train, job.target, job.recipe.linear, job.weights())

    def refits(self, recipe: Recipe) -> Callable[[Job], TrainResult]:
        from tunesmith.models import counted_texts

        texts = counted_texts.CountedTexts(recipe.linear)  # those that are predicted; a part has n-grams of its own
        return lambda job: counted_texts.fit(job.splits.train, job.target, job.recipe.linear, job.weights(), texts)

    def load(self, folder: Path, recipe: Recipe) -> Predictor:
        from tunesmith.models.linear import LinearPredictor

        return LinearPredictor.load(folder)


class ProbeMethod(Method):
    """Logistic or ridge regression on the embeddings of a frozen encoder."""

    tasks = ("classification", "multilabel", "regression")
    weighs_rows = True
    refits_cheaply = True
    export_targets = ("safetensors", *PROGRAMS)

    def describe(self, recipe: Recipe) -> str:
        return f"frozen {self.model(recipe)} ({recipe.probe.pooling} pooling) + {_regression(recipe)}"

    def model(self, recipe: Recipe) -> str:
        return _model(recipe)

    def prepare(self, recipe: Recipe) -> None:
        from tunesmith.models import linear, pretrained

        linear.prepare()
        pretrained.prepare(recipe.model)

    def fit(self, job: Job) -> TrainResult:
        return ProbeFits(self._encoder(job.recipe))(job)

    def refits(self, recipe: Recipe) -> ProbeFits:
        from tunesmith.prediction import classify

        return ProbeFits(classify.RememberingEncoder.of(self._encoder(recipe)))

    def _encoder(self, recipe: Recipe) -> Encoder:
        from tunesmith.models import pretrained
        from tunesmith.prediction import classify

        tokenizer = pretrained.tokenizer(recipe.model)
        body, limit = pretrained.body(recipe.model, recipe.seed), pretrained.longest_input(recipe.model, tokenizer)
        return classify.Encoder(body, tokenizer, limit, recipe.engine.max_tokens_per_micro_batch)

    def load(self, folder: Path, recipe: Recipe) -> Predictor:
        from tunesmith.prediction.classify import ProbePredictor

        return ProbePredictor.load(folder, recipe.model.trust_remote_code)

    def inspect(self, recipe: Recipe, splits: Splits, target: Target) -> TokenCounts:
        return inspection.count_encoded(recipe, splits)


@dataclass(frozen=True)
class ProbeFits:
    """Fits probes to jobs, all with one encoder."""

    encoder: Encoder

    def __call__(self, job: Job) -> TrainResult:
        from tunesmith.prediction import classify

        recipe, rows = job.recipe, job.splits.train
        return classify.fit_probe(self.encoder, rows, job.target, recipe.probe, recipe.linear, job.weights())

    def embed(self, examples: Sequence[Example], settings: Probe) -> tuple[NDArray[np.float64], list[DataNote]]:
        """Return the embeddings of texts, N x D, and what the encoder's maximum length cut."""
        from tunesmith.prediction import classify

        return classify.embed(self.encoder, examples, settings)


class FineTunedMethod(Method):
    """A pretrained model whose weights, or an adapter beside them, are trained by gradient."""

    def describe(self, recipe: Recipe) -> str:
        if not learns(recipe):
            return f"untuned {self.model(recipe)}"
        whole = "trained" if _begins_at_random(recipe) else "fine-tuned"
        part = {"none": whole, "embeddings": f"{whole} (embeddings frozen)", "body": "head trained on frozen"}
        how = {"none": part[recipe.train.freeze], "lora": "LoRA on", "qlora": "LoRA on 4-bit"}
        rank = "" if recipe.adapter.kind == "none" else f", r {recipe.adapter.r}"
        steps, epochs = recipe.train.max_steps, recipe.train.num_train_epochs
        length = counted(steps, "step") if steps else counted(epochs, "epoch")
        return f"{how[recipe.adapter.kind]} {self.model(recipe)}{rank}, {length}"

    def model(self, recipe: Recipe) -> str:
        return _model(recipe)

    def prepare(self, recipe: Recipe) -> None:
        from tunesmith.models import pretrained

        pretrained.prepare(recipe.model)


class EncoderMethod(FineTunedMethod):
    """A fine-tuned encoder with a classification head."""

    tasks = ("classification", "multilabel", "regression")
    weighs_rows = True
    variants = ("full", "lora", "qlora")
    default_variant = "full"
    export_targets = (*WEIGHTS, *PROGRAMS)
    library = "transformers"

    def prepare(self, recipe: Recipe) -> None:
        from tunesmith.pipeline.fitting import encoders  # noqa: F401

        super().prepare(recipe)

    def fit(self, job: Job) -> TrainResult:
        from tunesmith.pipeline.fitting import encoders, finetune

        return finetune.fit(job, encoders.prepare)

    def load(self, folder: Path, recipe: Recipe) -> Predictor:
        from tunesmith.prediction.classify import EncoderPredictor

        return EncoderPredictor.load(folder, recipe.model.trust_remote_code)

    def inspect(self, recipe: Recipe, splits: Splits, target: Target) -> TokenCounts:
        return inspection.count_encoded(recipe, splits)


class GeneratorMethod(FineTunedMethod):
    """A causal language model that answers a prompt."""

    tasks = ("classification", "multilabel", "regression", "instruction")
    variants = ("untuned", "full", "lora", "qlora")
    export_targets = (*WEIGHTS, *PROGRAMS, "gguf", "ollama")

    def prepare(self, recipe: Recipe) -> None:
        from tunesmith.pipeline.fitting import generators  # noqa: F401

        super().prepare(recipe)

    def fit(self, job: Job) -> TrainResult:
        from tunesmith.pipeline.fitting import finetune, generators

        return finetune.fit(job, generators.prepare) if learns(job.recipe) else generators.untuned(job)

    def load(self, folder: Path, recipe: Recipe) -> Predictor:
        from tunesmith.pipeline.fitting import generators

        return generators.reload(recipe, folder)

    def load_graph(self, folder: Path, recipe: Recipe) -> Predictor:
        return self.load(folder, recipe)  # which knows graphs and GGUF files from weights

    def inspect(self, recipe: Recipe, splits: Splits, target: Target) -> TokenCounts:
        return inspection.render(recipe, splits, target)


METHODS: dict[str, Method] = {
    "linear": LinearMethod(),
    "probe": ProbeMethod(),
    "encoder": EncoderMethod(),
    "generator": GeneratorMethod(),
}
VARIANTS = {
    "untuned": {"adapter.kind": "none", "train.num_train_epochs": "0", "train.max_steps": "null"},
    "full": {"adapter.kind": "none"},
    "lora": {"adapter.kind": "lora"},
    "qlora": {"adapter.kind": "qlora"},
}
"""What follows a method's name behind a colon -> settings."""
OWN = ("learning_rate", "freeze")
"""Settings of `train` that, like those of `adapter`, a recipe makes for the method that it names."""


def variants(method: str) -> dict[str, str]:
    """Return the settings behind `generator:lora` and its like. Raises RecipeError for an unknown one."""
    name, _, variant = method.partition(":")
    if name not in METHODS or (variant and variant not in METHODS[name].variants):
        raise RecipeError(
            f"no method {method!r}", expected=", ".join([*METHODS, "generator:untuned", "generator:lora"])
        )
    return {"method": name, **(VARIANTS[variant] if variant else {})}


def defaults_for(variant: Sequence[str], recipe: Recipe) -> list[str]:
    """Return a method's defaults for what a recipe sets for another method, the one that it names."""
    defaults = recipes.load({}, [f"task={recipe.task}", *variant])
    if "method" not in recipe.model_fields_set or find(defaults) is find(recipe):
        return []
    own = {"adapter": recipe.adapter.model_fields_set, "train": recipe.train.model_fields_set & set(OWN)}
    content = defaults.model_dump(mode="json")
    words = {f"{section}.{name}": content[section][name] for section in own for name in sorted(own[section])}
    if words:
        note = f"note: {defaults.method} is trained with its defaults of {', '.join(words)}"
        say(f"{note}: the recipe sets them for {recipe.method}")
    return [f"{name}={json.dumps(value)}" for name, value in words.items()]


def of_method(recipe: Recipe, method: str) -> Recipe:
    """Return the recipe with another method, as `compare --methods` names it. Raises RecipeError."""
    variant = [f"{key}={value}" for key, value in variants(method).items()]
    return recipes.load(recipe, [*defaults_for(variant, recipe), *variant])


def refitting(recipe: Recipe) -> list[str]:
    """Return the names of methods that learn the recipe's task and are fitted to many parts of its rows in no time."""
    return [name for name, method in METHODS.items() if method.refits_cheaply and recipe.task in method.tasks]


def find(recipe: Recipe) -> Method:
    """Return the method of a recipe. Raises RecipeError if it cannot learn the recipe's task."""
    method = METHODS[recipe.method]
    if recipe.task not in method.tasks:
        able = [name for name, other in METHODS.items() if recipe.task in other.tasks]
        raise RecipeError(
            f"method {recipe.method} cannot learn task {recipe.task}", expected=" or ".join(able), do="set method"
        )
    return method


def library(name: str) -> str | None:
    """Return what loads the model folder of a run without tunesmith, by what the run is called in a comparison."""
    method, _, variant = name.partition(":")
    known = METHODS[method].library if method in METHODS else None
    return "peft" if known and variant else known


def load_predictor(run: Run) -> Predictor:
    """Return what a finished run trained. Raises RunError where its files are not as they were written."""
    run.verify_model()
    with processes.loading():
        return METHODS[run.finished.method].load(run.model, run.recipe)


def load_text_predictor(run: Run) -> TextPredictor:
    """Return what a finished run trained for labels or numbers. Raises RunError for a run of another task."""
    predictor = load_predictor(run)
    if not isinstance(predictor, TextPredictor):
        raise RunError(f"{run.path} does not predict labels or numbers", found=f"a run of task {run.recipe.task}")
    return predictor


def _regression(recipe: Recipe) -> str:
    return {"regression": "ridge regression"}.get(recipe.task, "logistic regression")


def learns(recipe: Recipe) -> bool:
    """Return whether a recipe trains at all."""
    return bool(recipe.train.max_steps or recipe.train.num_train_epochs)


def _begins_at_random(recipe: Recipe) -> bool:
    return recipe.model.from_config is not None and recipe.model.state_dict is None


def _model(recipe: Recipe) -> str:
    if recipe.model.from_config and _begins_at_random(recipe):
        return f"{recipe.model.from_config.get('model_type', 'model')} with random initial weights"
    path = Path(recipe.model.name_or_path.removeprefix("pypi:"))
    return path.parent.name if path.name == "model" else path.name  # a run's model goes by the run's name
