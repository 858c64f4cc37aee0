"""The methods by name: how each is described, trained and loaded. A new method is a row in METHODS.

What a method needs is imported when it runs: a linear model is trained and served without torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tunesmith.errors import RunError
from tunesmith.pipeline.job import Job
from tunesmith.recipe import Recipe
from tunesmith.runs import Run
from tunesmith.types import Fitted, Predictor


@dataclass(frozen=True)
class Method:
    """One way to learn a classifier."""

    describe: Callable[[Recipe], str]
    prepare: Callable[[Recipe], None]
    """Imports libraries and fetches files, so that the time of `fit` is training alone."""
    fit: Callable[[Job], Fitted]
    load: Callable[[Path, bool], Predictor]
    """From a model folder; the flag says whether code that came with the model may run."""


def load_predictor(run: Run) -> Predictor:
    """The predictor that a finished run trained."""
    manifest = run.manifest
    if manifest["status"] != "finished":
        raise RunError(f"{run.path} has not finished", do=f"go on with it: tunesmith train --resume {run.path}")
    return METHODS[manifest["method"]].load(run.model, manifest["trust_remote_code"])


def _prepare_linear(recipe: Recipe) -> None:
    from tunesmith.models import linear

    linear.prepare()


def _fit_linear(job: Job) -> Fitted:
    from tunesmith.models import linear

    return linear.fit(job.splits.train, job.splits.labels, job.recipe.linear, job.weights())


def _load_linear(folder: Path, trust_remote_code: bool) -> Predictor:
    from tunesmith.models.linear import LinearClassifier

    return LinearClassifier.load(folder)


def _prepare_probe(recipe: Recipe) -> None:
    from tunesmith.models import linear, load

    linear.prepare()
    load.prepare(recipe.model)


def _fit_probe(job: Job) -> Fitted:
    from tunesmith.models import load
    from tunesmith.prediction import classify

    recipe, splits = job.recipe, job.splits
    tokenizer = load.tokenizer(recipe.model)
    body, limit = load.body(recipe.model, recipe.seed), load.longest_input(recipe.model, tokenizer)
    encoder = classify.Encoder(body, tokenizer, limit, recipe.engine.max_tokens_per_micro_batch)
    return classify.fit_probe(encoder, splits.train, splits.labels, recipe.probe, recipe.linear, job.weights())


def _load_probe(folder: Path, trust_remote_code: bool) -> Predictor:
    from tunesmith.prediction.classify import ProbeClassifier

    return ProbeClassifier.load(folder, trust_remote_code)


def _prepare_encoder(recipe: Recipe) -> None:
    from tunesmith.models import load
    from tunesmith.pipeline import finetune  # noqa: F401

    load.prepare(recipe.model)


def _fit_encoder(job: Job) -> Fitted:
    from tunesmith.pipeline import finetune

    return finetune.fit(job)


def _load_encoder(folder: Path, trust_remote_code: bool) -> Predictor:
    from tunesmith.prediction.classify import EncoderClassifier

    return EncoderClassifier.load(folder, trust_remote_code)


def _describe_linear(recipe: Recipe) -> str:
    kind = {"tfidf": "TF-IDF", "count": "counts"}[recipe.linear.vectorizer]
    ranges = (("word", recipe.linear.word_ngrams), ("character", recipe.linear.char_ngrams))
    grams = " and ".join(f"{name} {pair[0]}-{pair[1]}-grams" for name, pair in ranges if pair)
    return f"{kind} of {grams} + logistic regression"


def _describe_probe(recipe: Recipe) -> str:
    return f"frozen {_model(recipe)} ({recipe.probe.pooling} pooling) + logistic regression"


def _describe_encoder(recipe: Recipe) -> str:
    part = {"none": "fine-tuned", "embeddings": "fine-tuned (embeddings frozen)", "body": "head trained on frozen"}
    length = (
        f"{recipe.train.max_steps} steps" if recipe.train.max_steps else f"{recipe.train.num_train_epochs:g} epoch(s)"
    )
    return f"{part[recipe.train.freeze]} {_model(recipe)}, {length}"


def _model(recipe: Recipe) -> str:
    return Path(recipe.model.name_or_path.removeprefix("pypi:")).name


METHODS = {
    "linear": Method(_describe_linear, _prepare_linear, _fit_linear, _load_linear),
    "probe": Method(_describe_probe, _prepare_probe, _fit_probe, _load_probe),
    "encoder": Method(_describe_encoder, _prepare_encoder, _fit_encoder, _load_encoder),
}
