"""What every client of a chat model has in common: requests, replies, and who answers them."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
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
    temperature: float = 0.0
    schema: Json | None = None
    """The JSON schema that the reply must follow, of a server that can hold its model to one."""
    top_logprobs: int = 0
    """How many alternatives to each token of the reply to return with their log-probabilities; 0 for none."""


@dataclass(frozen=True, slots=True)
class TokenAlternatives:
    """One token of a reply, and the tokens that could have stood in its place."""

    token: str
    logprobs: Mapping[str, float]
    """Natural log-probabilities of the most probable tokens, and of `token`."""


@dataclass(frozen=True, slots=True)
class EndpointReply:
    """The completion of a request, or why there is none."""

    text: str = ""
    usage: TokenUsage = ONE_REQUEST
    truncated: bool = False
    """Ended by the token limit."""
    tokens: Sequence[TokenAlternatives] = ()
    """The tokens of `text`, where they were asked for and the server returns them."""
    model: str = ""
    """Which model answered, as the server names it, with its `system_fingerprint` where it has one."""
    seconds: float = 0.0
    """Of the attempt that succeeded."""
    waited: float = 0.0
    """Seconds between attempts: back-off, and what Retry-After asked for."""
    failure: str = ""
    """Why no reply came, after all retries; empty where one did."""


Replies = Generator[tuple[EndpointRequest, EndpointReply], None, None]
"""Requests, each with its reply, in the order of arrival."""


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

    def replies(self, requests: Iterable[EndpointRequest]) -> Replies:
        """Yield each request with its reply as soon as it arrives. Raises EndpointError for permanent problems.

        Requests are taken one by one, when there is room for them. Replies that are on their way when a problem ends
        the work are yielded before the error; closing the generator abandons them.
        """
        ...
