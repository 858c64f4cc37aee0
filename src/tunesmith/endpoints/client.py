"""Judges behind HTTP: OpenAI's chat completions, which many servers speak, and Ollama's own API.

What may pass (429, 5xx, timeouts, broken or senseless answers) is tried again with growing pauses; what will not (a
wrong key, an unknown model) stops at once. The key is sent to the endpoint, and is nowhere else.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol

import httpx2
from pydantic import SecretStr

from tunesmith.errors import JudgeError
from tunesmith.types import Message

Body = dict[str, Any]
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before the first retry, doubled each time, and at most; each is drawn between half of it and all."""
LONGEST_ASKED = 300.0
"""Of the seconds that a server may ask us to wait."""
LARGEST = 8 * 2**20
"""Bytes of a reply."""
PASSING = {408, 425, 429, *range(500, 600)}
"""Status codes that may be gone at the next try."""
HIDDEN = "***"


@dataclass(frozen=True, slots=True)
class JudgeRequest:
    """One question to a judge."""

    key: str
    messages: Sequence[Message]
    seed: int


@dataclass(frozen=True, slots=True)
class Reply:
    """What a judge wrote, or why there is nothing."""

    text: str = ""
    read: int = 0
    """Tokens of the question, as the endpoint counts them; 0 where it does not."""
    written: int = 0
    cut: bool = False
    """Ended by the limit of tokens."""
    failure: str = ""
    """Why no reply came, after all tries; empty where one did."""
    tries: int = 1


class JudgeClient(Protocol):
    """Something that replies to questions."""

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    @property
    def identity(self) -> Mapping[str, Any]:
        """All that makes another reply possible: part of what a stored reply is found by, and never a secret."""
        ...

    def replies(self, asked: Sequence[JudgeRequest]) -> Iterator[tuple[JudgeRequest, Reply]]:
        """Every question's reply, each as soon as it is there. Raises JudgeError where going on has no sense."""
        ...


@dataclass(frozen=True)
class Api:
    """One way to put a question and to read the answer."""

    path: str
    ask: Callable[[str, JudgeRequest, int], Body]
    read: Callable[[Body], Reply]


@dataclass(frozen=True)
class Endpoint:
    """A judge behind HTTP."""

    api: str
    url: str
    model: str
    key: SecretStr | None = None
    max_tokens: int = 512
    timeout: float = 120.0
    max_retries: int = 5
    concurrency: int = 4
    extra: Mapping[str, Any] = field(default_factory=dict)
    stopped: threading.Event = field(default_factory=threading.Event, repr=False)

    @property
    def name(self) -> str:
        return self.model

    @property
    def identity(self) -> Mapping[str, Any]:
        place = self.url.split("?")[0]
        return {"api": self.api, "url": place, "model": self.model, "max_tokens": self.max_tokens, "extra": self.extra}

    def replies(self, asked: Sequence[JudgeRequest]) -> Iterator[tuple[JudgeRequest, Reply]]:
        """In the order of their coming. After `max(5, 2 x concurrency)` failures in a row nothing more is asked."""
        waiting = iter(asked)
        failures = 0
        with httpx2.Client(timeout=self.timeout, headers=self._headers(), follow_redirects=False) as client:
            pool = ThreadPoolExecutor(self.concurrency, "judge")
            try:
                pending: dict[Future[Reply], JudgeRequest] = {}
                while True:
                    for one in waiting:
                        pending[pool.submit(self._reply, client, one)] = one
                        if len(pending) >= self.concurrency:
                            break
                    if not pending:
                        return
                    for done in wait(pending, return_when=FIRST_COMPLETED).done:
                        one, reply = pending.pop(done), done.result()
                        failures = failures + 1 if reply.failure else 0
                        yield one, reply
                    if failures >= max(5, 2 * self.concurrency):
                        raise self._dead(failures, reply.failure)
            finally:
                self.stopped.set()
                pool.shutdown(wait=True, cancel_futures=True)
                self.stopped.clear()

    def _reply(self, client: httpx2.Client, asked: JudgeRequest) -> Reply:
        """One reply, with as many tries as allowed. Raises JudgeError for what no try will mend."""
        reason = ""
        for attempt in range(self.max_retries + 1):
            try:
                return self._once(client, asked, attempt + 1)
            except _Passing as passing:
                reason, pause = passing.reason, passing.pause
            if attempt < self.max_retries:
                grown = min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt) * random.uniform(0.5, 1)  # noqa: S311 - jitter
                if self.stopped.wait(min(LONGEST_ASKED, pause) if pause is not None else grown):
                    break
        return Reply(failure=reason, tries=attempt + 1)

    def _once(self, client: httpx2.Client, asked: JudgeRequest, number: int) -> Reply:
        api = APIS[self.api]
        body = api.ask(self.model, asked, self.max_tokens) | dict(self.extra)
        status, headers, content = self._post(client, api.path, {k: v for k, v in body.items() if v is not None})
        if status in PASSING:
            raise _Passing(f"HTTP {status}", _asked_pause(headers))
        if status != 200:
            raise self._refused(status, content)
        try:
            found = api.read(json.loads(content))
        except (ValueError, LookupError, TypeError, AttributeError):
            raise _Passing("a reply that is no chat completion") from None
        text = self._hide(found.text)
        return Reply(text, found.read, found.written, found.cut, tries=number)

    def _post(self, client: httpx2.Client, path: str, body: Body) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and content; all of it within `timeout` seconds, also where a server sends drop by drop."""
        end = time.monotonic() + self.timeout
        content = bytearray()
        try:
            with client.stream("POST", _address(self.url, path), json=body) as response:
                for piece in response.iter_bytes():
                    content += piece
                    if time.monotonic() > end:
                        raise _Passing(f"no reply within {self.timeout:g} s")
                    if len(content) > LARGEST:
                        raise _Passing(f"a reply of more than {LARGEST >> 20} MB")
                return response.status_code, response.headers, bytes(content)
        except httpx2.TimeoutException:
            raise _Passing(f"no reply within {self.timeout:g} s") from None
        except httpx2.UnsupportedProtocol as error:
            raise JudgeError(f"{self.url}: no address of an endpoint", found=self._hide(str(error))) from None
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            raise _Passing(f"a broken connection ({type(error).__name__})") from None

    def _headers(self) -> dict[str, str]:
        if self.key is None:
            return {}
        value = self.key.get_secret_value().strip()
        if not (value.isascii() and value.isprintable()):
            raise JudgeError("the judge's key holds characters that no header can", do="check where it comes from")
        return {"Authorization": f"Bearer {value}"}

    def _hide(self, text: str) -> str:
        """Without the key, which servers sometimes repeat."""
        value = self.key.get_secret_value().strip() if self.key else ""
        return text.replace(value, HIDDEN) if len(value) >= 6 else text

    def _refused(self, status: int, content: bytes) -> JudgeError:
        said = self._hide(" ".join(content.decode("utf-8", "replace").split()))[:300]
        do = {
            401: "check the key: --api-key-env names its environment variable",
            403: "check the key, and what it may do",
            404: "check judge.url (OpenAI's form ends with /v1) and judge.model",
        }.get(status, "check judge.model and judge.extra")
        if 300 <= status < 400:
            do = "give the address that it redirects to"
        return JudgeError(f"{self.url} refuses to judge: HTTP {status}", found=said, do=do)

    def _dead(self, failures: int, reason: str) -> JudgeError:
        return JudgeError(
            f"{self.url} does not judge: {failures} questions in a row had no reply",
            found=reason,
            do="see to the endpoint, then run the same command again: what was judged is kept",
        )


class _Passing(Exception):
    """Something that may be gone at the next try. pause: seconds that the server asks for."""

    def __init__(self, reason: str, pause: float | None = None) -> None:
        self.reason, self.pause = reason, pause


def _address(url: str, path: str) -> str:
    """The base address with an API's path behind it, unless it is there already; a query stays at the end."""
    base, mark, query = url.partition("?")
    base = base.rstrip("/")
    return (base if base.endswith(path) else base + path) + mark + query


def _asked_pause(headers: Mapping[str, str]) -> float | None:
    """Seconds that Retry-After asks for, as a number or a date."""
    value = headers.get("retry-after", "").strip()
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _turns(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _ask_openai(model: str, asked: JudgeRequest, most: int) -> Body:
    fixed = {"temperature": 0, "seed": asked.seed, "max_tokens": most, "stream": False}
    return {"model": model, "messages": _turns(asked.messages), **fixed}


def _read_openai(body: Body) -> Reply:
    choice = body["choices"][0]
    usage = body.get("usage") or {}
    text = choice["message"]["content"]
    if text is None:  # a refusal has a field of its own; a reasoning model may have spent all its tokens
        text = choice["message"].get("refusal") or ""
    cut = choice.get("finish_reason") == "length"
    return Reply(_text(text), _number(usage, "prompt_tokens"), _number(usage, "completion_tokens"), cut)


def _ask_ollama(model: str, asked: JudgeRequest, most: int) -> Body:
    options = {"temperature": 0, "seed": asked.seed, "num_predict": most}
    return {"model": model, "messages": _turns(asked.messages), "stream": False, "options": options}


def _read_ollama(body: Body) -> Reply:
    cut = body.get("done_reason") == "length"
    text = _text(body["message"]["content"])
    return Reply(text, _number(body, "prompt_eval_count"), _number(body, "eval_count"), cut)


def _text(content: Any) -> str:
    """A text, or the texts of a list of parts; half characters, which no file could hold, are replaced."""
    if isinstance(content, list):
        content = "".join(part["text"] for part in content if part.get("type") == "text")
    if not isinstance(content, str):
        raise TypeError("no text")
    return content.encode("utf-8", "replace").decode()


def _number(counts: Mapping[str, Any], name: str) -> int:
    value = counts.get(name)
    return value if isinstance(value, int) and value >= 0 else 0


APIS = {
    "openai": Api("/chat/completions", _ask_openai, _read_openai),
    "ollama": Api("/api/chat", _ask_ollama, _read_ollama),
}
"""A new API is two functions and a row here."""
