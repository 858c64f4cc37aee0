"""The methods by name: how each is described, trained and loaded. A new method is a row in METHODS.

What a method needs is imported when it runs: a linear model is trained and served without torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tunesmith.pipeline.job import Job
from tunesmith.recipe import Recipe
from tunesmith.runs import Run
from tunesmith.types import Fitted, Predictor


@dataclass(frozen=True)
class Method:
    """One way to learn a classifier."""

    describe: Callable[[Recipe], str]
    fit: Callable[[Job], Fitted]
    load: Callable[[Path], Predictor]


def load_predictor(run: Run) -> Predictor:
    """The predictor that a finished run trained."""
    return METHODS[run.manifest["method"]].load(run.model)


def _fit_linear(job: Job) -> Fitted:
    from tunesmith.models import linear

    return linear.fit(job.splits.train, job.splits.labels, job.recipe.linear, job.weights())


def _load_linear(folder: Path) -> Predictor:
    from tunesmith.models.linear import LinearClassifier

    return LinearClassifier.load(folder)


def _fit_probe(job: Job) -> Fitted:
    from accelerate import Accelerator

    from tunesmith.models import load
    from tunesmith.prediction import classify

    recipe, splits = job.recipe, job.splits
    device = Accelerator().device
    body, tokenizer = load.body(recipe.model).to(device), load.tokenizer(recipe.model)
    limit = load.longest_input(body, tokenizer, recipe.model.max_length)
    encoder = classify.Encoder(body, tokenizer, limit, recipe.train.max_tokens_per_micro_batch)
    return classify.fit_probe(encoder, splits.train, splits.labels, recipe.probe, recipe.linear, job.weights())


def _load_probe(folder: Path) -> Predictor:
    from tunesmith.prediction.classify import ProbeClassifier

    return ProbeClassifier.load(folder)


def _fit_encoder(job: Job) -> Fitted:
    from tunesmith.pipeline import finetune

    return finetune.fit(job)


def _load_encoder(folder: Path) -> Predictor:
    from tunesmith.prediction.classify import EncoderClassifier

    return EncoderClassifier.load(folder)


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
    "linear": Method(_describe_linear, _fit_linear, _load_linear),
    "probe": Method(_describe_probe, _fit_probe, _load_probe),
    "encoder": Method(_describe_encoder, _fit_encoder, _load_encoder),
}
