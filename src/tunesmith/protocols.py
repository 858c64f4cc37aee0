"""What a trained model offers, whatever the method: all that serving, evaluation and the commands know of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.prompts import ChatEncoder, Conversation, Ids, LabelQuestion
from tunesmith.recipe import Generate, Probe
from tunesmith.records import omitted_if_none
from tunesmith.types import DataNote, Example, Prediction, Response

Logits = NDArray[np.floating[Any]]
Prompt = Conversation | str
"""What is to be answered: a conversation, or a text to continue."""
OnToken = Callable[[int, str, Response | None], bool]
"""Gets the number of a prompt, the next piece of its answer (often empty) and, with the last piece, the whole response.
It is called in the thread that generates; where it returns False, that answer ends."""


@runtime_checkable
class Classifier(Protocol):
    """Predicts one label of a fixed set for each example."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The label names, in the order of the probabilities."""
        ...

    @property
    def max_length(self) -> int | None:
        """Most tokens of an example that are read; None where length does not matter, as for a bag of words."""
        ...

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """Return one prediction per example, in the order given; labels of the examples are ignored."""
        ...

    def count_tokens(self, example: Example) -> int:
        """Number of tokens of an example before it is cut at `max_length`."""
        ...

    def rendered_prompt(self, example: Example) -> str | None:
        """The text that the model is given, where it is asked for the label by a prompt."""
        ...

    def save(self, folder: Path) -> None:
        """Write everything that predicting needs into `folder`."""
        ...


@runtime_checkable
class TextGenerator(Protocol):
    """Answers conversations."""

    @property
    def context_length(self) -> int:
        """Most tokens of prompt and answer together."""
        ...

    def max_answer_tokens(self, settings: Generate) -> int:
        """Most tokens of an answer: at most half of `context_length`."""
        ...

    def rendered_prompt(self, prompt: Prompt) -> str:
        """The prompt as the model sees it."""
        ...

    def tokenize(self, prompt: Prompt) -> Ids:
        """The ids of `rendered_prompt`."""
        ...

    def respond(
        self, names: Sequence[str], conversations: Sequence[Conversation], settings: Generate, seed: int
    ) -> list[Response]:
        """Return one answer per conversation, in the order given. Raises DataError where a prompt is too long."""
        ...

    def attempt(
        self, names: Sequence[str], conversations: Sequence[Conversation], settings: Generate, seed: int
    ) -> list[Response | None]:
        """Do the same, with None for prompts that are too long."""
        ...

    def samples(self, conversation: Conversation, number: int, settings: Generate, seed: int) -> list[Response]:
        """Return several answers to one conversation; the first is that of `respond`."""
        ...

    def stream(self, messages: Conversation, settings: Generate, seed: int) -> Iterator[str]:
        """Yield the answer of `respond` in pieces as they are written; closing the iterator ends the writing."""
        ...

    def write(
        self,
        prompts: Sequence[Ids],
        max_tokens: Sequence[int],
        seeds: Sequence[int],
        settings: Generate,
        on_token: OnToken,
    ) -> None:
        """Answer tokenized prompts at once, each with at most `max_tokens`; every piece goes to `on_token`."""
        ...

    def losses(self, names: Sequence[str], conversations: Sequence[Conversation]) -> list[tuple[float, int]]:
        """Cross-entropy of each conversation's answers, in nats summed over their tokens, and how many these are."""
        ...

    def save(self, folder: Path) -> None:
        """Write everything that answering needs into `folder`."""
        ...


Predictor = Classifier | TextGenerator
"""What a method hands over."""


@dataclass(frozen=True, slots=True)
class PromptWithAnswer:
    """A prompt and the answer that a generator gave to it greedily: what its exports must write too."""

    ids: Ids
    start: int
    """Where the answer begins."""


@dataclass(frozen=True, slots=True)
class ChatSpec:
    """How a generator is prompted."""

    chat_encoder: ChatEncoder
    stops: list[str]
    """Texts behind which there is no more answer."""
    question: LabelQuestion | None = None
    """What is asked of each text, where the generator is a classifier."""


@dataclass(frozen=True, slots=True)
class ProbeHead:
    """The regression of a probe: weight, classes x features, and bias, classes (for two classes, of the second)."""

    settings: Probe
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ModelParts:
    """What a predictor is made of, as exporters need it. A bag of words has none of it."""

    model: Any = None
    """A torch module."""
    tokenizer: Any = None
    max_length: int = 0
    head: ProbeHead | None = None
    """Set where the model's embeddings are classified by a regression."""
    chat: ChatSpec | None = None
    """Set for a causal language model."""


@runtime_checkable
class Exportable(Protocol):
    """A predictor that can be written for other software, and compared with what was written."""

    def parts(self) -> ModelParts:
        """Return what the predictor is made of."""
        ...

    def parity_rows(self, examples: Sequence[Example], settings: Generate) -> list[Any]:
        """Return what `logits` takes for some examples: themselves, or `PromptWithAnswer` with greedy answers."""
        ...

    def logits(self, rows: Sequence[Any]) -> list[Logits]:
        """Return one array per row: K for an example, T x V for the T tokens of an answer."""
        ...

    def with_model(self, model: Any) -> Exportable:
        """Return the same predictor around another model, whose weights are then saved with it."""
        ...

    def save(self, folder: Path) -> None:
        """Write everything that predicting needs into `folder`."""
        ...


@dataclass(frozen=True, slots=True)
class TrainingNotes:
    """What training was like, for the manifest; a method leaves out what does not apply to it."""

    device: str | None = omitted_if_none()
    processes: int | None = omitted_if_none()
    sharded: bool | None = omitted_if_none()
    mixed_precision: str | None = omitted_if_none()
    steps: int | None = omitted_if_none()
    best_step: int | None = omitted_if_none()
    """None where the last weights were kept."""
    skipped: int | None = omitted_if_none()
    """Steps that had nothing to learn."""
    dtype: str | None = omitted_if_none()
    """Of the weights while they were trained."""
    fallback: str | None = omitted_if_none()
    """What was trained instead of what the recipe asks for, and why."""
    adapter: str | None = omitted_if_none()
    template: str | None = omitted_if_none()
    layout: str | None = omitted_if_none()
    cut: int | None = omitted_if_none()
    """Training rows that were cut."""
    cut_rows: list[str] | None = omitted_if_none()
    """The first of them."""
    ngrams: int | None = omitted_if_none()

    def with_cut(self, changes: Sequence[DataNote]) -> TrainingNotes:
        """Return the notes with the rows that truncation names."""
        rows = [name for change in changes for name in change.where]
        return replace(self, cut=sum(change.count for change in changes), cut_rows=rows)

    def dump(self) -> dict[str, Any]:
        """Return the notes as the manifest holds them. Training in steps always has a `best_step`."""
        notes = {item.name: getattr(self, item.name) for item in fields(self)}
        kept = ("best_step",) if self.steps is not None else ()
        return {name: value for name, value in notes.items() if value is not None or name in kept}

    @classmethod
    def load(cls, content: Mapping[str, Any]) -> TrainingNotes:
        """Return the notes of a manifest."""
        return cls(**{item.name: content[item.name] for item in fields(cls) if item.name in content})


@dataclass(frozen=True, slots=True)
class TrainResult:
    """A trained predictor, and what training was like."""

    predictor: Predictor
    parameters: int
    """Parameters that predicting uses."""
    trainable: int
    """Parameters that training changed."""
    notes: TrainingNotes = field(default_factory=TrainingNotes)
    earlier_seconds: float = 0.0
    """Training before the run was interrupted."""

    @property
    def classifier(self) -> Classifier:
        """The predictor of a task that has labels."""
        if not isinstance(self.predictor, Classifier):
            raise TypeError(f"{type(self.predictor).__name__} is not a classifier")
        return self.predictor

    @property
    def generator(self) -> TextGenerator:
        """The predictor of a task that has responses."""
        if not isinstance(self.predictor, TextGenerator):
            raise TypeError(f"{type(self.predictor).__name__} is not a text generator")
        return self.predictor
