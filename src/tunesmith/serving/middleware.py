"""What every request passes first: id, host, key, size. And what is recorded of it: a line in the log, metrics."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tunesmith.errors import EndpointError
from tunesmith.recipe import Serve
from tunesmith.serving.prometheus import ServerMetrics
from tunesmith.serving.refusal import QueueClosed, QueueFull, Refusal
from tunesmith.serving.request_log import RequestLog

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
PUBLIC = ("/healthz", "/readyz")
"""Paths that need no key."""
ADMIN = "/admin/"
"""Beginning of the paths that only exist on the admin port."""
QUEUED = ("/predict", "/v1/chat/completions", "/v1/completions")
"""Paths whose requests wait in queues."""
CLIENT_CLOSED_REQUEST = 499
"""nginx's status for a client that disconnected; it is only logged and counted."""
LOCAL_HOSTS = re.compile(r"(localhost|127(\.\d+){3}|\[::1\])(:\d+)?")
"""Host names by which a browser can mean this machine. Without keys all others are refused: another site may have had
its name resolved to our address (DNS rebinding)."""


class ClientDisconnected(Exception):
    """The client closed its connection."""


class ClientStalled(Exception):
    """The client does not read its response."""


@dataclass
class ServerState:
    """What changes while serving."""

    draining: bool = False
    active: int = 0
    """Requests that were accepted and are not answered yet."""
    answered: int = 0


@dataclass
class Middleware:
    """The outermost ASGI application."""

    app: ASGIApp
    metrics: ServerMetrics
    state: ServerState
    settings: Serve
    """A body must arrive, and a response must be read, within `timeout_seconds`."""
    keys: Sequence[str]
    hosts: re.Pattern[str] | None = None
    retry_after: Callable[[], int | None] = lambda: None
    """Seconds to wait where no model can take more: the request is then refused before it is even parsed."""
    admin_address: tuple[str, int] | None = None
    """Where this machine alone can connect, to the paths under ADMIN too."""

    def __post_init__(self) -> None:
        self._digests = [hashlib.sha256(key.encode()).digest() for key in self.keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection of ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        request_id = headers.get("x-request-id", "")
        if not REQUEST_ID.fullmatch(request_id):
            request_id = f"{random.getrandbits(128):032x}"
        log = RequestLog(request_id, scope["method"], self.settings.log_texts)
        respond = _Responder(send, log, self.settings.timeout_seconds)
        self.state.active += 1
        self.metrics.active.inc()
        held = contextlib.ExitStack()  # what the request uses until it is answered
        scope["state"] = {"log": log, "held": held}
        try:
            with held:
                await self._check(scope, headers, receive, respond)
        except Refusal as refusal:
            await self._refuse(refusal, respond)
        except (ClientDisconnected, ClientStalled):
            log.status = CLIENT_CLOSED_REQUEST
        except EndpointError as error:
            log.write_error(error)
            await self._refuse(Refusal(502, "the endpoint behind this model did not answer", "bad_gateway"), respond)
        except Exception as error:
            log.write_error(error)
            await self._refuse(Refusal(500, "internal server error", "internal_error"), respond)
        finally:
            self.state.active -= 1
            self.state.answered += 1
            self.metrics.active.dec()
            log.route = log.route or getattr(scope.get("route"), "path", "other")
            self._record(log)

    async def _check(self, scope: Scope, headers: dict[str, str], receive: Receive, respond: _Responder) -> None:
        """Pass a request on to the application. Raises Refusal where it may not get there."""
        host, path = headers.get("host", ""), scope["path"]
        if self.hosts is not None and not self.hosts.fullmatch(host) and path not in PUBLIC:
            raise Refusal(403, "this host name is not allowed: set a key to serve under any name", "unknown_host")
        if self._digests and path not in PUBLIC and not self._is_authorized(headers.get("authorization", "")):
            message = "missing or invalid key: send the header Authorization: Bearer KEY"
            raise Refusal(401, message, "invalid_api_key", WWW_Authenticate='Basic realm="key"')
        self._check_admin(scope, headers)
        if scope["method"] != "POST":
            await self.app(scope, receive, respond.send)
            return
        if self.state.draining:
            raise QueueClosed
        body = await self._body(headers, receive)
        if path in QUEUED and (seconds := self.retry_after()) is not None:
            scope["state"]["log"].route = path
            raise QueueFull(seconds)
        replayed = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive_again() -> Message:
            return next(replayed, None) or await receive()  # after the body, the client may still disconnect

        await self.app(scope, receive_again, respond.send)

    def _check_admin(self, scope: Scope, headers: dict[str, str]) -> None:
        """Raise Refusal where a request is for the admin port alone, or was sent to it by another site in a browser.

        The address that a connection came in at cannot be forged. The client's address and headers are those of the
        proxy where there is one on this machine.
        """
        is_admin = self.admin_address is not None and tuple(scope["server"] or ()) == self.admin_address
        if scope["path"].startswith(ADMIN) and not is_admin:
            raise Refusal(404, "Not Found", "no_such_path")
        if is_admin and "origin" in headers:
            raise Refusal(403, "pages in a browser cannot use the admin port", "forbidden_origin")

    def _is_authorized(self, header: str) -> bool:
        """Return whether a header has one of the keys, in constant time."""
        scheme, _, credentials = header.partition(" ")
        key = credentials.encode("latin-1")  # the bytes as they came
        if scheme.lower() == "basic":  # browsers ask for a name and a password: the key
            try:
                key = base64.b64decode(key, validate=True).partition(b":")[2]
            except ValueError:
                key = b""
        elif scheme.lower() != "bearer":
            key = b""
        digest = hashlib.sha256(key.strip()).digest()
        return sum(hmac.compare_digest(digest, known) for known in self._digests) > 0

    async def _body(self, headers: dict[str, str], receive: Receive) -> bytes:
        """Return the whole body, chunked or not. Raises Refusal where it is too large or too slow."""
        most = self.settings.max_body_bytes
        too_large = Refusal(413, f"the request body has more than {most} bytes", "too_large", Connection="close")
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > most:
            if "expect" not in headers:  # clients sending Expect: 100-continue get the 413 first
                await self._discard(receive)
            raise too_large
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self.settings.timeout_seconds):
                more = True
                while more:
                    event = await receive()
                    if event["type"] == "http.disconnect":
                        self.metrics.disconnected.inc()
                        raise ClientDisconnected
                    parts.append(event.get("body", b""))
                    size += len(parts[-1])
                    if size > most:
                        await self._discard(receive)
                        raise too_large
                    more = event.get("more_body", False)
        except TimeoutError:
            raise Refusal(408, "the request body arrived too slowly", "too_slow", Connection="close") from None
        return b"".join(parts)

    async def _discard(self, receive: Receive) -> None:
        """Read some of an unwanted body: a client still sending when we close never reads the response."""
        remaining = 10 * self.settings.max_body_bytes
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                while remaining > 0:
                    event = await receive()
                    remaining -= len(event.get("body", b""))
                    if not event.get("more_body", False):
                        return

    async def _refuse(self, refusal: Refusal, respond: _Responder) -> None:
        self.metrics.refused.labels(refusal.code).inc()
        if respond.log.status:  # the response has begun and can only be broken off
            return
        body = json.dumps(refusal.body(respond.log.id)).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body)), **refusal.headers}
        pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await respond.send({"type": "http.response.start", "status": refusal.status, "headers": pairs})
        await respond.send({"type": "http.response.body", "body": body})

    def _record(self, log: RequestLog) -> None:
        seconds = time.monotonic() - log.started
        self.metrics.requests.labels(log.route, str(log.status)).inc()
        self.metrics.seconds.labels(log.route).observe(seconds)
        if log.route not in (*PUBLIC, "/metrics"):
            log.write(seconds)


@dataclass
class _Responder:
    """Sends the response to one request."""

    out: Send
    log: RequestLog
    seconds: float
    """Time, from the request on, in which the response must be read; each part of it has at least one second."""

    async def send(self, event: Message) -> None:
        """Send a part of the response, with the id and the model's version in headers. Raises ClientStalled."""
        if event["type"] == "http.response.start":
            self.log.status = event["status"]
            more = [(b"x-request-id", self.log.id.encode()), (b"x-content-type-options", b"nosniff")]
            if self.log.version:
                more.append((b"x-model-version", self.log.version.encode()))
            event = {**event, "headers": [*event.get("headers", []), *more]}
        try:
            async with asyncio.timeout(max(1.0, self.log.started + self.seconds - time.monotonic())):
                await self.out(event)
        except TimeoutError:
            raise ClientStalled from None
