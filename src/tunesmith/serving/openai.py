"""OpenAI's shapes: requests for completions, answers, chunks of a stream, models.

https://platform.openai.com/docs/api-reference. What cannot be done is refused and not overlooked; fields that change
nothing here (`user`, `metadata`) may be there.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, WithJsonSchema

from tunesmith.recipe import Generate
from tunesmith.serving.schemas import StrictModel
from tunesmith.types import Message

Finish = Literal["stop", "length", "content_filter"]
Stop = Annotated[str, Field(min_length=1, max_length=256)]
TURNS = 256
"""Most turns of a conversation: before each answer in it the template is rendered anew."""
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


def _off(value: bool) -> bool:
    if value:
        raise ValueError("only false is possible here")
    return value


Zero = Annotated[float, Field(ge=0, le=0)]
One = Annotated[int, Field(ge=1, le=1)]
Off = Annotated[bool, AfterValidator(_off), WithJsonSchema({"const": False})]
"""Settings that cannot be changed here. (A Literal would also take 0.0 for false, and true for 1.)"""


class TextPart(StrictModel):
    """A part of a message."""

    type: Literal["text"]
    text: str


class ChatMessage(StrictModel):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(min_length=1)]
    name: str | None = None
    refusal: None = None
    """As answers have it: they can be sent back as they came."""

    def plain(self) -> Message:
        """As templates know it."""
        parts = self.content
        text = parts if isinstance(parts, str) else "".join(part.text for part in parts)
        return Message("system" if self.role == "developer" else self.role, text)


class StreamOptions(StrictModel):
    """Of a stream."""

    include_usage: bool = False
    include_obfuscation: bool = False


class GenerationParameters(StrictModel):
    """What both kinds of requests can say."""

    model: str | None = None
    """Which of the served models; may be left out where there is one generator."""
    max_tokens: Count | None = None
    """Most tokens of the answer."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """0 takes the likeliest token; without it and `top_p` the run's own settings decide."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Seed | None = None
    """Makes drawn answers repeatable."""
    stop: Stop | Annotated[list[Stop], Field(min_length=1, max_length=4)] | None = None
    """The answer ends before the first of these."""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: One | None = None
    """Only one answer is written."""
    presence_penalty: Zero | None = None
    frequency_penalty: Zero | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    user: str | None = None

    def generation(self, own: Generate) -> Generate:
        """The run's settings with those of the request. Giving a temperature, or top_p, means to draw."""
        if self.temperature is None and self.top_p is None:
            return own
        if self.temperature == 0:
            return own.model_copy(update={"do_sample": False})
        changes = {"temperature": self.temperature or own.temperature, "top_p": self.top_p or own.top_p}
        return own.model_copy(update={"do_sample": True, **changes})

    def number(self) -> int:
        """The seed, or a new one."""
        return secrets.randbits(32) if self.seed is None else self.seed

    def stops(self) -> list[str]:
        """Texts before which the answer ends."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())


class ChatRequest(GenerationParameters):
    """What /v1/chat/completions is asked."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=TURNS)]
    max_completion_tokens: Count | None = None
    """The newer name of `max_tokens`."""
    logprobs: Off | None = None
    response_format: TextFormat | None = None
    metadata: dict[str, str] | None = None
    store: Off | None = None


class TextFormat(StrictModel):
    """The only format of answers."""

    type: Literal["text"]


class CompletionRequest(GenerationParameters):
    """What /v1/completions is asked. The prompt is not put into a template."""

    prompt: (
        Annotated[str, Field(min_length=1)]
        | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=1)]
    )
    echo: Off | None = None
    best_of: One | None = None
    logprobs: Zero | None = None
    suffix: Literal[""] | None = None

    def text(self) -> str:
        """The prompt."""
        return self.prompt if isinstance(self.prompt, str) else self.prompt[0]


class Usage(BaseModel):
    """Tokens of one request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, prompt: int, completion: int) -> Usage:
        """With their sum."""
        return cls(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)


class AssistantMessage(BaseModel):
    """A message of the model."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(BaseModel):
    """The only choice."""

    index: int = 0
    message: AssistantMessage
    logprobs: None = None
    finish_reason: Finish


class ChatResponse(BaseModel):
    """The answer of /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class CompletionChoice(BaseModel):
    """The only choice."""

    index: int = 0
    text: str
    logprobs: None = None
    finish_reason: Finish


class CompletionResponse(BaseModel):
    """The answer of /v1/completions."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage


class ModelCard(BaseModel):
    """One served model. OpenAI's clients read the first four."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["tunesmith"] = "tunesmith"
    task: str
    """`classification` (ask /predict) or `instruction` (ask /v1/chat/completions)."""
    labels: list[str] = []
    pairs: bool = False
    """Whether a classifier wants two texts."""
    limit: int | None = None
    """Most tokens that the model reads; of a generator, with the answer."""
    prompted: bool = False
    """Whether /prompt shows what the model sees."""


class ModelList(BaseModel):
    """All served models."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class ResponseBuilder:
    """One answer in the shape of /v1/chat/completions or /v1/completions."""

    def __init__(self, chat: bool, request: str, model: str) -> None:
        self.chat = chat
        self.head: dict[str, Any] = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{request}",
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, text: str, finish: Finish, usage: Usage) -> ChatResponse | CompletionResponse:
        """The answer in one."""
        if self.chat:
            choice = ChatChoice(message=AssistantMessage(content=text), finish_reason=finish)
            return ChatResponse(**self.head, choices=[choice], usage=usage)
        choices = [CompletionChoice(text=text, finish_reason=finish)]
        return CompletionResponse(**self.head, choices=choices, usage=usage)

    def chunk(self, piece: str | None, finish: Finish | None = None, usage: bool = False) -> dict[str, Any]:
        """A piece of it; None opens the stream. usage: the client wants them, so each chunk has the field."""
        if self.chat:
            delta = {"role": "assistant", "content": ""} if piece is None else {"content": piece} if piece else {}
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        else:
            choice = {"index": 0, "text": piece or "", "logprobs": None, "finish_reason": finish}
        return self._chunk([choice]) | ({"usage": None} if usage else {})

    def usage(self, usage: Usage) -> dict[str, Any]:
        """The last chunk, where it is asked for."""
        return self._chunk([]) | {"usage": usage.model_dump()}

    def _chunk(self, choices: Sequence[dict[str, Any]]) -> dict[str, Any]:
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        return {**self.head, "object": kind, "choices": list(choices)}


ChatRequest.model_rebuild()
