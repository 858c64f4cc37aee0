"""Clients of chat completion endpoints over HTTP.

Transient problems (429, 5xx, timeouts, broken or malformed replies) are retried with exponential backoff; permanent
ones (a wrong key, an unknown model, a used-up quota) stop at once. The API key is sent to the endpoint and appears
nowhere else.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from queue import SimpleQueue

import httpx2
from pydantic import SecretStr

from tunesmith import records
from tunesmith.endpoints.chat_apis import APIS
from tunesmith.endpoints.chat_client import ClientIdentity, EndpointReply, EndpointRequest, Json, Replies
from tunesmith.endpoints.refused_parameters import ONE_REQUEST_ALONE, ErrorBody, RefusedParameters
from tunesmith.endpoints.token_usage import TokenUsage
from tunesmith.errors import EndpointError

INITIAL_BACKOFF, MAX_BACKOFF = 0.5, 30.0
"""Seconds before the first retry, doubled each time, and at most; each is drawn between half of it and all."""
MAX_RETRY_AFTER = 300.0
"""Seconds that a server's Retry-After may make us wait."""
MAX_REPLY_BYTES = 8 * 2**20
RETRYABLE = {408, 425, 429, *range(500, 600)}
"""Status codes of transient problems."""
REFUSALS = {400, 403, 413, 422}
"""Status codes of which the reason may be one parameter, or this one request."""
QUOTA = b"insufficient_quota"
"""What OpenAI says in a 429 that no waiting helps against."""
HIDDEN_KEY = "***"
Outcome = EndpointReply | Exception


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
    refused: RefusedParameters = field(default_factory=RefusedParameters, repr=False)

    @property
    def name(self) -> str:
        return self.model

    @property
    def identity(self) -> ClientIdentity:
        url = self.url.split("?")[0]
        return ClientIdentity(api=self.api, url=url, model=self.model, max_tokens=self.max_tokens, extra=self.extra)

    @property
    def unsupported(self) -> tuple[str, ...]:
        """Parameters of the requests so far that the endpoint refused: left out since, or sent under a newer name."""
        return self.refused.names

    def replies(self, requests: Iterable[EndpointRequest]) -> Replies:
        """Yield replies in order of arrival. Raises EndpointError after `max(5, 2 x concurrency)` failures in a row."""
        unsent = iter(requests)
        sent: SimpleQueue[EndpointRequest | None] = SimpleQueue()
        done: SimpleQueue[tuple[EndpointRequest, Outcome]] = SimpleQueue()
        stop = threading.Event()
        workers: list[threading.Thread] = []
        failures = in_flight = 0
        error: Exception | None = None
        limits = httpx2.Limits(max_connections=self.concurrency, max_keepalive_connections=self.concurrency)
        with httpx2.Client(timeout=self.timeout, headers=self._headers(), limits=limits) as http:
            try:
                while True:
                    while in_flight < self.concurrency and not error and (request := next(unsent, None)):
                        if in_flight == len(workers):  # daemons: none may keep an interrupted process alive
                            workers.append(
                                threading.Thread(target=self._work, args=(http, sent, done, stop), daemon=True)
                            )
                            workers[-1].start()
                        sent.put(request)
                        in_flight += 1
                    if not in_flight:
                        break
                    request, outcome = done.get()
                    in_flight -= 1
                    if isinstance(outcome, EndpointReply):
                        yield request, outcome
                        failures = failures + 1 if outcome.failure not in ("", *ONE_REQUEST_ALONE) else 0
                        if failures >= max(5, 2 * self.concurrency):
                            error = error or self._given_up(failures, outcome.failure)
                    else:
                        error = error or outcome
                    if error:
                        stop.set()
            finally:
                stop.set()
                for _ in workers:
                    sent.put(None)
            for worker in workers:
                worker.join()
        if error:
            raise error

    def _work(
        self,
        http: httpx2.Client,
        sent: SimpleQueue[EndpointRequest | None],
        done: SimpleQueue[tuple[EndpointRequest, Outcome]],
        stop: threading.Event,
    ) -> None:
        """Answer requests until there is None."""
        while request := sent.get():
            try:
                done.put((request, self._reply(http, request, stop)))
            except Exception as error:
                done.put((request, error))

    def _reply(self, http: httpx2.Client, request: EndpointRequest, stop: threading.Event) -> EndpointReply:
        """Return the reply to one request, retried where that may help. Raises EndpointError where it cannot."""
        attempts = retries = 0
        waited = 0.0
        while True:
            attempts += 1
            began = time.monotonic()
            try:
                reply = self._attempt(http, request)
            except _RefusedParameter:
                continue
            except _RefusedRequest as refusal:
                return EndpointReply(failure=refusal.reason, usage=TokenUsage(requests=attempts), waited=waited)
            except _TransientError as error:
                if retries < self.max_retries and not stop.is_set():
                    waited += _wait(stop, retries, error.pause)
                    retries += 1
                    if not stop.is_set():
                        continue
                return EndpointReply(failure=error.problem, usage=TokenUsage(requests=attempts), waited=waited)
            usage = replace(reply.usage, requests=attempts)
            return replace(reply, usage=usage, seconds=time.monotonic() - began, waited=waited)

    def _attempt(self, http: httpx2.Client, request: EndpointRequest) -> EndpointReply:
        api = APIS[self.api]
        parameters = self.refused.removed_from(api.request_body(self.model, request, self.max_tokens))
        body = {name: value for name, value in {**parameters, **self.extra}.items() if value is not None}
        status, headers, content = self._post(http, api.path, body)
        if status != 200:
            raise self._problem(status, headers, content, {k: v for k, v in parameters.items() if k not in self.extra})
        try:
            reply = api.parse_reply(records.parse(content))
        except (ValueError, LookupError, TypeError, AttributeError):
            raise _TransientError("a reply that is not a chat completion") from None
        text = self._without_key(reply.text)
        tokens = reply.tokens if text == reply.text else ()
        return replace(reply, text=text, tokens=tokens, model=self._without_key(reply.model))

    def _post(self, http: httpx2.Client, path: str, body: Json) -> tuple[int, Mapping[str, str], bytes]:
        """Return status, headers and content, the content within `timeout` seconds even where it comes byte by byte."""
        deadline = time.monotonic() + self.timeout
        content = bytearray()
        try:
            with http.stream("POST", self._address(path), json=body) as response:
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

    def _problem(self, status: int, headers: Mapping[str, str], content: bytes, parameters: Json) -> Exception:
        """Return what a response other than 200 comes to. parameters: those that were sent and may be left out."""
        if status in RETRYABLE and not (status == 429 and QUOTA in content):
            return _TransientError(f"HTTP {status}", _retry_after(headers))
        if status in REFUSALS:
            error = ErrorBody.parse(content)
            if reason := error.concerns_one_request:
                return _RefusedRequest(reason)
            if name := error.unsupported(parameters):
                self.refused.add(name, self.model)
                return _RefusedParameter()
        return self._refusal(status, content)

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
        if len(key) < 6:
            return text
        return text.replace(key, HIDDEN_KEY).replace(key.replace("/", "\\/"), HIDDEN_KEY)

    def _refusal(self, status: int, content: bytes) -> EndpointError:
        body = self._without_key(" ".join(content.decode("utf-8", "replace").split()))[:300]
        do = {
            401: "check the key: --api-key-env names its environment variable",
            403: "check the key and its permissions",
            429: "check the account's plan and billing",
            404: "check the URL (OpenAI's API ends with /v1) and the model's name",
        }.get(status, "check the model's name and the extra fields of the request")
        if 300 <= status < 400:
            do = "use the address that it redirects to"
        return EndpointError(f"{self.url} refused the request: HTTP {status}", found=body, do=do)

    def _given_up(self, failures: int, failure: str) -> EndpointError:
        return EndpointError(
            f"{self.url}: {failures} requests in a row failed",
            found=failure,
            do="check the endpoint, then run the same command again",
        )


class _TransientError(Exception):
    """A problem that a retry may solve. pause: seconds to wait first, where the server says how many."""

    def __init__(self, problem: str, pause: float | None = None) -> None:
        self.problem, self.pause = problem, pause


class _RefusedParameter(Exception):
    """A parameter that the endpoint does not accept, and that it will not be sent again."""


class _RefusedRequest(Exception):
    """A request that the endpoint refuses, though it may answer others."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


def _wait(stop: threading.Event, retries: int, pause: float | None) -> float:
    """Wait before a retry, for as long as the server asks or by exponential backoff; return the seconds."""
    began = time.monotonic()
    backoff = min(MAX_BACKOFF, INITIAL_BACKOFF * 2**retries) * random.uniform(0.5, 1)  # noqa: S311 - jitter
    stop.wait(backoff if pause is None else min(MAX_RETRY_AFTER, pause))
    return time.monotonic() - began


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that Retry-After asks for, as a number or a date; None without one. OpenAI also sends ms."""
    value = headers.get("retry-after", "").strip()
    for number, scale in ((headers.get("retry-after-ms", ""), 1000), (value, 1)):
        with contextlib.suppress(ValueError):
            return max(0.0, float(number) / scale)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
