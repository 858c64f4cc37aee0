"""Which words made a prediction: exact contributions, integrated gradients, or the effect of leaving a word out.

What is explained is the score of one label, or the predicted number. The score of a linear model is the logit (of two
labels, the difference of their logits), which is a sum over n-grams. That of other models is the log-odds: of a label
that is predicted by itself its logit, of two labels the difference of their logits.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tunesmith.console import silence, track
from tunesmith.errors import RecipeError
from tunesmith.models.linear import LinearPredictor
from tunesmith.models.ngrams import CHARACTERS, SECOND, BagOfWords, Span
from tunesmith.prediction.words import Words, texts_of
from tunesmith.protocols import Exportable, TextPredictor
from tunesmith.tasks import classification
from tunesmith.tasks.classification import SingleLabel
from tunesmith.tasks.regression import Number
from tunesmith.types import (
    Example,
    Explanation,
    MultilabelPrediction,
    NgramContribution,
    ValuePrediction,
)

Floats = NDArray[np.float64]
AUTO = "auto"
NOTHING = "..."
"""Stands for a text whose only word is left out."""
MOST = 30.0
"""Largest log-odds, as those of a probability of 1 are infinite."""
VARIANTS_AT_ONCE = 64
"""Texts with a word left out that are predicted together."""
POINTS = (32, 256)
"""Points between baseline and text at which gradients are computed, at first and at most."""
TOLERANCE = 0.01
"""Gap that needs no more points: relative to the difference from the baseline if that is above 1, else absolute."""


@dataclass(frozen=True, slots=True)
class TokenContributions:
    """What the tokens of an example add to a score."""

    places: Sequence[tuple[int, Span]]
    """Of each token: its text (0 or 1), and its characters there."""
    contributions: Sequence[float]
    score: float
    baseline: float

    @property
    def gap(self) -> float:
        """By how much baseline and contributions miss the score."""
        return self.score - self.baseline - sum(self.contributions)


@runtime_checkable
class Differentiable(Protocol):
    """A predictor whose scores have gradients."""

    @property
    def locates_tokens(self) -> bool:
        """Whether its tokenizer tells which characters a token stands for."""

    def integrated_gradients(
        self, example: Example, output: int, points: int, on_batch: Callable[[], None]
    ) -> TokenContributions:
        """Return what each token adds to the score of an output. on_batch: called before each batch."""


@dataclass(frozen=True, slots=True)
class _Attribution:
    words: Words
    score: float
    baseline: float | None = None
    ngrams: tuple[NgramContribution, ...] | None = None

    @property
    def gap(self) -> float | None:
        return None if self.baseline is None else self.score - self.baseline - float(self.words.sums.sum())


def explain(
    predictor: TextPredictor,
    examples: Sequence[Example],
    label: str | None = None,
    method: str = AUTO,
    *,
    points: tuple[int, int] = POINTS,
    on_batch: Callable[[], None] = lambda: None,
) -> list[Explanation]:
    """Return why a predictor says what it says of some examples, in their order.

    label: whose score is explained; by default the predicted label, each of several predicted ones, or the most
    probable one where none is predicted. method: `auto` or a key of METHODS. points: of integrated gradients, at first
    and at most. on_batch: called before each batch of the model; what it raises ends the work.

    Raises RecipeError for an unknown label, and for a method that the predictor cannot be explained by; ModelError for
    predictions of labels without probabilities.
    """
    if label is not None and label not in predictor.labels:
        expected = ", ".join(predictor.labels) or "none, as numbers are predicted"
        raise RecipeError(f"no label {label!r}", expected=expected, do="give another label, or leave it out")
    name = _method(predictor, method)
    explanations: list[Explanation] = []
    predictions = predictor.predict(examples)
    if predictor.labels:
        classification.check_probabilities(predictions, "explain predictions")
    for example, prediction in track(zip(examples, predictions, strict=True), "explain", len(examples)):
        outputs = _outputs(predictor, prediction, label)
        with silence():
            attributions = METHODS[name].attribute(predictor, example, outputs, points, on_batch)
        for output, attribution in zip(outputs, attributions, strict=True):
            is_number = isinstance(prediction, ValuePrediction)
            explanations.append(
                Explanation(
                    id=example.id,
                    text=example.text,
                    text_pair=example.text_pair,
                    label=None if is_number else predictor.labels[output],
                    predicted=_predicted(prediction),
                    probability=None if is_number else prediction.probabilities[output],
                    method=name,
                    score=attribution.score,
                    baseline=attribution.baseline,
                    gap=attribution.gap,
                    words=attribution.words.contributions(),
                    ngrams=attribution.ngrams,
                )
            )
    return explanations


def cost(predictor: TextPredictor, example: Example, points: int) -> int:
    """Return about how many predictions the explanation of an example takes by the method that is `auto`."""
    return METHODS[_method(predictor, AUTO)].cost(example, points)


def _method(predictor: TextPredictor, method: str) -> str:
    able = [name for name, entry in METHODS.items() if entry.suits(predictor)]
    if method == AUTO:
        return able[0]
    if method not in able:
        problem = f"cannot explain this model by {method}" if method in METHODS else f"no method {method!r}"
        raise RecipeError(problem, expected=", ".join([AUTO, *able]), do="give another method")
    return method


def _outputs(predictor: TextPredictor, prediction: Any, label: str | None) -> list[int]:
    """Return the outputs whose scores are explained."""
    if isinstance(prediction, ValuePrediction):
        return [0]
    labels = predictor.labels
    if label is not None:
        return [labels.index(label)]
    chosen = prediction.labels if isinstance(prediction, MultilabelPrediction) else (prediction.label,)
    known = [labels.index(name) for name in chosen if name in labels]
    return known or [int(np.argmax(prediction.probabilities))]


def _predicted(prediction: Any) -> str | tuple[str, ...] | float:
    if isinstance(prediction, ValuePrediction):
        return prediction.value
    return prediction.labels if isinstance(prediction, MultilabelPrediction) else str(prediction.label)


# --- exact, of a bag of words


def _exact(
    predictor: LinearPredictor, example: Example, outputs: Sequence[int], points: object, on_batch: Callable[[], None]
) -> list[_Attribution]:
    """Return value times weight of each n-gram, divided among its occurrences, and these among their words."""
    on_batch()
    features, values = predictor.features(example)
    known = predictor.vocabulary
    located = [(gram, places) for gram, places in BagOfWords(predictor.settings).located(example) if gram in known]
    counts = Counter(gram for gram, _ in located)
    columns = [known[gram] for gram in counts]
    numbers = np.searchsorted(features, np.array(columns, dtype=np.int64)).tolist()
    attributions = []
    for output in outputs:
        direction = _direction(predictor, output)
        weights = predictor.regression.weights_of(features) @ direction
        ngrams = {
            gram: _ngram(gram, counts[gram], float(values[number]), float(weights[number]))
            for gram, number in zip(counts, numbers, strict=True)
        }
        words = Words(example)
        for gram, places in located:
            share = ngrams[gram].contribution / counts[gram] / len(places)
            for span in places:
                words.add(int(gram.startswith(SECOND)), span, share)
        target = predictor.target
        baseline = float(predictor.regression.bias @ direction) + (target.mean if isinstance(target, Number) else 0.0)
        ranked = sorted(ngrams.values(), key=lambda ngram: (-abs(ngram.contribution), ngram.ngram))
        attributions.append(_Attribution(words, float(values @ weights) + baseline, baseline, tuple(ranked)))
    return attributions


def _direction(predictor: LinearPredictor, output: int) -> Floats:
    """Return the outputs of the regression (one, or one for each label) as parts of a score."""
    size = len(predictor.regression.bias)
    if isinstance(predictor.target, SingleLabel) and len(predictor.labels) == 2:
        signs = np.array([1.0, -1.0]) if output == 0 else np.array([-1.0, 1.0])
        return signs[-size:]  # one output is the second label's, and the first one's is 0
    if isinstance(predictor.target, Number):
        return np.array([predictor.target.scale])
    return np.asarray(np.eye(size)[output])


def _ngram(gram: str, count: int, value: float, weight: float) -> NgramContribution:
    second, gram = gram.startswith(SECOND), gram.removeprefix(SECOND)
    characters, gram = gram.startswith(CHARACTERS), gram.removeprefix(CHARACTERS)
    return NgramContribution(gram, count, value, weight, value * weight, characters or None, second or None)


# --- integrated gradients, of an encoder


def _integrate(
    predictor: Any, example: Example, outputs: Sequence[int], points: tuple[int, int], on_batch: Callable[[], None]
) -> list[_Attribution]:
    """Return the integrated gradients of the tokens, divided among their words."""
    attributions = []
    for output in outputs:
        count, most = points
        tokens = predictor.integrated_gradients(example, output, count, on_batch)
        while abs(tokens.gap) > TOLERANCE * max(1.0, abs(tokens.score - tokens.baseline)) and 2 * count <= most:
            count *= 2
            tokens = predictor.integrated_gradients(example, output, count, on_batch)
        words = Words(example)
        for (number, span), contribution in zip(tokens.places, tokens.contributions, strict=True):
            words.add(number, span, contribution)
        attributions.append(_Attribution(words, tokens.score, tokens.baseline))
    return attributions


# --- occlusion, of any predictor


def _occlude(
    predictor: TextPredictor, example: Example, outputs: Sequence[int], points: object, on_batch: Callable[[], None]
) -> list[_Attribution]:
    """Return by how much the score falls where a word is left out, or a mask stands in its place."""
    tokenizer = predictor.parts().tokenizer if isinstance(predictor, Exportable) else None
    mask = getattr(tokenizer, "mask_token", None)
    sums = [Words(example) for _ in outputs]
    words = sums[0].spans
    if getattr(tokenizer, "truncation_side", "right") == "right":
        example, words = _cut(predictor, example, words)
    variants = [_without(example, *word, mask) for word in words]
    (whole,) = predictor.predict([example])
    for start in range(0, len(variants), VARIANTS_AT_ONCE):
        on_batch()
        for place, prediction in enumerate(predictor.predict(variants[start : start + VARIANTS_AT_ONCE]), start):
            for output, words_of in zip(outputs, sums, strict=True):
                words_of.sums[place] = _score(whole, output) - _score(prediction, output)
    return [_Attribution(words_of, _score(whole, output)) for output, words_of in zip(outputs, sums, strict=True)]


def _cut(
    predictor: TextPredictor, example: Example, words: list[tuple[int, Span]]
) -> tuple[Example, list[tuple[int, Span]]]:
    """Return the example without what the model does not read, which would take the place of a word that is left out.

    Of pairs both texts may be cut, and all words are tried.
    """
    limit = predictor.max_length
    if limit is None or example.text_pair is not None or predictor.count_tokens(example) <= limit:
        return example, words

    def tokens_before(word: tuple[int, Span]) -> int:
        return predictor.count_tokens(replace(example, text=example.text[: word[1][0]].rstrip()))

    count = bisect_left(words, limit, lo=1, key=tokens_before)
    return replace(example, text=example.text[: words[count - 1][1][1]]), words[:count]


def _without(example: Example, number: int, span: Span, mask: str | None) -> Example:
    """Return the example without a word of a text (0 or 1), or with the mask in its place."""
    text = texts_of(example)[number]
    before, after = text[: span[0]], text[span[1] :]
    if mask is not None:
        text = before + mask + after
    elif not before[-1:].strip() and not after[:1].strip():  # one of the spaces around it goes, too
        text = before + after[1:] if after else before[:-1]
    else:
        text = before + after
    text = text if text.strip() else NOTHING
    return replace(example, text_pair=text) if number else replace(example, text=text)


def _score(prediction: Any, output: int) -> float:
    """Return a predicted number, or the log-odds of an output."""
    if isinstance(prediction, ValuePrediction):
        return prediction.value
    probability, all_of_them = prediction.probabilities[output], prediction.probabilities
    if isinstance(prediction, MultilabelPrediction):
        others = 1 - probability
    else:  # more exact than 1 - probability where that is near 1
        others = math.fsum(all_of_them[:output]) + math.fsum(all_of_them[output + 1 :])
    if probability <= 0 or others <= 0:
        return MOST if probability > 0 else -MOST
    return min(MOST, max(-MOST, math.log(probability) - math.log(others)))


@dataclass(frozen=True, slots=True)
class _Method:
    suits: Callable[[TextPredictor], bool]
    attribute: Callable[..., list[_Attribution]]
    cost: Callable[[Example, int], int]
    """Example, points -> about how many predictions it takes; a gradient takes twice as long as a prediction."""


METHODS = {
    "exact": _Method(lambda predictor: isinstance(predictor, LinearPredictor), _exact, lambda example, points: 0),
    "integrated-gradients": _Method(
        lambda predictor: isinstance(predictor, Differentiable) and predictor.locates_tokens,
        _integrate,
        lambda example, points: 3 * points,
    ),
    "occlusion": _Method(lambda predictor: True, _occlude, lambda example, points: len(Words(example).spans)),
}
"""The best method first; `auto` is the first that suits a predictor."""
