"""Request and response bodies other than OpenAI's. The OpenAPI schema is generated from them, so they are exact."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from tunesmith.serving.refusal import Refusal
from tunesmith.types import Example

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


class PredictRequest(StrictModel):
    """One text, or several, to classify."""

    inputs: Text | Input | Annotated[list[Text | Input], Field(min_length=1)]
    """A text, a pair, or a list of these."""
    model: str | None = None
    """Name of a served model; optional where only one classifier is served."""
    top_k: Annotated[int, Field(ge=1)] | None = None
    """Number of labels in `scores`, most probable first; all labels by default."""

    def examples(self, pairs: bool) -> list[Example]:
        """Return the inputs. pairs: whether the model expects two texts. Raises Refusal for the others."""
        examples = []
        for number, item in enumerate(self.inputs if isinstance(self.inputs, list) else [self.inputs]):
            text, pair = (item.text, item.text_pair) if isinstance(item, Input) else (item, None)
            if (pair is not None) != pairs:
                expected = "text and text_pair" if pairs else "one text"
                raise Refusal.invalid(f"input {number}: this model expects {expected}", "wrong_input", "inputs")
            examples.append(Example(str(number), text, pair))
        return examples


class LabelScores(BaseModel):
    """The prediction for one input."""

    label: str
    """Empty where a generator produced no valid label."""
    score: float
    """The probability of the most probable label."""
    scores: dict[str, float]
    """Probabilities by label, most probable first."""
    cut: bool
    """Whether the model read only the beginning of the input."""


class PredictResponse(BaseModel):
    """One prediction for each input, in order."""

    id: str
    model: str
    predictions: list[LabelScores]


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
