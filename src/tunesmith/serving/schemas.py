"""What goes over the wire, apart from OpenAI's shapes. OpenAPI comes from these, so they say exactly what holds."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Text = Annotated[str, StringConstraints(pattern=r"\S")]
"""With at least one visible letter."""


class StrictModel(BaseModel):
    """Nothing is converted on the way, and nothing unknown is overlooked."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @model_validator(mode="after")
    def _sound(self) -> Self:
        """JSON can hold half a character (a lone surrogate), which nothing can tokenize or send back."""
        for value in self.__dict__.values():
            for text in value if isinstance(value, list) else [value]:
                if isinstance(text, str) and not text.isascii():
                    _check_halves(text)
        return self


def _check_halves(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("a text has half a character (a lone surrogate)") from None


class Input(StrictModel):
    """A text, or a pair of texts where the model was trained on pairs."""

    text: Text
    text_pair: Text | None = None


class PredictRequest(StrictModel):
    """One text, or several, to be labelled."""

    inputs: Text | Input | Annotated[list[Text | Input], Field(min_length=1)]
    """A text, a pair, or a list of these."""
    model: str | None = None
    """Which of the served models; may be left out where there is one classifier."""
    top_k: Annotated[int, Field(ge=1)] | None = None
    """So many of the likeliest labels in `scores`; all of them unless given."""


class Labels(BaseModel):
    """What a classifier says of one input."""

    label: str
    """Empty where a generator wrote no label."""
    score: float
    """The probability of the likeliest label."""
    scores: dict[str, float]
    """Probabilities by label, likeliest first."""
    cut: bool
    """Whether the model read only the beginning of the input."""


class PredictResponse(BaseModel):
    """Labels, one for each input, in order."""

    id: str
    model: str
    predictions: list[Labels]


class PromptRequest(StrictModel):
    """What a prompt is wanted of: a conversation for a generator, an input for a generator that classifies."""

    model: str | None = None
    messages: Annotated[list[PromptTurn], Field(min_length=1)] | None = None
    input: Input | None = None


class PromptTurn(StrictModel):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class PromptResponse(BaseModel):
    """The text that the model sees."""

    model: str
    prompt: str


class Health(BaseModel):
    """Whether the server lives, or is ready for work."""

    status: Literal["ok", "draining"]


class Problem(BaseModel):
    """Why a request was not answered."""

    message: str
    type: str
    code: str
    param: str | None
    request_id: str


class ProblemResponse(BaseModel):
    """Every error has this shape, which is OpenAI's."""

    error: Problem


PromptRequest.model_rebuild()
