"""Endpoints that misbehave in every way: what is retried, what stops, where keys go."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tests.endpoint_requests import requests
from tests.endpoint_server import completion, response, serving
from tunesmith.endpoints import client
from tunesmith.endpoints.chat_client import EndpointReply, EndpointRequest, TokenAlternatives
from tunesmith.endpoints.client import EndpointClient
from tunesmith.endpoints.completion import complete
from tunesmith.endpoints.journal import Journal
from tunesmith.endpoints.token_usage import TokenUsage
from tunesmith.errors import EndpointError

KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "INITIAL_BACKOFF", 0.01)


def ask(url: str, number: int = 1, **settings: Any) -> list[tuple[EndpointRequest, EndpointReply]]:
    settings = {"timeout": 0.5, "max_retries": 2} | settings
    endpoint = EndpointClient(settings.pop("api", "openai"), url, "small", SecretStr(KEY), **settings)
    return sorted(endpoint.replies(requests(range(number))), key=lambda pair: int(pair[0].key))


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
        "reset",
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


def test_milliseconds_and_nonsense_in_retry_after() -> None:
    assert client._retry_after({"retry-after-ms": "1500", "retry-after": "9"}) == 1.5
    assert client._retry_after({"retry-after-ms": "soon", "retry-after": "9"}) == 9
    assert client._retry_after({"retry-after": "-3"}) == 0
    assert [client._retry_after({"retry-after": value}) for value in ("", "soon", "Mon, 99")] == [None] * 3


def test_a_used_up_quota_stops_at_once() -> None:
    body = {"error": {"message": "You exceeded your current quota", "type": "insufficient_quota", "param": None}}
    with serving(lambda _: (429, {"Retry-After": "1"}, json.dumps(body).encode())) as server:
        with pytest.raises(EndpointError, match="HTTP 429") as caught:
            ask(server.url, 50, concurrency=1)
        assert len(server.requests) == 1
    assert "check the account's plan and billing" in str(caught.value)


def test_a_request_that_is_too_long_fails_alone() -> None:
    """As OpenAI and vLLM, llama.cpp, and a content filter say it; nothing is tried again, nothing is left out."""
    refusals = {
        "question 3": {"message": "This model's maximum context length is 9 tokens", "param": "max_tokens"},
        "question 5": {
            "message": "the request exceeds the available context size",
            "type": "exceed_context_size_error",
        },
        "question 7": {"message": "filtered", "code": "content_filter"},
    }

    def act(request: Any) -> Any:
        refusal = refusals.get(request.user)
        return (400, {}, json.dumps({"error": refusal}).encode()) if refusal else "fine"

    with serving(act) as server:
        pairs = ask(server.url, 10, timeout=5)
    assert len(server.requests) == 10
    failures = {request.key: reply.failure for request, reply in pairs if reply.failure}
    with serving(lambda _: (400, {}, json.dumps({"error": {"code": "context_length_exceeded"}}).encode())) as server:
        assert len(ask(server.url, 50, timeout=5)) == len(server.requests) == 50  # however many they are in a row
    too_long = "prompt and max_tokens exceed the model's context"
    assert failures == {"3": too_long, "5": too_long, "7": "refused by the endpoint's content filter"}


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


def test_connections_are_reused() -> None:
    with serving(lambda _: "fine") as server:
        ask(server.url, 200, concurrency=8, timeout=10)
        assert len(server.requests) == 200
        assert server.connections <= 8


def test_replies_on_their_way_when_a_problem_comes_are_not_lost() -> None:
    """One request is refused while seven are being answered."""

    def act(request: Any) -> Any:
        if request.user == "question 9":
            return 401, {}, b"{}"
        time.sleep(0.3)
        return "fine"

    with serving(act) as server:
        endpoint = EndpointClient("openai", server.url, "small", concurrency=8, timeout=5)
        arrived: list[tuple[EndpointRequest, EndpointReply]] = []
        with pytest.raises(EndpointError, match="HTTP 401"):
            arrived.extend(endpoint.replies(requests(range(100))))
        assert len(arrived) == len(server.requests) - 1 < 20
        assert {reply.text for _, reply in arrived} == {"fine"}


def test_an_abandoned_client_does_not_wait_for_replies() -> None:
    with serving(lambda one: "fine" if one.user == "question 0" else "hang", hang=3) as server:
        endpoint = EndpointClient("openai", server.url, "small", concurrency=4, timeout=10)
        replies = endpoint.replies(requests(range(100)))
        assert next(replies)[1].text == "fine"
        start = time.monotonic()
        replies.close()
        assert time.monotonic() - start < 1
        assert len(server.requests) <= 4


SCHEMA = {"type": "object", "properties": {"label": {"enum": ["ham", "spam"]}}, "required": ["label"]}


def test_schema_temperature_and_log_probabilities_are_sent_to_openai() -> None:
    (request,) = requests([0], temperature=0.7, schema=SCHEMA, top_logprobs=5)
    with serving(lambda _: "ham") as server:
        list(EndpointClient("openai", server.url, "small").replies([request]))
    body = server.requests[0].body
    assert body["temperature"] == 0.7
    assert body["response_format"]["type"] == "json_schema"
    assert body["response_format"]["json_schema"] == {"name": "reply", "strict": True, "schema": SCHEMA}
    assert (body["logprobs"], body["top_logprobs"]) == (True, 5)


def test_schema_temperature_and_log_probabilities_are_sent_to_ollama() -> None:
    token = {"token": "ham", "logprob": -0.25, "bytes": [104, 97, 109]}
    said = {
        "model": "gemma3",
        "message": {"role": "assistant", "content": "ham"},
        "logprobs": [{**token, "top_logprobs": [token, {"token": "spam", "logprob": -1.5}]}],
        "prompt_eval_count": 9,
        "eval_count": 1,
    }
    (request,) = requests([0], temperature=0.7, schema=SCHEMA, top_logprobs=2)
    with serving(lambda _: (200, {}, json.dumps(said).encode())) as server:
        ((_, reply),) = EndpointClient("ollama", server.url.removesuffix("/v1"), "small").replies([request])
    body = server.requests[0].body
    assert body["options"] == {"temperature": 0.7, "seed": 7, "num_predict": 512}
    assert (body["format"], body["logprobs"], body["top_logprobs"]) == (SCHEMA, True, 2)
    assert reply.tokens == (TokenAlternatives("ham", {"ham": -0.25, "spam": -1.5}),)
    assert reply.model == "gemma3"


def test_the_model_that_answered_is_noted_with_its_fingerprint() -> None:
    choice = {"message": {"content": "ham"}}
    names = [{"model": "small-2026"}, {"model": "small-2026", "system_fingerprint": "fp_1"}, {"model": 5}, {}]
    bodies = iter([response(choice, **name) for name in names])
    with serving(lambda _: (200, {}, next(bodies))) as server:
        models = [reply.model for _, reply in ask(server.url, 4, concurrency=1)]
    assert models == ["small-2026", "small-2026 (fp_1)", "", ""]


def test_the_key_is_in_nothing_that_is_kept_or_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of a server that repeats it everywhere."""

    @dataclass(frozen=True)
    class All:
        reply: EndpointReply
        failure: str

        @property
        def usage(self) -> TokenUsage:
            return self.reply.usage

    def act(request: Any) -> Any:
        number = int(request.user.split()[1])
        if number == 1 and "seed" in request.body:
            return 400, {}, json.dumps({"error": {"message": f"{KEY}: unsupported `seed`", "param": "seed"}}).encode()
        if number == 2:
            return 500, {KEY: KEY}, KEY.encode()
        if number == 19:
            return 404, {}, json.dumps({"error": f"no model of {KEY}"}).encode()
        logprobs = {"content": [{"token": KEY, "logprob": -1, "top_logprobs": [{"token": KEY, "logprob": -1}]}]}
        choice = {"message": {"content": KEY}, "logprobs": logprobs}
        return 200, {}, response(choice, model=KEY, system_fingerprint=KEY)

    with serving(act) as server:
        endpoint = EndpointClient("openai", server.url, "small", SecretStr(KEY), concurrency=1, max_retries=1)
        journal = Journal(tmp_path / "j.jsonl", All)
        with pytest.raises(EndpointError, match="404") as caught:
            complete(endpoint, requests(range(20)), journal, lambda _, reply: All(reply, reply.failure), title="test")
        with pytest.raises(EndpointError, match="404"):
            complete(endpoint, requests(range(20)), journal, lambda _, reply: All(reply, reply.failure), title="test")
    assert len(journal) == 19
    said = f"{journal.path.read_text()}{caplog.text}{caught.value!r}{endpoint!r}{endpoint.unsupported}{dict(journal)}"
    assert "***" in said
    assert KEY not in said
    assert all(request.headers["authorization"] == f"Bearer {KEY}" for request in server.requests)
