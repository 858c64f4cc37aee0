"""Clients of chat completion endpoints: OpenAI's API, which many servers offer, and Ollama's own.

Transient problems (429, 5xx, timeouts, broken or malformed replies) are retried with exponential backoff; permanent
ones (a wrong key, an unknown model) stop at once. The API key is sent to the endpoint and appears nowhere else.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol

import httpx2
from pydantic import SecretStr

from tunesmith.endpoints.chat_client import ClientIdentity, EndpointReply, EndpointRequest, Json
from tunesmith.endpoints.token_usage import TokenUsage
from tunesmith.errors import EndpointError
from tunesmith.types import Message

INITIAL_BACKOFF, MAX_BACKOFF = 0.5, 30.0
"""Seconds before the first retry, doubled each time, and at most; each is drawn between half of it and all."""
MAX_RETRY_AFTER = 300.0
"""Seconds that a server's Retry-After may make us wait."""
MAX_REPLY_BYTES = 8 * 2**20
RETRYABLE = {408, 425, 429, *range(500, 600)}
"""Status codes of transient problems."""
HIDDEN_KEY = "***"


class ChatApi(Protocol):
    """One kind of API."""

    path: str

    def request_body(self, model: str, request: EndpointRequest, max_tokens: int) -> Json:
        """Return the body of a request."""
        ...

    def parse_reply(self, body: Json) -> EndpointReply:
        """Return the reply in a response's body; raises whatever a malformed one leads to."""
        ...


@dataclass(frozen=True)
class EndpointClient:
    """A model behind HTTP."""

    api: str
    """A key of `APIS`."""
    url: str
    model: str
    key: SecretStr | None = None
    max_tokens: int = 512
    timeout: float = 120.0
    """Seconds for a whole reply."""
    max_retries: int = 5
    concurrency: int = 4
    extra: Json = field(default_factory=dict)
    """Further fields of the request body; None removes a field."""
    stopped: threading.Event = field(default_factory=threading.Event, repr=False)

    @property
    def name(self) -> str:
        return self.model

    @property
    def identity(self) -> ClientIdentity:
        url = self.url.split("?")[0]
        return ClientIdentity(api=self.api, url=url, model=self.model, max_tokens=self.max_tokens, extra=self.extra)

    def replies(self, requests: Sequence[EndpointRequest]) -> Iterator[tuple[EndpointRequest, EndpointReply]]:
        """Yield replies in order of arrival. Raises EndpointError after `max(5, 2 x concurrency)` failures in a row."""
        unsent = iter(requests)
        failures = 0
        with httpx2.Client(timeout=self.timeout, headers=self._headers(), follow_redirects=False) as client:
            pool = ThreadPoolExecutor(self.concurrency, "endpoint")
            try:
                pending: dict[Future[EndpointReply], EndpointRequest] = {}
                while True:
                    for request in unsent:
                        pending[pool.submit(self._reply, client, request)] = request
                        if len(pending) >= self.concurrency:
                            break
                    if not pending:
                        return
                    for done in wait(pending, return_when=FIRST_COMPLETED).done:
                        request, reply = pending.pop(done), done.result()
                        failures = failures + 1 if reply.failure else 0
                        yield request, reply
                    if failures >= max(5, 2 * self.concurrency):
                        raise EndpointError(
                            f"{self.url}: {failures} requests in a row failed",
                            found=reply.failure,
                            do="check the endpoint, then run the same command again",
                        )
            finally:
                self.stopped.set()
                pool.shutdown(wait=True, cancel_futures=True)
                self.stopped.clear()

    def _reply(self, client: httpx2.Client, request: EndpointRequest) -> EndpointReply:
        """Return the reply to one request, retried where that may help. Raises EndpointError where it cannot."""
        problem = ""
        for attempt in range(self.max_retries + 1):
            try:
                reply = self._attempt(client, request)
                return replace(reply, usage=replace(reply.usage, requests=attempt + 1))
            except _TransientError as error:
                problem, pause = error.problem, error.pause
            if attempt < self.max_retries:
                backoff = min(MAX_BACKOFF, INITIAL_BACKOFF * 2**attempt) * random.uniform(0.5, 1)  # noqa: S311 - jitter
                if self.stopped.wait(backoff if pause is None else min(MAX_RETRY_AFTER, pause)):
                    break
        return EndpointReply(failure=problem, usage=TokenUsage(requests=attempt + 1))

    def _attempt(self, client: httpx2.Client, request: EndpointRequest) -> EndpointReply:
        api = APIS[self.api]
        body = {**api.request_body(self.model, request, self.max_tokens), **self.extra}
        body = {name: value for name, value in body.items() if value is not None}
        status, headers, content = self._post(client, api.path, body)
        if status in RETRYABLE:
            raise _TransientError(f"HTTP {status}", _retry_after(headers))
        if status != 200:
            raise self._refusal(status, content)
        try:
            reply = api.parse_reply(json.loads(content))
        except (ValueError, LookupError, TypeError, AttributeError):
            raise _TransientError("a reply that is not a chat completion") from None
        return replace(reply, text=self._without_key(reply.text))

    def _post(self, client: httpx2.Client, path: str, body: Json) -> tuple[int, Mapping[str, str], bytes]:
        """Return status, headers and content, all within `timeout` seconds even where a server sends byte by byte."""
        deadline = time.monotonic() + self.timeout
        content = bytearray()
        try:
            with client.stream("POST", self._address(path), json=body) as response:
                for chunk in response.iter_bytes():
                    content += chunk
                    if time.monotonic() > deadline:
                        raise _TransientError(f"no reply within {self.timeout:g} s")
                    if len(content) > MAX_REPLY_BYTES:
                        raise _TransientError(f"a reply of more than {MAX_REPLY_BYTES >> 20} MB")
                return response.status_code, response.headers, bytes(content)
        except httpx2.TimeoutException:
            raise _TransientError(f"no reply within {self.timeout:g} s") from None
        except httpx2.UnsupportedProtocol as error:
            raise EndpointError(
                f"{self.url} is not the address of an endpoint", found=self._without_key(str(error))
            ) from None
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            raise _TransientError(f"a broken connection ({type(error).__name__})") from None

    def _address(self, path: str) -> str:
        """Return the base URL followed by an API's path, unless it is there already; a query stays at the end."""
        base, mark, query = self.url.partition("?")
        base = base.rstrip("/")
        return (base if base.endswith(path) else base + path) + mark + query

    def _headers(self) -> dict[str, str]:
        if self.key is None:
            return {}
        key = self.key.get_secret_value().strip()
        if not (key.isascii() and key.isprintable()):
            raise EndpointError(
                "the API key has characters that an HTTP header cannot carry", do="check where the key comes from"
            )
        return {"Authorization": f"Bearer {key}"}

    def _without_key(self, text: str) -> str:
        """Return the text without the API key, which servers sometimes repeat."""
        key = self.key.get_secret_value().strip() if self.key else ""
        return text.replace(key, HIDDEN_KEY) if len(key) >= 6 else text

    def _refusal(self, status: int, content: bytes) -> EndpointError:
        body = self._without_key(" ".join(content.decode("utf-8", "replace").split()))[:300]
        do = {
            401: "check the key: --api-key-env names its environment variable",
            403: "check the key and its permissions",
            404: "check the URL (OpenAI's API ends with /v1) and the model's name",
        }.get(status, "check the model's name and the extra fields of the request")
        if 300 <= status < 400:
            do = "use the address that it redirects to"
        return EndpointError(f"{self.url} refused the request: HTTP {status}", found=body, do=do)


class _TransientError(Exception):
    """A problem that a retry may solve. pause: seconds to wait first, where the server says how many."""

    def __init__(self, problem: str, pause: float | None = None) -> None:
        self.problem, self.pause = problem, pause


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that Retry-After asks for, as a number or a date; None without one."""
    value = headers.get("retry-after", "").strip()
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _message_list(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _text(content: Any) -> str:
    """Return a text, or the joined texts of a list of parts; lone surrogates, which no file can hold, are replaced."""
    if isinstance(content, list):
        content = "".join(part["text"] for part in content if part.get("type") == "text")
    if not isinstance(content, str):
        raise TypeError("no text")
    return content.encode("utf-8", "replace").decode()


def _count(counts: Json, name: str) -> int:
    value = counts.get(name)
    return value if isinstance(value, int) and value >= 0 else 0


class OpenAiApi:
    """Chat completions as OpenAI documents them."""

    path = "/chat/completions"

    def request_body(self, model: str, request: EndpointRequest, max_tokens: int) -> Json:
        """Return the body of a request."""
        fixed = {"temperature": 0, "seed": request.seed, "max_tokens": max_tokens, "stream": False}
        return {"model": model, "messages": _message_list(request.messages), **fixed}

    def parse_reply(self, body: Json) -> EndpointReply:
        """Return the reply in a response's body."""
        choice = body["choices"][0]
        text = choice["message"]["content"]
        if text is None:  # a refusal has a field of its own; a reasoning model may have spent all its tokens
            text = choice["message"].get("refusal") or ""
        counts = body.get("usage") or {}
        usage = TokenUsage(_count(counts, "prompt_tokens"), _count(counts, "completion_tokens"), 1)
        return EndpointReply(_text(text), usage, choice.get("finish_reason") == "length")


class OllamaApi:
    """Ollama's own chat API."""

    path = "/api/chat"

    def request_body(self, model: str, request: EndpointRequest, max_tokens: int) -> Json:
        """Return the body of a request."""
        options = {"temperature": 0, "seed": request.seed, "num_predict": max_tokens}
        return {"model": model, "messages": _message_list(request.messages), "stream": False, "options": options}

    def parse_reply(self, body: Json) -> EndpointReply:
        """Return the reply in a response's body."""
        usage = TokenUsage(_count(body, "prompt_eval_count"), _count(body, "eval_count"), 1)
        return EndpointReply(_text(body["message"]["content"]), usage, body.get("done_reason") == "length")


APIS: dict[str, ChatApi] = {"openai": OpenAiApi(), "ollama": OllamaApi()}
"""A new API is a class and an entry here."""
