"""What every client of a chat model has in common: requests, replies, and who answers them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tunesmith.endpoints.token_usage import TokenUsage
from tunesmith.records import omitted_if_none
from tunesmith.types import Message

Json = Mapping[str, Any]
"""A JSON object of an API."""
ONE_REQUEST = TokenUsage(requests=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientIdentity:
    """Everything that could change a reply: part of the key of a stored reply, and never a secret."""

    api: str
    url: str | None = omitted_if_none()
    """Without its query; None for a model in this process."""
    model: str
    max_tokens: int
    extra: Json | None = omitted_if_none()
    """Further fields of the request body."""
    constrained: bool | None = omitted_if_none()
    """Whether a model in this process chooses among the replies that make sense."""
    dtype: str | None = omitted_if_none()
    """Of the weights of a model in this process."""


@dataclass(frozen=True, slots=True)
class EndpointRequest:
    """One conversation that asks for a completion."""

    key: str
    """What the caller recognises the reply by."""
    messages: Sequence[Message]
    seed: int
    choices: Sequence[str] = ()
    """The only texts that make sense as a reply, where they are few; a client that can choose among them may."""


@dataclass(frozen=True, slots=True)
class EndpointReply:
    """The completion of a request, or why there is none."""

    text: str = ""
    usage: TokenUsage = ONE_REQUEST
    truncated: bool = False
    """Ended by the token limit."""
    failure: str = ""
    """Why no reply came, after all retries; empty where one did."""


class ChatClient(Protocol):
    """Something that completes conversations: an endpoint, or a model in this process."""

    @property
    def name(self) -> str:
        """The model's name, for people."""
        ...

    @property
    def identity(self) -> ClientIdentity:
        """What the client's replies depend on."""
        ...

    def replies(self, requests: Sequence[EndpointRequest]) -> Iterator[tuple[EndpointRequest, EndpointReply]]:
        """Yield each request with its reply as soon as it arrives. Raises EndpointError for permanent problems."""
        ...
