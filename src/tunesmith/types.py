"""The nouns that every module speaks of."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from tunesmith.records import OMITTED, omitted_if_none

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

COLUMNS = {"text_column": "data.text", "text_pair_column": "data.text_pair", "label_column": "data.label"}
"""Options and keyword arguments that name a column, and the setting of each."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str
    input: str = ""
    """What an instruction is about, where the data keeps it apart, as Alpaca does."""
    learned: bool = field(default=True, compare=False)
    """Whether training learns it, where it is an answer; not so in an example that a prompt shows."""


@dataclass(frozen=True, slots=True)
class Example:
    """One text (or pair of texts) with its label where it is known; or one conversation."""

    id: str
    """Where the row stands, for people and for joins: `reviews.csv:18`, `sport/004.txt`, `train:17` on a hub."""
    text: str
    text_pair: str | None = None
    label: str | None = None
    """The label's name; integers in the data are turned into names when the data is read."""
    group: str | None = None
    """Rows of one group never lie in two splits."""
    messages: tuple[Message, ...] = ()
    """Of task `instruction`: the turns. `text` is then all before the last answer, which is what may not lie in two
    splits."""
    value: float | None = None
    """Of task `regression`: the number, where it is known."""

    labels: tuple[str, ...] | None = None
    """Of task `multilabel`: the names of all labels that apply, perhaps none; None where that is not known."""
    weight: float = 1.0
    """Weight of the row in training: one of weight 2 counts as two rows."""

    @property
    def all_labels(self) -> tuple[str, ...]:
        """The labels of the text: one, several or none."""
        if self.labels is not None:
            return self.labels
        return () if self.label is None else (self.label,)

    @property
    def gold(self) -> str | float | tuple[str, ...] | None:
        """What the data says of the text: its label, number or labels."""
        if self.labels is not None:
            return self.labels
        return self.label if self.value is None else self.value


TextKey = int
"""A hash, of 128 bits, of a text and of the second one of a pair: what rows with the same text share."""


class TextNumbering(Protocol):
    """The number of each text by its key."""

    def __getitem__(self, key: TextKey) -> int:
        """Return the number of a text. Raises KeyError."""
        ...

    def __len__(self) -> int:
        """Return how many texts there are."""
        ...

    def of_rows(self, rows: Sequence[Example]) -> NDArray[np.int64]:
        """Return the number of each row's text, which is faster than one by one. Raises KeyError."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class DuplicateIndex:
    """Which texts of a data set are equal but for small differences, and which are near-duplicates."""

    numbers: TextNumbering
    """The number of each text; texts that are equal after all folds have one number."""
    first: Sequence[int] = ()
    """Of each pair of near-duplicates the smaller number."""
    second: Sequence[int] = ()
    similarity: Sequence[float] = ()
    """Of each pair, from the threshold to 1."""


DuplicateGrade = Literal["exact", "normalised", "near", "paraphrase"]
"""How alike two texts are: equal; equal after all folds; near-duplicates; or, what an audit may look for, similar in
meaning."""


@dataclass(frozen=True, slots=True)
class RowCopy:
    """A row, and the most similar of other rows."""

    id: str
    place: int
    """Number of the row in its split, from 0."""
    copy: str
    """The id of the other row."""
    copy_place: int
    grade: DuplicateGrade
    similarity: float
    """Jaccard similarity, 1 of rows that are equal after all folds; of paraphrases the cosine of their embeddings."""


@dataclass(frozen=True, slots=True)
class DataNote:
    """Something that reading did to the data, or saw in it: never silent, always counted."""

    what: str
    """For people: `dropped: empty text`, `read as cp1252 instead of utf-8`, `same text in train and test`."""
    count: int
    where: tuple[str, ...] = ()
    """The ids of the first few rows concerned."""


@dataclass(frozen=True, slots=True)
class Quantiles:
    """How lengths are distributed; zeros where there are none."""

    median: int
    p95: int
    max: int


@dataclass(frozen=True, slots=True)
class NumberSummary:
    """How numbers are distributed."""

    mean: float
    std: float
    min: float
    max: float


@dataclass(frozen=True, slots=True)
class SplitSummary:
    """What one split looks like."""

    rows: int
    fingerprint: str
    per_label: dict[str, int]
    """Rows of each label."""
    characters: Quantiles
    """Characters of each row."""
    numbers: NumberSummary | None = omitted_if_none()
    """Of task `regression`: the numbers of its rows; None without rows."""
    is_stream: bool | None = omitted_if_none()
    """Whether these are the first rows of a stream, which goes on."""


@dataclass(frozen=True, slots=True)
class DataSummary:
    """What the data looks like and what reading it changed, as the manifest holds it."""

    source: str
    labels: tuple[str, ...]
    fingerprint: str
    """Over all splits."""
    made: tuple[str, ...]
    """Names of the splits that tunesmith cut itself."""
    splits: dict[str, SplitSummary]
    changes: tuple[DataNote, ...]
    label_values: tuple[float, ...] | None = omitted_if_none()
    """The number of each label, rising, where labels have an order."""
    published: bool | None = omitted_if_none()
    """True for an asset or a data set on a hub, which others may have trained on."""


@dataclass(frozen=True, slots=True)
class Splits:
    """The frozen split that every method of a comparison shares."""

    train: Sequence[Example]
    """A tuple, or where rows are many a `data.example_table.ExampleTable`; so are the other splits."""
    validation: Sequence[Example]
    test: Sequence[Example]
    labels: tuple[str, ...]
    """Every label of `train`, in the order of the probabilities in a `Prediction`."""
    fingerprints: dict[str, str]
    """SHA-256 over the rows (texts and labels) of each split, in order; `data` is the hash over all of them."""
    label_values: tuple[float, ...] | None = None
    """The number of each label, rising, where labels have an order."""
    made: tuple[str, ...] = ()
    """The names of the splits that were cut here; the others came with the data."""
    notes: tuple[DataNote, ...] = ()
    """What reading changed or noticed."""
    copies: DuplicateIndex | None = field(default=None, compare=False, repr=False)
    """Which texts of all splits are duplicates and near-duplicates of one another."""
    is_stream: bool = False
    """Whether `train` is the beginning of a stream, the rest of which is read as it is learned from."""


NO_LABEL = ""
"""The label of a prediction that is none: a generator wrote something else. It is wrong whatever the gold label is."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a predictor says of one example."""

    id: str
    label: str
    probabilities: Sequence[float]
    """One per label, in the order of `SingleLabel.labels`; they sum to 1. Kept as an array of 8 bytes each.

    Empty where the predictor has none, as a generator that writes its answers. Scores that need probabilities are left
    out where any row lacks them; of a predictor that has them, an answer that is no label has equal ones.
    """
    abstained: bool | None = field(default=None, kw_only=True, metadata=OMITTED)
    """Whether the probabilities are too close for an answer, where `decide.abstain` is set."""
    label_set: tuple[str, ...] | None = field(default=None, kw_only=True, metadata=OMITTED)
    """Labels of which one is right as often as `decide.conformal` says, where that is set."""

    def __post_init__(self) -> None:
        if not isinstance(self.probabilities, array):
            object.__setattr__(self, "probabilities", array("d", self.probabilities))

    @property
    def answer(self) -> str:
        """What is compared with `Example.gold`."""
        return self.label


@dataclass(frozen=True, slots=True)
class PredictionRow(Prediction):
    """A prediction beside the label that the data has: a line of predictions/test.jsonl."""

    gold: str


@dataclass(frozen=True, slots=True)
class MultilabelPrediction:
    """All labels that a predictor gives an example, perhaps none."""

    id: str
    labels: tuple[str, ...]
    probabilities: Sequence[float]
    """That each label applies, in the order of `MultiLabel.labels`. Kept as an array of 8 bytes each.

    Empty where the predictor has none, as those of a `Prediction`.
    """

    def __post_init__(self) -> None:
        if not isinstance(self.probabilities, array):
            object.__setattr__(self, "probabilities", array("d", self.probabilities))

    @property
    def answer(self) -> tuple[str, ...]:
        """What is compared with `Example.gold`, in the order of `MultiLabel.labels`."""
        return self.labels


@dataclass(frozen=True, slots=True)
class MultilabelPredictionRow(MultilabelPrediction):
    """A prediction beside the labels that the data has: a line of predictions/test.jsonl."""

    gold: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ValuePrediction:
    """The number that a predictor gives an example."""

    id: str
    value: float

    @property
    def answer(self) -> float:
        """What is compared with `Example.gold`."""
        return self.value


@dataclass(frozen=True, slots=True)
class ValuePredictionRow(ValuePrediction):
    """A predicted number beside the one that the data has: a line of predictions/test.jsonl."""

    gold: float


@dataclass(frozen=True, slots=True)
class Response:
    """What a generator answered."""

    id: str
    text: str
    """Without template and special tokens."""
    tokens: int
    """Generated, the end token included."""
    ended: bool
    """The model ended the answer itself; false where `max_new_tokens` did."""


@dataclass(frozen=True, slots=True)
class ResponseRow:
    """A prompt, its reference, and what a model answered: a line of predictions/test.jsonl, or a row of a file.

    What is not known is None and left out of the JSON.
    """

    id: str
    prompt: str
    """Every turn before the response; of a file the instruction and its input."""
    instruction: str | None = omitted_if_none()
    input: str | None = omitted_if_none()
    reference: str | None = omitted_if_none()
    loss: float | None = omitted_if_none()
    """Summed over the learned tokens of the reference, in nats; files have none."""
    learned: int | None = omitted_if_none()
    """How many tokens that are; 0 where the reference does not fit the model's input."""
    response: str | None = omitted_if_none()
    tokens: int | None = omitted_if_none()
    """Generated, the end token included."""
    ended: bool | None = omitted_if_none()
    """The model ended the response itself."""
    missing: bool | None = omitted_if_none()
    """True where a file has no response to the prompt, which counts as an empty one."""

    @property
    def texts(self) -> tuple[str, str]:
        """The response and the reference; empty where there is none."""
        return self.response or "", self.reference or ""


@dataclass(frozen=True, slots=True)
class WordContribution:
    """What one word of a text adds to a score."""

    word: str
    start: int
    """Its first character in the text, from 0."""
    contribution: float
    second: bool | None = omitted_if_none()
    """True for a word of the second text of a pair."""


@dataclass(frozen=True, slots=True)
class NgramContribution:
    """What one n-gram of a bag of words adds to a score: its value times its weight."""

    ngram: str
    count: int
    """How often the text has it."""
    value: float
    weight: float
    contribution: float
    characters: bool | None = omitted_if_none()
    """True for an n-gram of characters."""
    second: bool | None = omitted_if_none()
    """True for an n-gram of the second text of a pair."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Which words of a text made a prediction."""

    id: str
    text: str
    text_pair: str | None = omitted_if_none()
    label: str | None = omitted_if_none()
    """The label whose score is explained; None for a number."""
    predicted: str | tuple[str, ...] | float
    """What is predicted for the text: a label, several, or a number."""
    probability: float | None = omitted_if_none()
    """Of `label`."""
    method: str
    """`exact`, `integrated-gradients` or `occlusion`."""
    score: float
    """What the words add to: a logit, log-odds, or the predicted number."""
    baseline: float | None = omitted_if_none()
    """The score without any word, to which the words add; None where nothing has to add up."""
    gap: float | None = omitted_if_none()
    """What baseline and contributions lack of the score."""
    words: tuple[WordContribution, ...]
    """Every word, in the order of the texts; words that the model does not read contribute 0."""
    ngrams: tuple[NgramContribution, ...] | None = omitted_if_none()
    """Of a bag of words: every n-gram that it knows, the strongest first."""
