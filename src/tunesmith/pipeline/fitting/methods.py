"""The methods by name: how each is described, trained and loaded. A new method is a class, and a row in METHODS.

What a method needs is imported when it runs: a linear model is trained and served without torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith import processes, recipe as recipes
from tunesmith.console import say
from tunesmith.errors import RecipeError, RunError
from tunesmith.hardware import Stopwatch
from tunesmith.manifest import EndpointCosts
from tunesmith.pipeline.fitting import inspection
from tunesmith.pipeline.fitting.inspection import TokenCounts
from tunesmith.pipeline.fitting.job import Job
from tunesmith.pipeline.fitting.method_interface import Method, learns
from tunesmith.pipeline.fitting.probe_fits import ProbeFits
from tunesmith.protocols import Predictor, TextPredictor, TrainResult
from tunesmith.recipe import Endpoint, Prompt, Recipe
from tunesmith.reporting.format import counted
from tunesmith.runs import Run
from tunesmith.tasks.text_targets import Target
from tunesmith.types import Splits

if TYPE_CHECKING:
    from tunesmith.prediction.classify import Encoder

PROGRAMS = ("onnx", "onnx-int8", "openvino", "torch-export", "torchscript")
WEIGHTS = ("safetensors", "adapter", "pth")


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

    tasks: tuple[str, ...] = ("classification", "multilabel", "regression")
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
        with processes.sharing():
            return ProbeFits(self._encoder(job.recipe))(job)

    def refits(self, recipe: Recipe) -> Callable[[Job], TrainResult]:
        from tunesmith.prediction import classify

        return ProbeFits(classify.RememberingEncoder.of(self._encoder(recipe)))

    def _encoder(self, recipe: Recipe) -> Encoder:
        from tunesmith.prediction import classify

        return classify.frozen(recipe.model, recipe.seed, recipe.engine.max_tokens_per_micro_batch)

    def load(self, folder: Path, recipe: Recipe) -> Predictor:
        from tunesmith.prediction.classify import ProbePredictor

        return ProbePredictor.load(folder, recipe.model.trust_remote_code)

    def inspect(self, recipe: Recipe, splits: Splits, target: Target) -> TokenCounts:
        return inspection.count_encoded(recipe, splits)


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


class ContrastiveMethod(ProbeMethod):
    """A probe on an encoder that was fine-tuned on pairs of texts: for few labels."""

    tasks = ("classification", "multilabel")
    refits_cheaply = False
    refits = Method.refits
    weights = "encoder"

    def describe(self, recipe: Recipe) -> str:
        return f"contrastively {METHODS['encoder'].describe(recipe)} + {_regression(recipe)}"

    def prepare(self, recipe: Recipe) -> None:
        from tunesmith.pipeline.fitting import contrastive  # noqa: F401

        super().prepare(recipe)

    def fit(self, job: Job) -> TrainResult:
        from tunesmith.pipeline.fitting import contrastive

        return contrastive.fit(job)


class GeneratorMethod(FineTunedMethod):
    """A causal language model that answers a prompt."""

    tasks = ("classification", "multilabel", "regression", "instruction")
    variants = ("untuned", "full", "lora", "qlora")
    probabilities_by = "predict.mode=score"
    export_targets = (*WEIGHTS, *PROGRAMS, "gguf", "ollama")

    def uses_train(self, recipe: Recipe) -> bool:
        return learns(recipe) or recipe.prompt.shots > 0

    def describe(self, recipe: Recipe) -> str:
        return ", ".join(filter(None, (super().describe(recipe), _shots(recipe.prompt, recipe.prompt.shot_encoder))))

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


class EndpointMethod(Method):
    """A model behind an endpoint, prompted with or without examples. Nothing is trained."""

    tasks = ("classification", "multilabel", "regression", "instruction")
    export_targets = ()
    probabilities_by = "endpoint.samples above 1"
    is_charged = True

    def uses_train(self, recipe: Recipe) -> bool:
        return recipe.endpoint.shots > 0

    def describe(self, recipe: Recipe) -> str:
        shots = _shots(recipe.endpoint, recipe.prompt.shot_encoder)
        return f"prompted {self.model(recipe)}, {shots or 'zero-shot'}"

    def model(self, recipe: Recipe) -> str:
        from tunesmith.pipeline.fitting import prompting

        return prompting.model_name(recipe)

    def announce(self, recipe: Recipe, splits: Splits, target: Target, runs: int = 1) -> str:
        from tunesmith.pipeline.fitting import prompting

        return prompting.announce(recipe, splits, target, runs)

    def fit(self, job: Job) -> TrainResult:
        from tunesmith.pipeline.fitting import prompting

        return prompting.fit(job)

    def account(self, job: Job, predictor: Predictor, watch: Stopwatch) -> EndpointCosts | None:
        from tunesmith.pipeline.fitting import prompting

        return prompting.account(job, predictor, watch)

    def load(self, folder: Path, recipe: Recipe) -> Predictor:
        from tunesmith.pipeline.fitting import prompting

        return prompting.load(folder, recipe)

    def inspect(self, recipe: Recipe, splits: Splits, target: Target) -> TokenCounts:
        from tunesmith.pipeline.fitting import prompting

        return TokenCounts(prompt=prompting.rendered(recipe, splits, target))

    def variant_settings(self, variant: str) -> dict[str, str]:
        return {"endpoint.model": json.dumps(variant)}

    def name(self, recipe: Recipe) -> str:
        return f"endpoint:{self.model(recipe)}"


METHODS: dict[str, Method] = {
    "linear": LinearMethod(),
    "probe": ProbeMethod(),
    "encoder": EncoderMethod(),
    "encoder:contrastive": ContrastiveMethod(),
    "generator": GeneratorMethod(),
    "endpoint": EndpointMethod(),
}
OWN = ("learning_rate", "freeze")
"""Settings of `train` that, like those of `adapter`, a recipe makes for the method that it names."""


def variants(method: str) -> dict[str, str]:
    """Return the settings behind `generator:lora` and its like. Raises RecipeError for an unknown one."""
    if method in METHODS:
        return {"method": method}
    name, _, variant = method.partition(":")
    settings = METHODS[name].variant_settings(variant) if name in METHODS and variant else None
    if settings is None:
        named = ["generator:untuned", "generator:lora", "endpoint:MODEL"]
        raise RecipeError(f"no method {method!r}", expected=", ".join([*METHODS, *named]))
    return {"method": name, **settings}


def defaults_for(variant: Sequence[str], recipe: Recipe) -> list[str]:
    """Return a method's defaults for what a recipe sets otherwise for another method, the one that it names."""
    defaults = recipes.load({}, [f"task={recipe.task}", *variant])
    if "method" not in recipe.model_fields_set or find(defaults) is find(recipe):
        return []
    own = {"adapter": recipe.adapter.model_fields_set, "train": recipe.train.model_fields_set & set(OWN)}
    content, given = defaults.model_dump(mode="json"), recipe.model_dump(mode="json")
    words = {
        f"{section}.{name}": content[section][name]
        for section in own
        for name in sorted(own[section])
        if content[section][name] != given[section][name]
    }
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


def check_probabilities(recipe: Recipe, action: str) -> None:
    """Raise RecipeError, `cannot ACTION`, where a recipe's predictions of labels have no probabilities."""
    if not recipe.gives_probabilities:
        raise RecipeError(
            f"cannot {action}: {METHODS[recipe.method].name(recipe)} gives no probabilities",
            expected="a probability for each label",
            do=f"set {METHODS[recipe.method].probabilities_by}, or use another method",
        )


def library(name: str) -> str | None:
    """Return what loads the model folder of a run without tunesmith, by what the run is called in a comparison."""
    if name in METHODS:
        return METHODS[name].library
    method = METHODS.get(name.partition(":")[0])
    return "peft" if method and method.library else None


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


def _shots(settings: Prompt | Endpoint, encoder: str) -> str | None:
    """Return how many shots prompts show, and how they are selected; None without any."""
    if not settings.shots:
        return None
    by = f" by {_base_name(encoder)}" if settings.shot_selection == "nearest" else ""
    return f"{settings.shots} {settings.shot_selection} {'shot' if settings.shots == 1 else 'shots'}{by}"


def _begins_at_random(recipe: Recipe) -> bool:
    return recipe.model.from_config is not None and recipe.model.state_dict is None


def _model(recipe: Recipe) -> str:
    if recipe.model.from_config and _begins_at_random(recipe):
        return f"{recipe.model.from_config.get('model_type', 'model')} with random initial weights"
    return _base_name(recipe.model.name_or_path)


def _base_name(model: str) -> str:
    path = Path(model.removeprefix("pypi:"))
    return path.parent.name if path.name == "model" else path.name  # a run's model goes by the run's name
