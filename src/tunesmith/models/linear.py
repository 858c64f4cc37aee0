"""Bag of words and a regression, logistic or of a number: the baseline, and the head of a probe.

The vocabulary and the weights of the n-grams are those of scikit-learn (`vectorizer`). The logistic regression is
fitted by Newton's method (`newton`), that of a number by LSQR (`ridge`). They are stored as safetensors and JSON, and
predicting needs numpy only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from tunesmith import console, records
from tunesmith.errors import ModelError, TrainingError
from tunesmith.manifest import TrainingNotes
from tunesmith.models.known_ngrams import KnownNgrams
from tunesmith.models.ngrams import WORD
from tunesmith.protocols import ModelParts, TrainResult
from tunesmith.recipe import Generate, Linear
from tunesmith.tasks import text_targets
from tunesmith.tasks.multilabel import MultiLabel
from tunesmith.tasks.regression import Number
from tunesmith.tasks.text_targets import Target
from tunesmith.types import Example

if TYPE_CHECKING:
    from tunesmith.models.newton import ColumnBlocks

Floats = NDArray[np.float64]
WEIGHTS, SETTINGS = "linear.safetensors", "linear.json"
SCORES_AT_ONCE = 1 << 22
"""Scores (texts x classes) computed at once: 32 MB, and a few times that for their probabilities."""
ROWS_AT_ONCE = 1 << 13
"""Texts that are predicted at once: their n-grams take about 200 MB where they have 150 words."""
FEW_CLASSES = 20
"""Up to here Newton's method needs no more memory than the texts do, whatever their number."""
MANY_CLASSES = 500
"""Above this the user is told what solver their number means."""
EXACT_MEMORY = 1 << 30
"""Bytes that an exact solver may take."""
ADVICE = {
    "newton": "fitted by Newton's method, which finds the optimum",
    "low-rank": "fitted as weights of rank 128 or less in minibatches, as an exact solver would take more than 1 GB; "
    "where both were measured, the accuracy was between 2 points lower and 30 points higher. Fewer n-grams "
    "(linear.min_df or linear.max_features) may leave room for an exact solver",
}
"""What the solver of many classes means for the user."""


def solver(rows: int, features: int, classes: int) -> Literal["newton", "low-rank"]:
    """Return the solver for this shape; docs/decisions.md has the measurements."""
    # Newton's method holds 8 arrays like the weights and 6 like the scores, of 4 bytes each.
    exact = classes <= FEW_CLASSES or 4 * classes * (8 * features + 6 * rows) <= EXACT_MEMORY
    return "newton" if exact else "low-rank"


@dataclass(frozen=True)
class Regression:
    """Multinomial logistic regression, or the ridge regression of a number (one row).

    weight: classes x features; bias: classes. Two classes have one row.

    Weights of low rank are two factors: `weight` is classes x rank, and `projection` features x rank.
    """

    weight: Floats
    bias: Floats
    projection: Floats | None = None

    @classmethod
    def fit(
        cls,
        features: ColumnBlocks,
        gold: Sequence[int],
        settings: Linear,
        weights: Floats,
        row_weights: Floats | float = 1.0,
    ) -> Regression:
        """Fit logistic regression on rows of features (sparse or dense) with one weight per class, and per row."""
        from tunesmith.models import newton

        (rows, columns), classes = features.shape, len(weights)
        name, targets = solver(rows, columns, classes), np.asarray(gold)
        scale = weights[targets] * row_weights
        if classes > MANY_CLASSES:
            console.warn(f"{classes:,} classes, {rows:,} rows, {columns:,} features: {ADVICE[name]}")
        if name == "low-rank":
            from tunesmith.models import low_rank

            table = features.joined()
            projection, weight, bias = low_rank.fit(table, targets, scale, classes, settings.C)
            if isinstance(table, np.ndarray):  # of a probe: few columns, so that the product is small
                return cls(weight @ projection.T, bias)
            return cls(weight, bias, projection)
        weight, bias, converged = newton.fit(features, targets, scale, classes, settings.C, settings.max_iter)
        _warn_unless(converged, settings)
        return cls(weight, bias)

    @classmethod
    def fit_labels(
        cls,
        features: ColumnBlocks,
        known: Sequence[Sequence[float]],
        settings: Linear,
        weights: Floats,
        row_weights: Floats,
    ) -> Regression:
        """Fit a logistic regression for each label. known: 0 or 1 for each row and label."""
        from tunesmith.models import newton

        known_NK = np.asarray(known) > 0
        weight, bias, converged = newton.fit_labels(
            features, known_NK, weights, row_weights, settings.C, settings.max_iter
        )
        _warn_unless(converged, settings)
        return cls(weight, bias)

    @classmethod
    def fit_number(
        cls, features: ColumnBlocks, values: Sequence[float], settings: Linear, row_weights: Floats
    ) -> Regression:
        """Fit ridge regression to standardised numbers."""
        from tunesmith.models import ridge

        weight, bias, converged = ridge.fit(features, np.asarray(values), row_weights, settings.C, settings.max_iter)
        _warn_unless(converged, settings)
        return cls(weight, bias)

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(tensor.size for tensor in self.tensors().values())

    def logits(self, scores: Floats, classes: int) -> Floats:
        """Return logits, rows x outputs, from scores without bias; of two classes, the first one's are 0."""
        logits = scores + self.bias
        return np.hstack([np.zeros_like(logits), logits]) if classes == 2 and logits.shape[1] == 1 else logits

    def weights_of(self, features: NDArray[np.int64]) -> Floats:
        """Return the weights of some features, features x outputs."""
        return self.weight.T[features] if self.projection is None else self.projection[features] @ self.weight.T

    def tensors(self) -> dict[str, Any]:
        factors = {"weight": self.weight, "bias": self.bias, "projection": self.projection}
        return {name: np.ascontiguousarray(factor) for name, factor in factors.items() if factor is not None}


def _warn_unless(converged: bool, settings: Linear) -> None:
    if not converged:
        console.warn(f"the regression stopped before its optimum, after linear.max_iter={settings.max_iter}")


def fit_head(
    features: ColumnBlocks, examples: Sequence[Example], target: Target, settings: Linear, weights: Floats
) -> Regression:
    """Fit the regression that suits a target. weights: one per label."""
    encoded, row_weights = target.encode(examples), np.array([example.weight for example in examples])
    if isinstance(target, Number):
        return Regression.fit_number(features, encoded, settings, row_weights)
    if isinstance(target, MultiLabel):
        return Regression.fit_labels(features, encoded, settings, weights, row_weights)
    return Regression.fit(features, encoded, settings, weights, row_weights)


@dataclass(frozen=True)
class LinearPredictor:
    """Weighted n-gram counts times regression weights."""

    target: Target
    settings: Linear
    vocabulary: Mapping[str, int]
    idf: Floats | None
    """Inverse document frequency of each n-gram; None for plain counts."""
    regression: Regression

    @property
    def labels(self) -> tuple[str, ...]:
        """The label names, in the order of the probabilities."""
        return self.target.labels

    def predict(self, examples: Sequence[Example]) -> list[Any]:
        """Return one prediction per example; a text without a known n-gram gets the prior, or the mean."""
        predictions, rows = [], max(1, min(ROWS_AT_ONCE, SCORES_AT_ONCE // max(1, len(self.labels))))
        for start in range(0, len(examples), rows):
            chunk = examples[start : start + rows]
            predictions += self.target.predictions(chunk, self._logits(chunk))
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
        """Return K logits for each example."""
        return list(self._logits(rows))

    def with_model(self, model: object) -> LinearPredictor:
        return self

    def embeddings(self, examples: Sequence[Example]) -> Any:
        """Return the weighted n-grams of examples as a CSR matrix, examples x n-grams."""
        from scipy import sparse

        lengths, numbers, values = self._weighted(examples)
        ends = np.cumsum(np.concatenate([[0], lengths]))
        return sparse.csr_matrix((values, numbers.astype(np.int32), ends), (len(examples), len(self.vocabulary)))

    def _logits(self, examples: Sequence[Example]) -> Floats:
        regression = self.regression
        columns = regression.weight.T if regression.projection is None else regression.projection  # one row per n-gram
        scores = np.zeros((len(examples), columns.shape[1]))
        lengths, numbers, values = self._weighted(examples)
        ends = np.cumsum(lengths)
        most = max(1, SCORES_AT_ONCE // columns.shape[1])
        first = 0
        while first < len(lengths):  # as many texts as have `most` n-grams
            start = ends[first] - lengths[first]
            last = max(first + 1, int(np.searchsorted(ends, start + most, side="right")))
            filled = first + np.flatnonzero(lengths[first:last])
            entries = slice(start, ends[last - 1])
            if len(filled):
                weighted = columns[numbers[entries]] * values[entries, None]
                scores[filled] = np.add.reduceat(weighted, ends[filled] - lengths[filled] - start, axis=0)
            first = last
        if regression.projection is not None:
            scores = scores @ regression.weight.T
        return regression.logits(scores, len(self.labels))

    def features(self, example: Example) -> tuple[NDArray[np.int64], Floats]:
        """Return the numbers of the n-grams of an example that the vocabulary has, ascending, and their values."""
        _, numbers, values = self._weighted([example])
        return numbers, values

    @cached_property
    def _ngrams(self) -> KnownNgrams:
        return KnownNgrams(self.vocabulary, self.settings)

    def _weighted(self, examples: Sequence[Example]) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
        """Return how many n-grams each example has, their numbers and their values."""
        counted = self._ngrams.count(examples)
        if self.idf is None or not len(counted.counts):
            return counted.lengths, counted.numbers, counted.counts
        values = (1 + np.log(counted.counts)) * self.idf[counted.numbers]
        lengths = counted.lengths[counted.lengths > 0]
        squares = np.add.reduceat(values**2, np.cumsum(lengths) - lengths)
        return counted.lengths, counted.numbers, values / np.repeat(np.sqrt(squares), lengths)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        idf = {} if self.idf is None else {"idf": self.idf}
        save_file(self.regression.tensors() | idf, folder / WEIGHTS)
        settings = self.settings.model_dump(mode="json")
        vocabulary = sorted(self.vocabulary, key=self.vocabulary.__getitem__)
        content = {**text_targets.to_settings(self.target), "settings": settings, "vocabulary": vocabulary}
        (folder / SETTINGS).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> LinearPredictor:
        """Load the classifier that `save` wrote; its predictions are bit-identical."""
        content = records.parse((folder / SETTINGS).read_bytes())
        tensors = read(folder / WEIGHTS)
        vocabulary = {gram: index for index, gram in enumerate(content["vocabulary"])}
        regression = Regression(tensors["weight"], tensors["bias"], tensors.get("projection"))
        target, settings = text_targets.of_settings(content), Linear(**content["settings"])
        return cls(target, settings, vocabulary, tensors.get("idf"), regression)


def read(file: Path) -> dict[str, Floats]:
    """Return the tensors of a regression. Raises ModelError where they are not finite."""
    tensors: dict[str, Floats] = load_file(file)
    if odd := [name for name, tensor in tensors.items() if not np.isfinite(tensor).all()]:
        do = "restore the file from a copy, or train again"
        raise ModelError(f"cannot use {file}: weights are not finite", found=f"NaN or infinity in {odd[0]}", do=do)
    return tensors


def prepare() -> None:
    """Import scipy before `fit` is timed."""
    import scipy.sparse  # noqa: F401


def fit(examples: Sequence[Example], target: Target, settings: Linear, weights: Floats) -> TrainResult:
    """Fit a regression on bags of words. weights: one per label, in their order.

    Raises TrainingError if `min_df` or empty texts leave no n-gram.
    """
    from tunesmith.models.vectorizer import vectorize

    table = vectorize(examples, settings)
    if not table.vocabulary:
        raise TrainingError(
            "cannot fit a bag of words: no n-gram of the training texts is left",
            found=f"{len(examples)} texts, min_df={settings.min_df}, word_ngrams={settings.word_ngrams}",
            do="lower linear.min_df, or set linear.char_ngrams=[2,4] for texts without words",
        )
    regression = fit_head(table.features, examples, target, settings, weights)
    vocabulary = {gram: index for index, gram in enumerate(table.vocabulary)}
    name = solver(*table.features.shape, len(target.labels))
    notes = TrainingNotes(ngrams=len(vocabulary), solver=None if name == "newton" else name)
    predictor = LinearPredictor(target, settings, vocabulary, table.idf, regression)
    return TrainResult(predictor, regression.size, regression.size, notes)
