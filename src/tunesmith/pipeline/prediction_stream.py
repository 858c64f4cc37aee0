"""The rows of a source with what a finished run predicts of them, a chunk at a time."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from tunesmith import console, processes, records
from tunesmith.data import conversations, row_encoders, rows as data_rows
from tunesmith.data.row_encoders import FORMATS, RowEncoder
from tunesmith.data.row_stream import RowChunk, RowStream
from tunesmith.errors import DataError, RecipeError
from tunesmith.pipeline import engines, generated_responses, new_data
from tunesmith.pipeline.fitting import methods
from tunesmith.pipeline.task_table import task_of
from tunesmith.protocols import Predictor, TextGenerator, TextPredictor
from tunesmith.recipe import Recipe
from tunesmith.runs import Run
from tunesmith.tasks import classification
from tunesmith.tasks.classification import SingleLabel
from tunesmith.types import DataNote, Example, MultilabelPrediction, ValuePrediction

Row: TypeAlias = dict[str, Any]
LABEL, PROBABILITY, PROBABILITIES = "predicted_label", "probability", "probabilities"
LABELS, VALUE = "predicted_labels", "predicted_value"
ABSTAINED, LABEL_SET = "abstained", "label_set"
ERROR = "error"
"""The columns that are added to those of the data."""
RANKED: dict[str, type] = {"label": str, PROBABILITY: float}
"""What the best labels are called in files without objects, each with its rank behind it: `label_1`."""
COLUMNS = ("id", "prompt", "response", "tokens", "ended", "reference")
"""What is shown of a response."""
READ = {*COLUMNS[1:], *conversations.COLUMNS}
"""The columns of a source that a response's own take the place of."""
FEW, MANY, MOST = 256, 2048, 16384
"""Rows of a chunk: of responses, of a neural network's predictions, and of those of a bag of words."""


@dataclass(frozen=True, slots=True)
class PredictionSettings:
    """How the rows of a source are predicted."""

    overrides: Sequence[str] = ()
    """`data.*` where the source differs from the training data in its columns, encoding or rows, and `generate.*`."""
    top_k: int = 1
    """How many labels a row gets with their probabilities."""
    engine: str = "auto"
    """What computes labels: `torch`, `auto` or a key of `engines.ENGINES`."""
    only_predictions: bool = False
    """Whether rows keep none of their own columns but `id`."""
    chunk_rows: int | None = None
    """Rows that are read, predicted and written at once; None for what suits the method."""


@dataclass(frozen=True, slots=True)
class PredictedChunk:
    """Neighbouring rows of a source, with what is predicted of them."""

    number: int
    rows: list[Row]
    ids: list[str]
    """Where each row is in the source; its `id` may be one of its own."""
    errors: int
    """Rows without a prediction."""
    notes: tuple[DataNote, ...]


class RowPredictor(Protocol):
    """Predicts rows as the columns that are added to them."""

    replaced: frozenset[str]
    """Columns of a row that the added ones take the place of."""

    def columns(self) -> dict[str, type]:
        """Return the columns that are added, as far as they are known before, and the type of each."""

    def rows(self, examples: Sequence[Example]) -> list[Row]:
        """Return what is added to each row."""


@dataclass(frozen=True)
class LabelRows:
    """Labels, or numbers, of a text or of the row of a source."""

    predictor: TextPredictor
    top_k: int
    of_source: bool = True
    replaced = frozenset[str]()

    def columns(self) -> dict[str, type]:
        target = self.predictor.target
        if not target.labels:
            return {VALUE: float}
        if not isinstance(target, SingleLabel):
            return {LABELS: list, PROBABILITIES: dict}
        decision = target.decision
        known: dict[str, type] = {LABEL: str, PROBABILITY: float}
        known |= {ABSTAINED: bool} if decision and decision.abstain_below is not None else {}
        known |= {LABEL_SET: list} if decision and decision.set_above is not None else {}
        return known | ({PROBABILITIES: dict} if self.top_k > 1 else {})

    def rows(self, examples: Sequence[Example]) -> list[Row]:
        labels = self.predictor.labels
        return [self._row(prediction, labels) for prediction in self.predictor.predict(examples)]

    def _row(self, prediction: Any, labels: Sequence[str]) -> Row:
        label, score, scores = (LABEL, PROBABILITY, PROBABILITIES) if self.of_source else ("label", "score", "scores")
        if isinstance(prediction, ValuePrediction):
            return {VALUE if self.of_source else "value": prediction.value}
        if isinstance(prediction, MultilabelPrediction):
            ranked = _ranked(prediction, labels)
            best = ranked[: self.top_k] if self.top_k > 1 else [pair for pair in ranked if pair[0] in prediction.labels]
            name = LABELS if self.of_source else "labels"
            return {name: list(prediction.labels), scores: dict(best) if ranked else None}
        row: Row = {label: prediction.label, score: classification.probability(prediction, labels)}
        if prediction.abstained is not None:
            row[ABSTAINED] = prediction.abstained
        if prediction.label_set is not None:
            row[LABEL_SET] = list(prediction.label_set)
        return row | ({scores: dict(_ranked(prediction, labels)[: self.top_k])} if self.top_k > 1 else {})


def _ranked(prediction: Any, labels: Sequence[str]) -> list[tuple[str, float]]:
    """Return the labels with their probabilities, most probable first; none without probabilities."""
    named = zip(labels, prediction.probabilities, strict=True) if prediction.probabilities else ()
    return sorted(named, key=lambda pair: -pair[1])


@dataclass(frozen=True)
class ResponseRows:
    """Responses to prompts. The turns of a source are in `prompt` and `reference`, where `evaluate` finds them."""

    generator: TextGenerator
    recipe: Recipe
    replaced = frozenset(READ)

    def columns(self) -> dict[str, type]:
        return dict(zip(COLUMNS[1:], (str, str, int, bool, str), strict=True))

    def rows(self, examples: Sequence[Example]) -> list[Row]:
        answers = map(records.dump, generated_responses.respond(self.generator, self.recipe, examples))
        return [{name: row.get(name) for name in COLUMNS[1:] if name in row or name == "response"} for row in answers]


class PredictionStream:
    """Reads and predicts a source once. Raises the errors of reading, and RecipeError for settings that do not fit."""

    def __init__(self, run: Run, source: str, settings: PredictionSettings = PredictionSettings()) -> None:
        self.run, self.source, self.settings = run, source, settings
        self.recipe = new_data.settings(run.recipe, source, settings.overrides)
        self._stream = RowStream(self.recipe.data, task_of(run).reader)
        self._predictor: RowPredictor
        answers = task_of(run).has_responses
        engine = self.recipe.generate.engine if answers else settings.engine
        self.engine = engine if engine != "auto" else engines.fastest(run, *([] if answers else [1]))
        """What computes the run."""
        if answers:
            generator = engines.load_generator(run, self.engine)
            self._predictor = ResponseRows(generator, self.recipe)
        else:
            predictor = load(run, self.engine, settings.top_k)
            self._predictor = LabelRows(predictor, settings.top_k)
        if settings.chunk_rows is not None and settings.chunk_rows < 1:
            raise RecipeError(f"--chunk-rows {settings.chunk_rows}", expected="at least 1")
        self.chunk_rows = settings.chunk_rows or rows_at_once(generator if answers else predictor)
        self._added = self._predictor.columns()
        self._keeps = self.recipe.data.on_bad_rows == "keep"
        if settings.only_predictions:
            self._added = {name: kind for name, kind in self._added.items() if name not in ("prompt", "reference")}
        self._added |= {ERROR: str} if self._keeps else {}
        self._first_rows: list[Row] = []
        self._types: dict[str, Any] = {}

    @property
    def count(self) -> int:
        """How many rows have been read so far, dropped ones included."""
        return self._stream.count

    def chunks(self, wanted: Callable[[int], bool] = lambda number: True) -> Iterator[PredictedChunk]:
        """Yield the chunks whose number is wanted."""
        done = 0
        with console.meter("predicting", None) as show, processes.without_collection():
            for chunk in self._stream.chunks(self.chunk_rows, lambda number: number == 0 or wanted(number)):
                check_pairs(self.run, chunk.examples)
                own = [self._own(row) for row in chunk.rows]
                if chunk.number == 0:
                    self._first_rows = own
                if wanted(chunk.number):
                    yield self._predicted(chunk, own)
                    done += len(chunk.rows)
                    show(done)
                gc.collect(1)  # of what this chunk has left behind

    def encoder(self, name: str, *, keep_formulas: bool = False) -> RowEncoder:
        """Return what turns rows into the bytes of a format. The first chunk has to be read before."""
        if name == "jsonl":
            return FORMATS[name]((), {}, keep_formulas)
        source = dict.fromkeys([*self._stream.columns, *(column for row in self._first_rows for column in row)])
        own = [] if self.settings.only_predictions else [name for name in source if name not in self._replaced]
        added: dict[str, type] = {}
        for column, kind in self._added.items():
            ranks = range(1, self.settings.top_k + 1) if column == PROBABILITIES and LABEL in self._added else ()
            ranked = {f"{part}_{rank}": type_ for rank in ranks for part, type_ in RANKED.items()}
            added |= ranked or {column: str if kind is dict else kind}
        columns = [*dict.fromkeys([*([] if "id" in self._stream.columns and own else ["id"]), *own, *added])]
        if name == "parquet" and not self._types:
            declared = row_encoders.parquet_types(Path(self.source)) | added
            self._types = row_encoders.column_types(columns, self._first_rows, declared)
            self._first_rows = []
        return FORMATS[name](columns, self._types, keep_formulas)

    @property
    def _replaced(self) -> frozenset[str]:
        return self._predictor.replaced

    def _own(self, row: data_rows.Row) -> Row:
        """Return the columns of a row that it keeps, with an `id` where it has none."""
        values = row.values
        if self.settings.only_predictions:
            return {"id": values.get("id", row.id)}
        own = dict(values) if "id" in values else {"id": row.id, **values}
        return {name: cell for name, cell in own.items() if name not in self._replaced} if self._replaced else own

    def _predicted(self, chunk: RowChunk, own: list[Row]) -> PredictedChunk:
        self._check_names(own)
        added = iter(self._predictor.rows(chunk.examples))
        missing: Row = dict.fromkeys(self._added)
        rows = []
        for place, row in enumerate(own):
            error = chunk.errors.get(place)
            answer = next(added) if error is None else missing
            if self.settings.only_predictions:
                answer = {name: cell for name, cell in answer.items() if name in self._added}
            rows.append(row | answer | ({ERROR: error} if self._keeps else {}))
        return PredictedChunk(chunk.number, rows, [row.id for row in chunk.rows], len(chunk.errors), chunk.notes)

    def _check_names(self, own: list[Row]) -> None:
        """Raise DataError where rows have columns that predictions are written to."""
        added = {ERROR} if self._keeps else set[str]()
        if not self._replaced:
            added |= {LABEL, LABELS, PROBABILITY, PROBABILITIES, VALUE}
            added |= {ABSTAINED, LABEL_SET} if self.run.recipe.decide.is_set else set()
            ranks = range(1, self.settings.top_k + 1) if self.settings.top_k > 1 else ()
            added |= {f"{part}_{rank}" for part in RANKED for rank in ranks}
        if all(added.isdisjoint(row) for row in own):
            return
        raise DataError(
            f"{self.source}: columns that predictions are written to",
            expected="other names",
            found=", ".join(sorted(added & {name for row in own for name in row})),
            do="rename them in the data, or leave them out of the output with --only-predictions",
        )


def load(run: Run, engine: str, top_k: int) -> TextPredictor:
    """Return what predicts labels or numbers. Raises RecipeError where it has no `top_k` labels with probabilities."""
    if top_k > 1:
        methods.check_probabilities(run.recipe, f"rank {top_k} labels")
    predictor = engines.load(run, engine, "--engine", least_agreement=1)
    assert isinstance(predictor, TextPredictor)
    if not predictor.labels and top_k > 1:
        raise RecipeError(f"top_k is {top_k}, but {run.path} predicts numbers", do="leave --top-k out")
    if not 1 <= top_k <= max(1, len(predictor.labels)):
        raise RecipeError(f"top_k is {top_k}", expected=f"1 to {len(predictor.labels)}, the number of labels")
    return predictor


def rows_at_once(model: Predictor) -> int:
    """Return how many rows are read and predicted at once."""
    if isinstance(model, TextGenerator):
        return FEW
    return MOST if model.max_length is None else MANY


def tabular(rows: Sequence[Row]) -> list[Row]:
    """Return rows with the best labels in columns of their own, as files without objects have them."""
    flat: list[Row] = []
    for row in rows:
        ranks, score = (PROBABILITIES, PROBABILITY) if LABEL in row else ("scores", "score")
        ranked = row.get(ranks)
        columns = {name: value for name, value in row.items() if name != ranks}
        for rank, (label, value) in enumerate(ranked.items() if isinstance(ranked, dict) else (), 1):
            columns |= {f"label_{rank}": label, f"{score}_{rank}": value}
        flat.append(columns)
    return flat


def check_pairs(run: Run, examples: Sequence[Example]) -> None:
    """Raise DataError where a run was trained on pairs of texts and these are single ones, or the reverse."""
    paired = run.recipe.data.text_pair is not None
    if examples and (examples[0].text_pair is not None) != paired:
        raise DataError(
            f"{run.path} was trained on {'two texts' if paired else 'one text'} a row",
            expected="two texts" if paired else "one text",
            found="one text" if paired else "two texts",
            do="give --text-pair" if paired else "leave --text-pair out",
        )
