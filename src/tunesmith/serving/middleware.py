"""What every request passes first: an id, a key, a size. And what is written of it: a line in the log, figures."""

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
import traceback
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunesmith.console import say
from tunesmith.serving.prometheus import Metrics
from tunesmith.serving.refusal import Refusal

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
OPEN = ("/healthz", "/readyz")
"""What needs no key."""
WORK = ("/predict", "/v1/chat/completions", "/v1/completions")
"""What waits in queues."""
CLOSED_REQUEST = 499
"""nginx's status for a client that went away; nobody gets it, figures count it."""
LOCAL = re.compile(r"(localhost|127(\.\d+){3}|\[::1\])(:\d+)?")
"""Hosts that a browser can mean by this machine. Without keys others are refused: a page elsewhere may have had its
name changed to our address (DNS rebinding)."""


@dataclass
class ServerState:
    """What changes while serving."""

    draining: bool = False
    active: int = 0
    """Requests that were accepted and are not answered yet."""
    answered: int = 0


@dataclass
class Middleware:
    """Around the whole application."""

    app: App
    metrics: Metrics
    state: ServerState
    keys: Sequence[str]
    max_body: int
    seconds: float
    """Within which a body must have come, and an answer must have been taken."""
    hosts: re.Pattern[str] | None = None
    full: Callable[[], int | None] = lambda: None
    """Says that no model can take more: a request is then refused before it is even parsed. (Gives seconds to wait.)"""

    def __post_init__(self) -> None:
        self._digests = [hashlib.sha256(key.encode()).digest() for key in self.keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        given = headers.get("x-request-id", "")
        scope["state"] = {"id": given if SANE_ID.fullmatch(given) else f"{random.getrandbits(128):032x}", "notes": {}}
        track = _Track(scope, send, self.seconds)
        self.state.active += 1
        self.metrics.active.inc()
        try:
            await self._pass(scope, headers, receive, track)
        except Refusal as refusal:
            await self._refuse(refusal, track)
        except (ClientDisconnected, Stalled):
            track.status = CLOSED_REQUEST
        except Exception as error:
            _log_error(error, track)
            await self._refuse(Refusal(500, "something went wrong here", "internal_error"), track)
        finally:
            self.state.active -= 1
            self.state.answered += 1
            self.metrics.active.dec()
            self._note(track)

    async def _pass(self, scope: Scope, headers: dict[str, str], receive: Receive, track: _Track) -> None:
        host, path = headers.get("host", ""), scope["path"]
        if self.hosts is not None and not self.hosts.fullmatch(host) and path not in OPEN:
            raise Refusal(403, "this host name is not served: set a key to serve under any", "unknown_host")
        if self._digests and path not in OPEN and not self._known(headers.get("authorization", "")):
            message = "give a valid key: Authorization: Bearer KEY"
            raise Refusal(401, message, "invalid_api_key", WWW_Authenticate='Basic realm="key"')
        if scope["method"] != "POST":
            await self.app(scope, receive, track.send)
            return
        if self.state.draining:
            raise Refusal.closing()
        body = await self._body(headers, receive)
        if path in WORK and (retry := self.full()) is not None:
            scope["route"] = _Route(path)
            raise Refusal.busy(retry)
        await self.app(scope, _again(body, receive), track.send)

    def _known(self, header: str) -> bool:
        """Whether a header has one of the keys; takes as long whether it does or not."""
        kind, _, text = header.partition(" ")
        given = text.encode("latin-1")  # the bytes as they came
        if kind.lower() == "basic":  # browsers ask people for a name and a password: the key
            try:
                given = base64.b64decode(given, validate=True).partition(b":")[2]
            except ValueError:
                given = b""
        elif kind.lower() != "bearer":
            given = b""
        digest = hashlib.sha256(given.strip()).digest()
        return sum(hmac.compare_digest(digest, known) for known in self._digests) > 0

    async def _body(self, headers: dict[str, str], receive: Receive) -> bytes:
        """The whole body, however it is sent. Raises Refusal where it is too large or too slow."""
        large = Refusal(413, f"the request has more than {self.max_body} bytes", "too_large", Connection="close")
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self.max_body:
            if "expect" not in headers:  # who asks before sending is answered before sending
                await self._discard(receive)
            raise large
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self.seconds):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        self.metrics.left.inc()
                        raise ClientDisconnected
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > self.max_body:
                        await self._discard(receive)
                        raise large
                    more = message.get("more_body", False)
        except TimeoutError:
            raise Refusal(408, "the request did not come to its end", "too_slow", Connection="close") from None
        return b"".join(parts)

    async def _discard(self, receive: Receive) -> None:
        """Read some of what is not wanted: who is still sending when the door closes does not read the answer."""
        left = 10 * self.max_body
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                while left > 0:
                    message = await receive()
                    left -= len(message.get("body", b""))
                    if not message.get("more_body", False):
                        return

    async def _refuse(self, refusal: Refusal, track: _Track) -> None:
        self.metrics.refused.labels(refusal.code).inc()
        if track.status:  # the answer has begun, and can only break off
            return
        body = json.dumps(refusal.body(track.id)).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body)), **refusal.headers}
        pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await track.send({"type": "http.response.start", "status": refusal.status, "headers": pairs})
        await track.send({"type": "http.response.body", "body": body})

    def _note(self, track: _Track) -> None:
        route = getattr(track.scope.get("route"), "path", "other")
        seconds = time.monotonic() - track.start
        self.metrics.requests.labels(route, str(track.status)).inc()
        self.metrics.seconds.labels(route).observe(seconds)
        if route not in (*OPEN, "/metrics"):
            notes = " ".join(f"{name}={value}" for name, value in track.scope["state"]["notes"].items())
            asked = f"{track.id} {track.scope['method']} {route} {track.status}"
            say(f"{time.strftime('%H:%M:%S')} {asked} {1000 * seconds:.0f}ms {notes}".rstrip())


@dataclass(frozen=True)
class _Route:
    """Of a request that did not get as far as the routes."""

    path: str


class ClientDisconnected(Exception):
    """The client went away."""


class Stalled(Exception):
    """The client does not read its answer."""


@dataclass
class _Track:
    """One request: where its answer goes, and what became of it."""

    scope: Scope
    out: Send
    seconds: float
    """Within which the answer must have been taken; each part of it has a second at least."""
    status: int = 0
    start: float = field(default_factory=time.monotonic)

    @property
    def id(self) -> str:
        return str(self.scope["state"]["id"])

    async def send(self, message: Message) -> None:
        """Pass on, with the request's id among the headers."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            more = [(b"x-request-id", self.id.encode()), (b"x-content-type-options", b"nosniff")]
            message = {**message, "headers": [*message.get("headers", []), *more]}
        try:
            async with asyncio.timeout(max(1.0, self.start + self.seconds - time.monotonic())):
                await self.out(message)
        except TimeoutError:
            raise Stalled from None


def _again(body: bytes, receive: Receive) -> Receive:
    """A body that was read, once more; behind it the client itself, who may go away."""
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def read() -> Message:
        return next(messages, None) or await receive()

    return read


def _log_error(error: Exception, track: _Track) -> None:
    """Where it happened, without the message: that could have a text in it."""
    places = "".join(traceback.format_tb(error.__traceback__))
    say(f"error: {track.id} {type(error).__name__}\n{places.rstrip()}")
