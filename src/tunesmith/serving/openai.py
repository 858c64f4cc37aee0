"""OpenAI's request and response bodies: completions, chunks of a stream, models.

https://platform.openai.com/docs/api-reference. What is not supported is refused and never ignored; fields that have no
effect here (`user`, `metadata`) are accepted.
"""

from __future__ import annotations

import secrets
import time
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, WithJsonSchema

from tunesmith.recipe import Generate
from tunesmith.serving.schemas import StrictModel
from tunesmith.types import Message

Finish = Literal["stop", "length", "content_filter"]
Stop = Annotated[str, Field(min_length=1, max_length=256)]
MAX_TURNS = 256
"""Most turns of a conversation: the template is rendered anew before each answer in it."""
Chunk = dict[str, Any]
"""A part of a response, as JSON."""
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


def _must_be_false(value: bool) -> bool:
    if value:
        raise ValueError("only false is supported")
    return value


Zero = Annotated[float, Field(ge=0, le=0)]
One = Annotated[int, Field(ge=1, le=1)]
Off = Annotated[bool, AfterValidator(_must_be_false), WithJsonSchema({"const": False})]
"""Settings that can only have their default. (A Literal would also accept 0.0 for false, and true for 1.)"""


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
    """Present in responses, which can be sent back unchanged."""

    def message(self) -> Message:
        """Return the turn as templates render it."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Message("system" if self.role == "developer" else self.role, text)


class StreamOptions(StrictModel):
    """Options of a stream."""

    include_usage: bool = False
    include_obfuscation: bool = False


class GenerationParameters(StrictModel):
    """Parameters that both kinds of requests share."""

    model: str | None = None
    """Name of a served model; optional where only one generator is served."""
    max_tokens: Count | None = None
    """Maximum number of tokens of the answer."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """0 is greedy decoding; without it and `top_p`, the run's own settings are used."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Seed | None = None
    """Makes sampled answers reproducible."""
    stop: Stop | Annotated[list[Stop], Field(min_length=1, max_length=4)] | None = None
    """The answer ends before the first of these sequences."""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: One | None = None
    """Only one answer is generated."""
    presence_penalty: Zero | None = None
    frequency_penalty: Zero | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    user: str | None = None

    def generation(self, own: Generate) -> Generate:
        """Return the run's settings with those of the request; a temperature or top_p turns sampling on."""
        if self.temperature is None and self.top_p is None:
            return own
        if self.temperature == 0:
            return own.model_copy(update={"do_sample": False})
        changes = {"temperature": self.temperature or own.temperature, "top_p": self.top_p or own.top_p}
        return own.model_copy(update={"do_sample": True, **changes})

    def seed_or_random(self) -> int:
        """Return the seed, or a random one."""
        return secrets.randbits(32) if self.seed is None else self.seed

    def stop_sequences(self) -> list[str]:
        """Return the sequences before which the answer ends."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())


class TextFormat(StrictModel):
    """The only supported response format."""

    type: Literal["text"]


class ChatRequest(GenerationParameters):
    """The request body of /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_TURNS)]
    max_completion_tokens: Count | None = None
    """The newer name of `max_tokens`."""
    logprobs: Off | None = None
    response_format: TextFormat | None = None
    metadata: dict[str, str] | None = None
    store: Off | None = None


class CompletionRequest(GenerationParameters):
    """The request body of /v1/completions. The prompt is not put into a template."""

    prompt: (
        Annotated[str, Field(min_length=1)]
        | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=1)]
    )
    echo: Off | None = None
    best_of: One | None = None
    logprobs: Zero | None = None
    suffix: Literal[""] | None = None

    def text(self) -> str:
        """Return the prompt."""
        return self.prompt if isinstance(self.prompt, str) else self.prompt[0]


class Usage(BaseModel):
    """Tokens of one request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, prompt: int, completion: int) -> Usage:
        """Return the counts with their sum."""
        return cls(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)


class AssistantMessage(BaseModel):
    """A message of the model."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(BaseModel):
    """The generated answer."""

    index: int = 0
    message: AssistantMessage
    logprobs: None = None
    finish_reason: Finish


class ChatResponse(BaseModel):
    """The response body of /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str
    """The model's version, as `/v1/models` has it."""
    choices: list[ChatChoice]
    usage: Usage


class CompletionChoice(BaseModel):
    """The generated answer."""

    index: int = 0
    text: str
    logprobs: None = None
    finish_reason: Finish


class CompletionResponse(BaseModel):
    """The response body of /v1/completions."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str
    """The model's version, as `/v1/models` has it."""
    choices: list[CompletionChoice]
    usage: Usage


class ModelCard(BaseModel):
    """One served model. OpenAI's clients read the first four fields."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["tunesmith"] = "tunesmith"
    version: str
    """Tells versions of a model apart: the beginning of a hash of the run's model and recipe. Every response of the
    model has it in the header X-Model-Version."""
    run: str
    """Name of the folder that the model was loaded from."""
    task: str
    """`classification`, `multilabel`, `regression` (see /predict) or `instruction` (see /v1/chat/completions)."""
    labels: list[str] = []
    thresholds: dict[str, float] | None = None
    """Where a text has any number of labels: the probability from which each is predicted."""
    pairs: bool = False
    """Whether a classifier expects two texts."""
    limit: int | None = None
    """Maximum number of tokens that the model reads; for a generator, answer included."""
    prompted: bool = False
    """Whether /prompt can render its prompts."""


class ModelList(BaseModel):
    """All served models."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
    examples: list[str] = []
    """Inputs that the playground offers (`serve.examples`)."""
    keyed: bool = False
    """Whether requests need a key."""


class ResponseBuilder:
    """Builds the response to one request, in the format of /v1/chat/completions or /v1/completions."""

    def __init__(self, chat: bool, request_id: str, model: str, version: str) -> None:
        self.chat = chat
        self.head: Chunk = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{request_id}",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": version,
        }

    def whole(self, text: str, finish: Finish, usage: Usage) -> ChatResponse | CompletionResponse:
        """Return the response that is not streamed."""
        if self.chat:
            choice = ChatChoice(message=AssistantMessage(content=text), finish_reason=finish)
            return ChatResponse(**self.head, choices=[choice], usage=usage)
        choices = [CompletionChoice(text=text, finish_reason=finish)]
        return CompletionResponse(**self.head, choices=choices, usage=usage)

    def chunk(self, piece: str | None, finish: Finish | None = None, usage: bool = False) -> Chunk:
        """Return one chunk of a stream; a piece of None opens it. usage: the client asked for it, so each chunk has the
        field."""
        if self.chat:
            delta = {"role": "assistant", "content": ""} if piece is None else {"content": piece} if piece else {}
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        else:
            choice = {"index": 0, "text": piece or "", "logprobs": None, "finish_reason": finish}
        return self._chunk(choice) | ({"usage": None} if usage else {})

    def usage(self, usage: Usage) -> Chunk:
        """Return the last chunk, which has the usage."""
        return self._chunk() | {"usage": usage.model_dump()}

    def _chunk(self, *choices: Chunk) -> Chunk:
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        return {**self.head, "object": kind, "choices": list(choices)}
