"""What servers say when they do not accept a parameter, and what is then sent instead."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.endpoint_requests import requests
from tests.endpoint_server import Request, serving
from tests.serving_fakes import application, generator, listening
from tunesmith.endpoints.client import EndpointClient
from tunesmith.endpoints.refused_parameters import ErrorBody
from tunesmith.errors import EndpointError

SCHEMA = {"type": "object"}
BODY = dict.fromkeys(["model", "messages", "temperature", "seed", "max_tokens", "response_format", "logprobs"], 0)


def error(message: str, param: str | None = None, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": None, **more}}


MAX_TOKENS = "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (error(f"Unsupported parameter: {MAX_TOKENS}", "max_tokens", code="unsupported_parameter"), "max_tokens"),
        ({"error": {"message": f"Unsupported parameter: {MAX_TOKENS}", "code": "invalid_request_body"}}, "max_tokens"),
        (
            error(
                "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is "
                "supported.",
                "temperature",
                code="unsupported_value",
            ),
            "temperature",
        ),
        (error("You are not allowed to request logprobs from this model"), "logprobs"),
        ([error("Logprobs is not enabled for models/gemini-2.5-pro", code=400)], "logprobs"),
        (
            error("Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model.", ""),
            "response_format",
        ),
        (error("This response_format type is unavailable now"), "response_format"),
        (
            error("The parameter `response_format.type` specified in the request are not valid: invalid value"),
            "response_format",
        ),
        (error("Unknown parameter: 'seed'.", "seed"), "seed"),
        ({"error": "unsupported field: seed"}, "seed"),
        ({"detail": "Unsupported parameter: response_format"}, "response_format"),
        ({"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}, "seed"),
        ({"object": "error", "message": "seed is not supported", "type": "BadRequestError", "code": 400}, "seed"),
        # what says nothing of the kind
        (error("Invalid schema for response_format 'reply': 'required' is missing", "response_format"), None),
        (error("max_tokens is too large: 100000. This model supports at most 16384 tokens", "max_tokens"), None),
        (error("Unsupported parameter: 'tools' is not supported with this model", "tools"), None),
        (error("Unknown role in message 3: 'temperature'", "messages[3].role"), None),
        (error("The model `seed` does not exist", "model", code="model_not_found"), None),
        (error("'temperature' must be at most 2", "temperature"), None),
        ("no JSON at all", None),
        ([], None),
        ({"error": None}, None),
        ({"error": {"message": None, "param": 3}}, None),
    ],
)  # fmt: skip
def test_which_parameter_is_not_supported(content: Any, name: str | None) -> None:
    said = content if isinstance(content, str) else json.dumps(content)
    parsed = ErrorBody.parse(said.encode())
    assert parsed.unsupported(BODY) == name
    assert not parsed.concerns_one_request
    if name:  # a parameter that was not sent cannot be the reason
        assert parsed.unsupported({key: value for key, value in BODY.items() if key != name}) is None


def reasoning_model(request: Request) -> Any:
    """As strict as OpenAI's newest, one refusal at a time."""
    refusals = [
        ("max_tokens", 400, error(f"Unsupported parameter: {MAX_TOKENS}", "max_tokens")),
        ("temperature", 400, error("Unsupported value: 'temperature' does not support 0", "temperature")),
        ("logprobs", 403, error("You are not allowed to request logprobs from this model")),
        ("seed", 400, error("Unknown parameter: 'seed'.", "seed")),
        ("response_format", 422, {"detail": "Unsupported parameter: response_format"}),
    ]
    for name, status, content in refusals:
        if name in request.body:
            return status, {}, json.dumps(content).encode()
    return "ham"


def test_refused_parameters_are_learned_once_and_every_request_is_answered(caplog: pytest.LogCaptureFixture) -> None:
    with serving(reasoning_model, delay=0.01) as server:
        endpoint = EndpointClient("openai", server.url, "o9", concurrency=8, max_tokens=33)
        assert endpoint.unsupported == ()
        replies = [reply for _, reply in endpoint.replies(requests(range(100), schema=SCHEMA, top_logprobs=5))]
        assert {reply.text for reply in replies} == {"ham"}
        assert sum(reply.usage.requests for reply in replies) == len(server.requests) <= 100 + 5 * 8
        assert endpoint.unsupported == ("max_tokens", "temperature", "logprobs", "seed", "response_format")
        before = len(server.requests)
        list(endpoint.replies(requests(range(10), schema=SCHEMA, top_logprobs=5)))
        assert len(server.requests) == before + 10
    body = server.requests[-1].body
    assert set(body) == {"model", "messages", "stream", "max_completion_tokens"}
    assert body["max_completion_tokens"] == 33
    assert len(caplog.messages) == 5
    assert caplog.messages[0] == (
        "o9: the endpoint does not accept `max_tokens`; `max_completion_tokens` is sent in its place"
    )
    assert caplog.messages[1] == "o9: the endpoint does not accept `temperature`; requests are sent without it"


def test_a_parameter_that_the_user_set_is_not_left_out() -> None:
    with serving(lambda one: (400, {}, json.dumps(error("Unknown parameter: 'seed'.", "seed")).encode())) as server:
        endpoint = EndpointClient("openai", server.url, "o9", extra={"seed": 5}, concurrency=1)
        with pytest.raises(EndpointError, match="Unknown parameter: 'seed'"):
            list(endpoint.replies(requests(range(10))))
        assert len(server.requests) == 1
    assert endpoint.unsupported == ()


def test_a_refusal_that_goes_on_stops() -> None:
    with serving(lambda _: (400, {}, json.dumps(error("seed is not supported")).encode())) as server:
        endpoint = EndpointClient("openai", server.url, "o9", concurrency=1)
        with pytest.raises(EndpointError, match="HTTP 400"):
            list(endpoint.replies(requests(range(10))))
        assert len(server.requests) == 2


def test_tunesmiths_own_server_has_neither_schemas_nor_log_probabilities() -> None:
    with listening(application(generator())) as address:
        endpoint = EndpointClient("openai", f"{address}/v1", "talk", concurrency=2, max_tokens=20)
        replies = list(endpoint.replies(requests(range(6), schema=SCHEMA, top_logprobs=5)))
    assert {request.key: reply.text.strip() for request, reply in replies} == {
        str(n): f"QUESTION {n}" for n in range(6)
    }
    assert set(endpoint.unsupported) <= {"response_format", "logprobs", "top_logprobs"}
    assert "response_format" in endpoint.unsupported


def test_an_old_ollama_without_schemas() -> None:
    refusal = {"error": "json: cannot unmarshal object into Go struct field ChatRequest.format of type string"}

    def act(request: Request) -> Any:
        refused = "format" in request.body
        body = refusal if refused else {"message": {"content": "ham"}}
        return 400 if refused else 200, {}, json.dumps(body).encode()

    with serving(act) as server:
        endpoint = EndpointClient("ollama", server.url.removesuffix("/v1"), "old")
        assert {reply.text for _, reply in endpoint.replies(requests(range(9), schema=SCHEMA))} == {"ham"}
    assert endpoint.unsupported == ("format",)
