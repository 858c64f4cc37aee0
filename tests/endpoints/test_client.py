"""Endpoints that misbehave in every way: what is retried, what stops, where keys go."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr

from tests.endpoint_server import completion, serving
from tunesmith.endpoints import client
from tunesmith.endpoints.chat_client import EndpointReply, EndpointRequest
from tunesmith.endpoints.client import EndpointClient
from tunesmith.endpoints.token_usage import TokenUsage
from tunesmith.errors import EndpointError
from tunesmith.types import Message

KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "INITIAL_BACKOFF", 0.01)


def ask(url: str, number: int = 1, **settings: Any) -> list[tuple[EndpointRequest, EndpointReply]]:
    settings = {"timeout": 0.5, "max_retries": 2} | settings
    endpoint = EndpointClient(settings.pop("api", "openai"), url, "small", SecretStr(KEY), **settings)
    requests = [
        EndpointRequest(str(n), [Message("system", "s"), Message("user", f"question {n}")], 7) for n in range(number)
    ]
    return sorted(endpoint.replies(requests), key=lambda pair: int(pair[0].key))


def once(first: Any) -> Callable[[Any], Any]:
    """Does `first` on the first request, and then replies."""
    seen: list[int] = []

    def act(_: Any) -> Any:
        seen.append(1)
        return first if len(seen) == 1 else "Score: 70"

    return act


def test_the_request_is_what_openai_documents() -> None:
    with serving(lambda _: "Score: 70") as server:
        ((_, reply),) = ask(server.url, max_tokens=33, extra={"top_p": 1, "seed": None})
    (request,) = server.requests
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.body == {
        "model": "small",
        "temperature": 0,
        "max_tokens": 33,
        "stream": False,
        "top_p": 1,
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "question 0"}],
    }
    assert replace(reply, seconds=0) == EndpointReply("Score: 70", TokenUsage(100, 7, 1))
    assert 0 < reply.seconds < 0.5


def test_ollamas_own_api() -> None:
    said = {
        "message": {"role": "assistant", "content": "Score: 70"},
        "prompt_eval_count": 9,
        "eval_count": 4,
        "done_reason": "length",
    }
    with serving(lambda _: (200, {}, json.dumps(said).encode())) as server:
        ((_, reply),) = ask(server.url.removesuffix("/v1"), api="ollama", extra={"keep_alive": 60})
    (request,) = server.requests
    assert request.path == "/api/chat"
    assert request.body["options"] == {"temperature": 0, "seed": 7, "num_predict": 512}
    assert (request.body["stream"], request.body["keep_alive"]) == (False, 60)
    assert replace(reply, seconds=0) == EndpointReply("Score: 70", TokenUsage(9, 4, 1), truncated=True)


@pytest.mark.parametrize(
    "trouble",
    [
        (500, {}, b"oops"),
        (503, {}, b""),
        (429, {}, b"{}"),
        (408, {}, b""),
        "hang",
        "drop",
        "cut",
        "drip",
        (200, {}, b"no json"),
        (200, {}, b"[]"),
        (200, {}, b'{"choices": []}'),
        (200, {}, b'{"error": "busy"}'),
        (200, {"Content-Encoding": "gzip"}, b"no gzip"),
        (200, {}, b'{"choices": [{"message": {"content": 5}}]}'),
    ],
    ids=str,
)
def test_what_may_pass_is_tried_again(trouble: Any) -> None:
    with serving(once(trouble)) as server:
        ((_, reply),) = ask(server.url)
    assert (reply.text, reply.usage.requests, len(server.requests)) == ("Score: 70", 2, 2)


@pytest.mark.parametrize("trouble", [(500, {}, b"oops"), "drop", (200, {}, b"no json"), "hang"], ids=str)
def test_tries_have_an_end(trouble: Any) -> None:
    with serving(lambda _: trouble) as server:
        ((_, reply),) = ask(server.url, timeout=0.2)
    assert (reply.text, reply.usage.requests, len(server.requests)) == ("", 3, 3)
    assert reply.failure


@pytest.mark.parametrize("value", ["0.4", "date"])
def test_retry_after_is_obeyed(value: str) -> None:
    from email.utils import formatdate

    wanted = formatdate(time.time() + 2, usegmt=True) if value == "date" else value
    with serving(once((429, {"Retry-After": wanted}, b""))) as server:
        start = time.monotonic()
        ((_, reply),) = ask(server.url)
    assert reply.text == "Score: 70"
    assert time.monotonic() - start >= (0.4 if value != "date" else 0.9)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 302])
def test_what_will_not_pass_stops_at_once_and_the_key_is_not_repeated(status: int) -> None:
    body = json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}}).encode()
    with serving(lambda _: (status, {"Location": "http://127.0.0.1:1/"}, body)) as server:
        with pytest.raises(EndpointError, match=f"HTTP {status}") as caught:
            ask(server.url, 50, concurrency=1)
        assert len(server.requests) <= 2
    assert KEY not in str(caught.value)
    assert "Incorrect API key provided: ***" in str(caught.value)


def test_a_dead_endpoint_is_given_up() -> None:
    # after ten, or the few more that failed in the same moment
    with (
        serving(lambda _: "drop") as server,
        pytest.raises(EndpointError, match=r"1[0-4] requests in a row failed"),
    ):
        ask(server.url, 100, max_retries=0, concurrency=5)
    with pytest.raises(EndpointError, match="requests in a row failed"):  # nobody listens there any more
        ask(server.url, 100, max_retries=0)


def test_a_refusal_is_a_reply() -> None:
    with serving(lambda _: (200, {}, completion(None, refusal="I cannot."))) as server:
        ((_, reply),) = ask(server.url)
    assert (reply.text, reply.failure) == ("I cannot.", "")


def test_concurrency_is_a_limit_and_every_question_has_one_reply() -> None:
    with serving(lambda one: one.user, delay=0.05) as server:
        pairs = ask(server.url, 30, concurrency=3, timeout=5)
    assert [reply.text for _, reply in pairs] == [f"question {n}" for n in range(30)]
    assert set(Counter(request.user for request in server.requests).values()) == {1}
    assert 2 <= server.highest <= 3


def test_the_key_is_in_no_repr_and_no_identity_and_a_bad_one_is_not_repeated() -> None:
    endpoint = EndpointClient("openai", "http://127.0.0.1:1/v1", "small", SecretStr(KEY))
    assert KEY not in f"{endpoint!r} {endpoint.identity} {endpoint.name}"
    with serving(lambda _: f"Your key is {KEY}, Score: 3") as server:
        ((_, reply),) = ask(server.url)
    assert reply.text == "Your key is ***, Score: 3"
    bad = EndpointClient("openai", "http://127.0.0.1:1/v1", "small", SecretStr(KEY + "\nx"))
    with pytest.raises(EndpointError, match="an HTTP header cannot carry") as caught:
        list(bad.replies([EndpointRequest("1", [], 1)]))
    assert "secret" not in str(caught.value)
