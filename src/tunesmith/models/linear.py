"""Bag of words and logistic regression: the baseline, and the head of a probe.

scikit-learn learns the vocabulary, the weights of the n-grams and the regression; these are stored as safetensors and
JSON, and predicting needs numpy only (importing scikit-learn takes longer than predicting).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from tunesmith import console, records
from tunesmith.data import labels as names
from tunesmith.errors import ModelError, TrainingError
from tunesmith.manifest import TrainingNotes
from tunesmith.protocols import ModelParts, TrainResult
from tunesmith.recipe import Generate, Linear
from tunesmith.types import Example, Prediction

Floats = NDArray[np.float64]
WORD = re.compile(r"(?u)\b\w\w+\b")
WEIGHTS, SETTINGS = "linear.safetensors", "linear.json"
SCORES_AT_ONCE = 1 << 22
"""Scores (texts x classes) computed at once: 32 MB, and a few times that for their probabilities."""
FEW_CLASSES = 20
"""Up to here lbfgs needs no more memory than the texts do, whatever their number."""
MANY_CLASSES = 500
"""Above this the user is told what solver their number means."""
EXACT_MEMORY = 1 << 30
"""Bytes that an exact solver may take."""
ADVICE = {
    "newton-cg": "fitted by newton-cg, which finds the exact optimum",
    "low-rank": "fitted as weights of rank 128 or less in minibatches, as an exact solver would take more than 1 GB; "
    "where both were measured, the accuracy was between 2 points lower and 30 points higher. Fewer n-grams "
    "(linear.min_df or linear.max_features) may leave room for an exact solver",
}
"""What the solver of many classes means for the user."""


def solver(rows: int, features: int, classes: int) -> Literal["lbfgs", "newton-cg", "low-rank"]:
    """Return the solver for this shape. The first two find the same optimum; docs/decisions.md has the measurements."""
    if classes <= FEW_CLASSES:
        return "lbfgs"
    # newton-cg of scikit-learn 1.9 holds 12 arrays like the weights and 4 like the scores.
    return "newton-cg" if 8 * classes * (12 * features + 4 * rows) <= EXACT_MEMORY else "low-rank"


@dataclass(frozen=True)
class Regression:
    """Multinomial logistic regression. weight: classes x features; bias: classes. Two classes have one row.

    Weights of low rank are two factors: `weight` is classes x rank, and `projection` features x rank.
    """

    weight: Floats
    bias: Floats
    projection: Floats | None = None

    @classmethod
    def fit(cls, features: Any, gold: Sequence[int], settings: Linear, weights: Floats) -> Regression:
        """Fit on rows of features (sparse or dense) with one weight per class."""
        (rows, columns), classes = features.shape, len(weights)
        name, targets = solver(rows, columns, classes), np.asarray(gold)
        if classes > MANY_CLASSES:
            console.warn(f"{classes:,} classes, {rows:,} rows, {columns:,} features: {ADVICE[name]}")
        if name == "low-rank":
            from tunesmith.models import low_rank

            projection, weight, bias = low_rank.fit(features, targets, weights[targets], classes, settings.C)
            if isinstance(features, np.ndarray):  # of a probe: few columns, so that the product is small
                return cls(weight @ projection.T, bias)
            return cls(weight, bias, projection)
        from sklearn.linear_model import LogisticRegression

        # The solvers stop at a gradient of `tol` in every weight, and gradients of K classes are 1 / K as large.
        tol = 1e-4 if name == "lbfgs" else 1e-5 / classes
        model = LogisticRegression(C=settings.C, max_iter=settings.max_iter, solver=name, tol=tol)
        model.fit(features, targets, sample_weight=weights[targets])
        return cls(model.coef_, model.intercept_)

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(tensor.size for tensor in self.tensors().values())

    def probabilities(self, scores: Floats) -> Floats:
        """Return probabilities, rows x classes, from class scores without bias."""
        logits = scores + self.bias
        if logits.shape[1] == 1:
            logits = np.hstack([np.zeros_like(logits), logits])
        return names.softmax(logits)

    def tensors(self) -> dict[str, Any]:
        factors = {"weight": self.weight, "bias": self.bias, "projection": self.projection}
        return {name: np.ascontiguousarray(factor) for name, factor in factors.items() if factor is not None}


@dataclass(frozen=True)
class BagOfWords:
    """The n-grams of a text, as scikit-learn's analyzers `word` and `char_wb` define them."""

    settings: Linear

    def __call__(self, example: Example) -> list[str]:
        """Return all n-grams of an example. Those of the second text are marked, to tell the two texts apart."""
        grams = self._grams(example.text)
        if example.text_pair is not None:
            grams += [f"2|{gram}" for gram in self._grams(example.text_pair)]
        return grams

    def _grams(self, text: str) -> list[str]:
        text = text.lower() if self.settings.lowercase else text
        grams: list[str] = []
        if self.settings.word_ngrams:
            shortest, longest = self.settings.word_ngrams
            words = WORD.findall(text)
            for n in range(shortest, longest + 1):
                grams += words if n == 1 else map(" ".join, zip(*(words[i:] for i in range(n)), strict=False))
        if self.settings.char_ngrams:
            shortest, longest = self.settings.char_ngrams
            for word in (f" {word} " for word in text.split()):
                for n in range(shortest, longest + 1):
                    grams += [f"c|{word[i : i + n]}" for i in range(max(1, len(word) - n + 1))]
                    if n >= len(word):  # a short word counts once, as a whole
                        break
        return grams


@dataclass(frozen=True)
class LinearClassifier:
    """A classifier: weighted n-gram counts times regression weights."""

    labels: tuple[str, ...]
    settings: Linear
    vocabulary: Mapping[str, int]
    idf: Floats | None
    """Inverse document frequency of each n-gram; None for plain counts."""
    regression: Regression

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """Return one prediction per example; a text without a known n-gram gets the classes' prior."""
        predictions, rows = [], max(1, SCORES_AT_ONCE // len(self.labels))
        for start in range(0, len(examples), rows):
            chunk = examples[start : start + rows]
            predictions += names.predictions(chunk, self._probabilities(chunk), self.labels)
        return predictions

    @property
    def max_length(self) -> None:
        """Texts are read in full."""

    def count_tokens(self, example: Example) -> int:
        """Return the number of words."""
        return len(WORD.findall(f"{example.text} {example.text_pair or ''}"))

    def rendered_prompt(self, example: Example) -> None:
        """Return None: there is no prompt."""

    def parts(self) -> ModelParts:
        return ModelParts()

    def parity_rows(self, examples: Sequence[Example], settings: Generate) -> list[Example]:
        return list(examples)

    def logits(self, rows: Sequence[Example]) -> list[Floats]:
        """Return log-probabilities, K for each example."""
        return [np.log(np.maximum(prediction.probabilities, 1e-30)) for prediction in self.predict(rows)]

    def with_model(self, model: object) -> LinearClassifier:
        return self

    def _probabilities(self, examples: Sequence[Example]) -> Floats:
        analyze = BagOfWords(self.settings)
        regression = self.regression
        columns = regression.weight.T if regression.projection is None else regression.projection  # one row per n-gram
        scores = np.zeros((len(examples), columns.shape[1]))
        for row, example in enumerate(examples):
            counts = Counter(index for gram in analyze(example) if (index := self.vocabulary.get(gram)) is not None)
            if counts:
                indices = np.fromiter(sorted(counts), dtype=np.int64)
                values = self._values(indices, np.array([counts[i] for i in indices], dtype=np.float64))
                scores[row] = values @ columns[indices]
        return regression.probabilities(scores if regression.projection is None else scores @ regression.weight.T)

    def _values(self, indices: NDArray[np.int64], counts: Floats) -> Floats:
        if self.idf is None:
            return counts
        values = (1 + np.log(counts)) * self.idf[indices]
        return np.asarray(values / np.linalg.norm(values), dtype=np.float64)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        idf = {} if self.idf is None else {"idf": self.idf}
        save_file(self.regression.tensors() | idf, folder / WEIGHTS)
        settings = self.settings.model_dump(mode="json")
        vocabulary = sorted(self.vocabulary, key=self.vocabulary.__getitem__)
        content = {"labels": self.labels, "settings": settings, "vocabulary": vocabulary}
        (folder / SETTINGS).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> LinearClassifier:
        """Load the classifier that `save` wrote; its predictions are bit-identical."""
        content = records.parse((folder / SETTINGS).read_bytes())
        tensors = read(folder / WEIGHTS)
        vocabulary = {gram: index for index, gram in enumerate(content["vocabulary"])}
        regression = Regression(tensors["weight"], tensors["bias"], tensors.get("projection"))
        return cls(tuple(content["labels"]), Linear(**content["settings"]), vocabulary, tensors.get("idf"), regression)


def read(file: Path) -> dict[str, Floats]:
    """Return the tensors of a regression. Raises ModelError where they are not finite."""
    tensors: dict[str, Floats] = load_file(file)
    if odd := [name for name, tensor in tensors.items() if not np.isfinite(tensor).all()]:
        do = "restore the file from a copy, or train again"
        raise ModelError(f"cannot use {file}: weights are not finite", found=f"NaN or infinity in {odd[0]}", do=do)
    return tensors


def prepare() -> None:
    """Import scikit-learn, which takes a second, before `fit` is timed."""
    import sklearn.feature_extraction.text
    import sklearn.linear_model  # noqa: F401


def fit(examples: Sequence[Example], labels: tuple[str, ...], settings: Linear, weights: Floats) -> TrainResult:
    """Fit a bag-of-words classifier. weights: one per label, in their order.

    Raises TrainingError if `min_df` or empty texts leave no n-gram.
    """
    from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer

    count = CountVectorizer(
        analyzer=BagOfWords(settings), min_df=settings.min_df, max_features=settings.max_features, dtype=np.float64
    )
    try:
        features = count.fit_transform(examples)
    except ValueError as error:
        raise TrainingError(
            "cannot fit a bag of words: no n-gram of the training texts is left",
            found=f"{len(examples)} texts, min_df={settings.min_df}, word_ngrams={settings.word_ngrams}",
            do="lower linear.min_df, or set linear.char_ngrams=[2,4] for texts without words",
        ) from error
    idf = None
    if settings.vectorizer == "tfidf":
        transform = TfidfTransformer(sublinear_tf=True)
        features = transform.fit_transform(features)
        idf = transform.idf_
    regression = Regression.fit(features, names.indices(examples, labels), settings, weights)
    vocabulary = {gram: int(index) for gram, index in count.vocabulary_.items()}
    name = solver(features.shape[0], features.shape[1], len(labels))
    notes = TrainingNotes(ngrams=len(vocabulary), solver=None if name == "lbfgs" else name)
    predictor = LinearClassifier(labels, settings, vocabulary, idf, regression)
    return TrainResult(predictor, regression.size, regression.size, notes)
