"""Servers' reasons for refusing a request, and the optional parameters that a server turned out not to accept.

OpenAI's reasoning models refuse `max_tokens`, `temperature: 0`, `seed` or `logprobs`, and other servers a JSON schema.
Their refusals differ in status and form; what names a parameter as unsupported is recognised here.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tunesmith import records
from tunesmith.console import warn
from tunesmith.endpoints.chat_client import Json

OPTIONAL = {
    "response_format": ("response_format",),
    "format": ("format",),
    "top_logprobs": ("logprobs", "top_logprobs"),
    "logprobs": ("logprobs", "top_logprobs"),
    "temperature": ("temperature",),
    "seed": ("seed",),
}
"""Parameters that a request can do without, and all fields that then go with each."""
RENAMED = {"max_tokens": "max_completion_tokens"}
"""A bound of the costs, which is never left out."""
UNSUPPORTED = re.compile(
    r"unsupported|(not|n't) (be )?(support|allow|permit|enable|available|accept)|unavailable|not valid"
    r"|only .{1,40} supported|invalid (parameter|value)|unknown|unrecogni[sz]ed|unexpected|extra (input|field)s?"
    r"|input should be '|cannot unmarshal",
    re.IGNORECASE,
)
ONE_REQUEST_ALONE = {
    "prompt and max_tokens exceed the model's context": re.compile(
        r"context_length_exceeded|exceed_context_size|maximum context length|available context size"
        r"|prompt is too long|input is too long|exceeds? the .{0,40}context",
        re.IGNORECASE,
    ),
    "refused by the endpoint's content filter": re.compile(
        r"content_filter|content_policy|content management policy", re.IGNORECASE
    ),
}
"""Why a server refuses one request, though it may answer others, and how it says so."""
SHORT = 400
"""Characters of a message in which a server says what it refuses; further ones may quote the request."""


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """What a server says of a request that it refuses, in whichever of the usual forms."""

    message: str
    code: str = ""
    """Its code and type."""
    parameter: str = ""
    """The field of the request that is to blame."""

    @classmethod
    def parse(cls, content: bytes) -> ErrorBody:
        """Return the error in a response's body."""
        text = content.decode("utf-8", "replace")
        try:
            error: Any = records.parse(text)
        except ValueError:
            return cls(text)
        if isinstance(error, list) and error:  # Google's
            error = error[0]
        if isinstance(error, dict):
            error = error.get("error", error)
        if not isinstance(error, dict):
            return cls(error if isinstance(error, str) else text)
        message = error.get("message", error.get("detail"))  # FastAPI's has `detail`, a text or a list of problems
        return cls(
            message if isinstance(message, str) else json.dumps(message),
            f"{error.get('code') or ''} {error.get('type') or ''}".strip(),
            str(error.get("param") or ""),
        )

    @property
    def concerns_one_request(self) -> str:
        """Why the server refuses this request, though it may answer others; empty where it gives no such reason."""
        said = f"{self.code} {self.message[:SHORT]}"
        return next((reason for reason, pattern in ONE_REQUEST_ALONE.items() if pattern.search(said)), "")

    def unsupported(self, body: Json) -> str | None:
        """Return the optional parameter of a request's body that the server does not support."""
        said = f"{self.code} {self.message[:SHORT]}"
        if not UNSUPPORTED.search(said):
            return None
        named = re.split(r"[.\[]", self.parameter)[0]
        for name in [*OPTIONAL, *RENAMED]:
            if name not in body or (name in RENAMED and RENAMED[name] not in said):
                continue
            if name == named or (not named and re.search(rf"\b{name}\b", said, re.IGNORECASE)):
                return name
        return None


@dataclass(frozen=True)
class RefusedParameters:
    """The parameters that a server refused, which it is not sent again; safe to use from several threads."""

    _names: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Their names, in the order in which they were refused."""
        return tuple(self._names)

    def removed_from(self, body: Json) -> dict[str, Any]:
        """Return a request's body without them; what has a newer name is sent under that."""
        without = {name for refused in self.names for name in OPTIONAL.get(refused, ())}
        renamed: Mapping[str, str] = {name: RENAMED[name] for name in self.names if name in RENAMED}
        return {renamed.get(name, name): value for name, value in body.items() if name not in without}

    def add(self, name: str, model: str) -> None:
        """Note a refused parameter, and warn of it the first time."""
        with self._lock:
            if name in self._names:
                return
            self._names.append(name)
        instead = f"`{RENAMED[name]}` is sent in its place" if name in RENAMED else "requests are sent without it"
        warn(f"{model}: the endpoint does not accept `{name}`; {instead}")
