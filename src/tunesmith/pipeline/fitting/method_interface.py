"""What the rest of the package knows of a method: how it is described, trained, loaded and priced."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tunesmith.hardware import Stopwatch
from tunesmith.manifest import EndpointCosts
from tunesmith.pipeline.fitting.inspection import TokenCounts
from tunesmith.pipeline.fitting.job import Job
from tunesmith.protocols import Predictor, TrainResult
from tunesmith.recipe import Recipe
from tunesmith.recipe.names import VARIANTS
from tunesmith.tasks.text_targets import Target
from tunesmith.types import Splits


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
    probabilities_by: str = ""
    """The setting that gives predictions of labels probabilities where they can have none."""
    is_charged: bool = False
    """Whether every prediction costs money: only the rows that scores need are then predicted."""
    weights: str = "."
    """Folder, in the model folder, of weights that another run can begin with."""

    def uses_train(self, recipe: Recipe) -> bool:
        """Return whether predictions depend on the training rows: some method only knows labels, or is as it came."""
        return True

    def describe(self, recipe: Recipe) -> str:
        """Return what the recipe trains, in a few words."""
        raise NotImplementedError

    def model(self, recipe: Recipe) -> str | None:
        """Return the name of the pretrained model; None if there is none."""
        return None

    def prepare(self, recipe: Recipe) -> None:
        """Import libraries and fetch files, so that the time of `fit` is training alone."""

    def announce(self, recipe: Recipe, splits: Splits, target: Target, runs: int = 1) -> str | None:
        """Return what should be known before anything is trained; None if nothing. Raises RecipeError to prevent it.

        runs: how often the test rows will be predicted, each time by a model of other rows or another seed.
        """
        return None

    def fit(self, job: Job) -> TrainResult:
        """Train."""
        raise NotImplementedError

    def refits(self, recipe: Recipe) -> Callable[[Job], TrainResult]:
        """Return what does the same as `fit` for jobs on parts of the same rows, and computes what they share once."""
        return self.fit

    def account(self, job: Job, predictor: Predictor, watch: Stopwatch) -> EndpointCosts | None:
        """Return what predicting the test rows took of an endpoint, after it; None of a model in this process."""
        return None

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

    def variant_settings(self, variant: str) -> dict[str, str] | None:
        """Return the settings behind what may follow the method's name and a colon; None for an unknown one."""
        return VARIANTS[variant] if variant in self.variants else None

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


def learns(recipe: Recipe) -> bool:
    """Return whether a recipe trains at all."""
    return bool(recipe.train.max_steps or recipe.train.num_train_epochs)
