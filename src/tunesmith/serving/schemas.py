"""Request and response bodies other than OpenAI's. The OpenAPI schema is generated from them, so they are exact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from tunesmith.serving.refusal import Refusal
from tunesmith.tasks import classification
from tunesmith.types import Example, Explanation, MultilabelPrediction, Prediction, ValuePrediction

Text = Annotated[str, StringConstraints(pattern=r"\S")]
"""A text with at least one visible character."""


class StrictModel(BaseModel):
    """A request body: no value is converted, no unknown field is ignored."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @model_validator(mode="after")
    def _check_surrogates(self) -> Self:
        """JSON can contain lone surrogates, which can neither be tokenized nor be sent back."""
        for value in self.__dict__.values():
            for text in value if isinstance(value, list) else [value]:
                if isinstance(text, str) and not text.isascii():
                    try:
                        text.encode()
                    except UnicodeEncodeError:
                        raise ValueError("a text contains a lone surrogate") from None
        return self


class Input(StrictModel):
    """A text, or a pair of texts where the model was trained on pairs."""

    text: Text
    text_pair: Text | None = None

    def example(self, number: int, pairs: bool) -> Example:
        """Return an input. pairs: whether the model expects two texts. Raises Refusal where these are not so many."""
        if (self.text_pair is not None) != pairs:
            expected = "text and text_pair" if pairs else "one text"
            raise Refusal.invalid(f"input {number}: this model expects {expected}", "wrong_input", "inputs")
        return Example(str(number), self.text, self.text_pair)


class PredictRequest(StrictModel):
    """One text, or several, to give labels or a number."""

    inputs: Text | Input | Annotated[list[Text | Input], Field(min_length=1)]
    """A text, a pair, or a list of these."""
    model: str | None = None
    """Name of a served model; optional where only one classifier is served."""
    top_k: Annotated[int, Field(ge=1)] | None = None
    """Number of labels in `scores`, most probable first; all labels by default. Not for models of numbers."""

    def examples(self, pairs: bool) -> list[Example]:
        """Return the inputs. pairs: whether the model expects two texts. Raises Refusal for the others."""
        items = self.inputs if isinstance(self.inputs, list) else [self.inputs]
        inputs = [item if isinstance(item, Input) else Input(text=item) for item in items]
        return [item.example(number, pairs) for number, item in enumerate(inputs)]


class LabelScores(BaseModel):
    """The label of one input."""

    label: str
    """Empty where a generator produced no valid label."""
    score: float | None = None
    """Its probability; left out where the model gives none, as a generator that writes its answers."""
    scores: dict[str, float] | None = None
    """Probabilities by label, most probable first; left out where the model gives none."""
    cut: bool
    """Whether the model read only the beginning of the input."""
    abstained: bool | None = None
    """Whether the probabilities are too close for an answer; left out where the model always answers."""
    label_set: list[str] | None = None
    """Labels of which one is right as often as the model's recipe says; left out where it has no such sets."""


class LabelSetScores(BaseModel):
    """All labels of one input, perhaps none."""

    labels: list[str]
    """Those whose probability reaches their threshold, which `/v1/models` shows; or those that a generator writes."""
    scores: dict[str, float] | None = None
    """Probabilities by label, most probable first; left out where the model gives none."""
    cut: bool


class NumberScore(BaseModel):
    """The number of one input."""

    value: float
    """In the unit of the training data."""
    cut: bool


class PredictResponse(BaseModel):
    """One prediction for each input, in order."""

    id: str
    model: str
    version: str
    """Of the model, as `/v1/models` has it."""
    predictions: list[LabelScores | LabelSetScores | NumberScore]


def scored(
    prediction: Prediction | MultilabelPrediction | ValuePrediction, labels: Sequence[str], top_k: int | None, cut: bool
) -> LabelScores | LabelSetScores | NumberScore:
    """Return a prediction as a response has it. labels: in the order of its probabilities."""
    if isinstance(prediction, ValuePrediction):
        return NumberScore(value=prediction.value, cut=cut)
    scores = None
    if prediction.probabilities:
        scores = dict(sorted(zip(labels, prediction.probabilities, strict=True), key=lambda pair: -pair[1])[:top_k])
    if isinstance(prediction, MultilabelPrediction):
        return LabelSetScores(labels=list(prediction.labels), scores=scores, cut=cut)
    return LabelScores(
        label=prediction.label,
        score=classification.probability(prediction, labels),
        scores=scores,
        cut=cut,
        abstained=prediction.abstained,
        label_set=None if prediction.label_set is None else list(prediction.label_set),
    )


class ExplainRequest(Input):
    """A text, or a pair of texts, whose prediction is to be explained."""

    label: str | None = None
    """The label whose score is explained; by default the predicted one."""
    model: str | None = None
    """Name of a served model; optional where only one classifier is served."""


class WordScore(BaseModel):
    """What one word adds to the score."""

    word: str
    start: int
    """Its first character (Unicode code point) in the text, from 0."""
    contribution: float
    second: bool
    """Whether it is in the second text of a pair."""


class LabelExplanation(BaseModel):
    """Which words speak for a label, and which against it."""

    label: str | None
    """None where a number is predicted."""
    probability: float | None
    method: str
    """`exact`, `integrated-gradients` or `occlusion`."""
    score: float
    """The label's logit (method `exact`) or log-odds, or the number."""
    baseline: float | None
    """The score without any word, to which the words add; None where nothing has to add up."""
    gap: float | None
    """What baseline and contributions lack of the score."""
    words: list[WordScore]
    """Every word, in the order of the texts."""

    @classmethod
    def of(cls, explanation: Explanation) -> LabelExplanation:
        """Return an explanation as the body of a response has it."""
        words = [
            WordScore(word=word.word, start=word.start, contribution=word.contribution, second=bool(word.second))
            for word in explanation.words
        ]
        fields = {name: getattr(explanation, name) for name in cls.model_fields if name != "words"}
        return cls(**fields, words=words)


class ExplainResponse(BaseModel):
    """The explanation of a prediction."""

    id: str
    model: str
    version: str
    text: str
    """As the model read it: the guard may have masked parts."""
    text_pair: str | None
    explanations: list[LabelExplanation]
    """One, or one for each predicted label."""


class PromptTurn(StrictModel):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class PromptRequest(StrictModel):
    """What to render: a conversation for a generator, or an input for a generator that classifies."""

    model: str | None = None
    messages: Annotated[list[PromptTurn], Field(min_length=1)] | None = None
    input: Input | None = None


class PromptResponse(BaseModel):
    """The prompt as the model sees it."""

    model: str
    prompt: str


class ReloadRequest(StrictModel):
    """Which model to load again; all without it."""

    model: str | None = None


class ReloadedModel(BaseModel):
    """A model that was replaced by its newest version."""

    model: str
    version: str
    previous: str
    """The version before, which has answered its last request."""
    seconds: float
    """From the beginning of the loading until the new version answered."""


class ReloadResponse(BaseModel):
    """What was loaded."""

    id: str
    models: list[ReloadedModel]


class Health(BaseModel):
    """Whether the server is alive, or ready for requests."""

    status: Literal["ok", "draining"]


class ErrorDetail(BaseModel):
    """Why a request failed."""

    message: str
    type: str
    code: str
    param: str | None
    request_id: str


class ErrorResponse(BaseModel):
    """The body of every error, in OpenAI's format."""

    error: ErrorDetail
