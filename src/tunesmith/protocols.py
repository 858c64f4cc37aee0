"""What a trained model offers, whatever the method: all that serving, evaluation and the commands know about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.label_questions import LabelQuestion
from tunesmith.data.prompts import ChatEncoder, Conversation, Ids
from tunesmith.data.shots import Shots
from tunesmith.manifest import TrainingNotes
from tunesmith.recipe import Generate, Probe
from tunesmith.tasks.text_targets import Target
from tunesmith.types import Example, Response

Logits = NDArray[np.floating[Any]]
Prompt = Conversation | str
"""A conversation to answer, or a text to continue."""
OnToken = Callable[[str, Response | None], bool]
"""Receives the next piece of an answer (often empty) and, with the last piece, the response. It is called in the thread
that generates; the answer ends if it returns False."""


@dataclass(frozen=True, slots=True)
class AnswerRequest:
    """A prompt to answer piece by piece."""

    prompt: Ids
    max_tokens: int
    """Of the answer; with the prompt at most `context_length`."""
    seed: int
    settings: Generate
    on_token: OnToken


@runtime_checkable
class TextPredictor(Protocol):
    """Predicts a label, or a number, for each example."""

    @property
    def target(self) -> Target:
        """What is predicted."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The label names, in the order of the probabilities; none where a number is predicted."""

    @property
    def max_length(self) -> int | None:
        """Tokens of an example that are read, at most; None if length does not matter, as for a bag of words."""

    def predict(self, examples: Sequence[Example]) -> list[Any]:
        """Return one prediction per example, in the order given: a `Prediction`, or a `ValuePrediction`.

        Labels of the examples are ignored. Predicted labels may have no probabilities (`Prediction.probabilities`).
        """

    def count_tokens(self, example: Example) -> int:
        """Return the number of tokens of an example before it is cut at `max_length`."""

    def rendered_prompt(self, example: Example) -> str | None:
        """Return the text that asks the model for the label; None for a model without a prompt."""

    def save(self, folder: Path) -> None:
        """Write everything that prediction needs into `folder`."""


@runtime_checkable
class Embedding(Protocol):
    """A predictor whose last layer reads numbers that can be had."""

    def embeddings(self, examples: Sequence[Example]) -> Any:
        """Return what the last layer reads, examples x features: an array or a CSR matrix."""


@runtime_checkable
class TextGenerator(Protocol):
    """Answers conversations."""

    @property
    def context_length(self) -> int:
        """Tokens of prompt and answer together, at most."""

    def max_answer_tokens(self, settings: Generate) -> int:
        """Return how many tokens an answer may have: at most half of `context_length`."""

    def rendered_prompt(self, prompt: Prompt) -> str:
        """Return the prompt as the model sees it."""

    def tokenize(self, prompt: Prompt) -> Ids:
        """Return the ids of `rendered_prompt`."""

    def respond(
        self, names: Sequence[str], conversations: Sequence[Conversation], settings: Generate, seed: int
    ) -> list[Response]:
        """Return one answer per conversation, in the order given. Raises DataError if a prompt is too long."""

    def attempt(
        self, names: Sequence[str], conversations: Sequence[Conversation], settings: Generate, seed: int
    ) -> list[Response | None]:
        """Do the same, with None for prompts that are too long."""

    def samples(
        self, conversations: Sequence[Conversation], number: int, settings: Generate, seed: int
    ) -> list[list[Response]]:
        """Return several answers to each conversation; the first is that of `respond`."""

    def stream(self, messages: Conversation, settings: Generate, seed: int) -> Iterator[str]:
        """Yield the answer of `respond` in pieces, as they are generated; closing the iterator ends the generation."""

    def write(self, take: Callable[[int], Sequence[AnswerRequest]], places: int) -> None:
        """Answer requests until there are none. places: how many answers may be under way at once.

        take: called between any two tokens with the number of free places; returns as many requests, or fewer.
        """

    def losses(self, names: Sequence[str], conversations: Sequence[Conversation]) -> list[tuple[float, int]]:
        """Return, for each conversation, the cross-entropy of its answers' tokens (nats, summed) and their number.

        Empty where the model does not say how probable a text is.
        """

    def save(self, folder: Path) -> None:
        """Write everything that generation needs into `folder`."""


Predictor = TextPredictor | TextGenerator
"""What a method trains."""


@dataclass(frozen=True, slots=True)
class PromptWithAnswer:
    """A prompt and a generator's greedy answer to it, which its exports must reproduce."""

    ids: Ids
    start: int
    """Index of the answer's first token."""


@dataclass(frozen=True, slots=True)
class ChatSpec:
    """How a generator is prompted."""

    chat_encoder: ChatEncoder
    stops: list[str]
    """Texts that end an answer."""
    question: LabelQuestion | None = None
    """What a classifier asks about each text."""
    shots: Shots = Shots()
    """What a classifier shows before that."""


@dataclass(frozen=True, slots=True)
class ProbeHead:
    """The regression of a probe. weight: classes x features; bias: classes. Two classes have one row, the second's."""

    settings: Probe
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ModelParts:
    """What a predictor is made of, for exporters. A bag of words has none of it."""

    model: Any = None
    """A torch module."""
    tokenizer: Any = None
    max_length: int = 0
    head: ProbeHead | None = None
    """Set if a regression classifies the model's embeddings."""
    chat: ChatSpec | None = None
    """Set for a causal language model."""


@runtime_checkable
class Exportable(Protocol):
    """A predictor that can be written for other software, and compared with what was written."""

    def parts(self) -> ModelParts:
        """Return what the predictor is made of."""

    def parity_rows(self, examples: Sequence[Example], settings: Generate) -> list[Any]:
        """Return what `logits` takes for some examples: themselves, or `PromptWithAnswer` with greedy answers."""

    def logits(self, rows: Sequence[Any]) -> list[Logits]:
        """Return one array per row: K for an example, T x V for the T tokens of an answer."""

    def with_model(self, model: Any) -> Exportable:
        """Return the same predictor around another model, whose weights are then saved with it."""

    def save(self, folder: Path) -> None:
        """Write everything that prediction needs into `folder`."""


@dataclass(frozen=True, slots=True)
class TrainResult:
    """A trained predictor, and what training was like."""

    predictor: Predictor
    parameters: int
    """Parameters that prediction uses."""
    trainable: int
    """Parameters that training changed."""
    notes: TrainingNotes = field(default_factory=TrainingNotes)
    earlier_seconds: float = 0.0
    """Training before the run was interrupted."""
    is_saved: bool = False
    """Whether `model/` of the run holds the predictor already."""
    validation: dict[str, float] | None = None
    """Scores of these weights on the validation split, where training measured them on every row as it is."""

    @property
    def text_predictor(self) -> TextPredictor:
        """The predictor of a task that has labels or numbers."""
        if not isinstance(self.predictor, TextPredictor):
            raise TypeError(f"{type(self.predictor).__name__} does not predict labels or numbers")
        return self.predictor

    @property
    def generator(self) -> TextGenerator:
        """The predictor of a task that has responses."""
        if not isinstance(self.predictor, TextGenerator):
            raise TypeError(f"{type(self.predictor).__name__} is not a text generator")
        return self.predictor
