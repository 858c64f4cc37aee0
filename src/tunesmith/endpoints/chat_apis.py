"""Bodies of requests and responses: OpenAI's chat completions, which many servers offer, and Ollama's own API.

https://platform.openai.com/docs/api-reference/chat, https://docs.ollama.com/api/chat. vLLM and llama.cpp take the same
fields as OpenAI, `response_format` and `logprobs` among them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

from tunesmith.endpoints.chat_client import EndpointReply, EndpointRequest, Json, TokenAlternatives
from tunesmith.endpoints.token_usage import TokenUsage
from tunesmith.types import Message

LOGPROB_TOLERANCE = 1e-3
"""How far above 0 rounding may lift a log-probability."""


class ChatApi(Protocol):
    """One kind of API."""

    path: str

    def request_body(self, model: str, request: EndpointRequest, max_tokens: int) -> dict[str, Any]:
        """Return the body of a request."""
        ...

    def parse_reply(self, body: Json) -> EndpointReply:
        """Return the reply in a response's body; raises whatever a malformed one leads to."""
        ...


class OpenAiApi:
    """Chat completions as OpenAI documents them."""

    path = "/chat/completions"

    def request_body(self, model: str, request: EndpointRequest, max_tokens: int) -> dict[str, Any]:
        """Return the body of a request."""
        body: dict[str, Any] = {
            "model": model,
            "messages": _message_list(request.messages),
            "temperature": request.temperature,
            "seed": request.seed,
            "max_tokens": max_tokens,
            "stream": False,
        }
        if request.schema is not None:
            schema = {"name": "reply", "strict": True, "schema": request.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body | _logprob_fields(request)

    def parse_reply(self, body: Json) -> EndpointReply:
        """Return the reply in a response's body."""
        choice = body["choices"][0]
        text = choice["message"]["content"]
        if text is None:  # a refusal has a field of its own; a reasoning model may have spent all its tokens
            text = choice["message"].get("refusal") or ""
        text = _text(text)
        counts = body.get("usage") or {}
        logprobs = choice.get("logprobs")
        return EndpointReply(
            text,
            TokenUsage(_count(counts, "prompt_tokens"), _count(counts, "completion_tokens"), 1),
            truncated=choice.get("finish_reason") == "length",
            tokens=parse_tokens(logprobs.get("content") if isinstance(logprobs, dict) else None, text),
            model=_model(body),
        )


class OllamaApi:
    """Ollama's own chat API."""

    path = "/api/chat"

    def request_body(self, model: str, request: EndpointRequest, max_tokens: int) -> dict[str, Any]:
        """Return the body of a request."""
        options = {"temperature": request.temperature, "seed": request.seed, "num_predict": max_tokens}
        body: dict[str, Any] = {
            "model": model,
            "messages": _message_list(request.messages),
            "stream": False,
            "options": options,
        }
        if request.schema is not None:
            body["format"] = request.schema
        return body | _logprob_fields(request)

    def parse_reply(self, body: Json) -> EndpointReply:
        """Return the reply in a response's body."""
        text = _text(body["message"]["content"])
        return EndpointReply(
            text,
            TokenUsage(_count(body, "prompt_eval_count"), _count(body, "eval_count"), 1),
            truncated=body.get("done_reason") == "length",
            tokens=parse_tokens(body.get("logprobs"), text),
            model=_model(body),
        )


APIS: dict[str, ChatApi] = {"openai": OpenAiApi(), "ollama": OllamaApi()}
"""A new API is a class and an entry here."""


def parse_tokens(entries: Any, text: str) -> tuple[TokenAlternatives, ...]:
    """Return the tokens of `text`, or none: unless every entry is whole and together they spell the text.

    Servers that separate a model's reasoning from its answer may list the tokens of both, others leave some out; a
    probability read at the wrong token would be worse than none. Tokens after the text's end, which ended it, are left
    out.
    """
    try:
        parsed = [(_spelling(entry), _alternatives(entry)) for entry in entries]
    except (LookupError, TypeError, ValueError, AttributeError):
        return ()
    rest = text.encode()
    tokens: list[TokenAlternatives] = []
    for spelling, alternatives in parsed:
        if not tokens and rest[:1].strip():  # servers trim the text
            spelling = spelling.lstrip()
        if not rest.startswith(spelling[: len(rest)]) or spelling[len(rest) :].strip():
            break
        if rest:
            tokens.append(alternatives)
        rest = rest[len(spelling) :]
    return () if rest else tuple(tokens)


def _alternatives(entry: Json) -> TokenAlternatives:
    """Return a token with its alternatives. Raises LookupError, TypeError or ValueError where anything is missing."""
    token, alternatives = entry["token"], entry["top_logprobs"]
    if not isinstance(token, str) or not alternatives:
        raise TypeError("no token")
    logprobs: dict[str, float] = {}
    for candidate in [*alternatives, entry]:
        name, value = candidate["token"], candidate["logprob"]
        if not isinstance(name, str) or isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError("no log-probability")
        if not math.isfinite(value) or value > LOGPROB_TOLERANCE:
            raise ValueError("no log-probability")
        name = _storable(name)
        logprobs[name] = max(logprobs.get(name, -math.inf), min(0.0, value))
    return TokenAlternatives(_storable(token), logprobs)


def _spelling(entry: Json) -> bytes:
    """Return a token's bytes: a token may end within a character, which its text cannot show."""
    spelling = entry.get("bytes")
    return bytes(spelling) if isinstance(spelling, list) else entry["token"].encode()


def _logprob_fields(request: EndpointRequest) -> dict[str, Any]:
    return {"logprobs": True, "top_logprobs": request.top_logprobs} if request.top_logprobs else {}


def _message_list(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _text(content: Any) -> str:
    """Return a text, or the joined texts of a list of parts."""
    if isinstance(content, list):
        content = "".join(part["text"] for part in content if part.get("type") == "text")
    if not isinstance(content, str):
        raise TypeError("no text")
    return _storable(content)


def _storable(text: str) -> str:
    """Return a text without lone surrogates, which no file can hold."""
    return text.encode("utf-8", "replace").decode()


def _model(body: Json) -> str:
    """Return the model that a response names, with its fingerprint in brackets."""
    model, fingerprint = (
        _storable(name) if isinstance(name := body.get(field), str) else "" for field in ("model", "system_fingerprint")
    )
    return f"{model} ({fingerprint})".strip() if fingerprint else model


def _count(counts: Json, name: str) -> int:
    value = counts.get(name)
    return value if type(value) is int and value >= 0 else 0
