"""A model behind an endpoint, whose replies are kept in a journal, so that nothing is asked twice."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.endpoints import completion, journal
from tunesmith.endpoints.chat_client import ChatClient, EndpointReply, EndpointRequest, TokenAlternatives
from tunesmith.endpoints.journal import Journal
from tunesmith.endpoints.refused_parameters import ONE_REQUEST_ALONE
from tunesmith.endpoints.spending_limit import SpendingLimit
from tunesmith.endpoints.token_usage import TokenPrices, TokenUsage
from tunesmith.errors import EndpointError
from tunesmith.manifest import EndpointCosts
from tunesmith.records import omitted_if_none
from tunesmith.types import Message

ALTERNATIVES = 20
"""Alternatives to each token that are asked for: the most that OpenAI's API returns."""
REPEATED = 20
"""Rows that are asked twice, to see whether the answers are the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointRecord:
    """A line of the journal: a reply, or why there is none."""

    text: str
    truncated: bool
    prompt_tokens: int
    completion_tokens: int
    requests: int
    seconds: float
    waited: float
    model: str
    created: float
    """When the reply came, in seconds since 1970."""
    tokens: tuple[TokenAlternatives, ...] | None = omitted_if_none()
    failure: str = ""

    @classmethod
    def of(cls, request: EndpointRequest, reply: EndpointReply) -> EndpointRecord:
        """Return the record of a reply."""
        return cls(
            text=reply.text,
            truncated=reply.truncated,
            prompt_tokens=reply.usage.prompt_tokens,
            completion_tokens=reply.usage.completion_tokens,
            requests=reply.usage.requests,
            seconds=reply.seconds,
            waited=reply.waited,
            model=reply.model,
            created=time.time(),
            tokens=tuple(reply.tokens) or None,
            failure=reply.failure,
        )

    @property
    def usage(self) -> TokenUsage:
        """What the reply used."""
        return TokenUsage(self.prompt_tokens, self.completion_tokens, self.requests)


@dataclass(frozen=True)
class LazyRequests:
    """Requests that are made whenever they are iterated over: a hundred thousand of them take no memory."""

    number: int
    make: Callable[[], Iterator[EndpointRequest]]

    def __len__(self) -> int:
        return self.number

    def __iter__(self) -> Iterator[EndpointRequest]:
        return self.make()


Requests = Sequence[EndpointRequest] | LazyRequests


@dataclass(frozen=True)
class EndpointModel:
    """A model behind an endpoint."""

    client: ChatClient
    folder: Path
    """Of the journals of all models."""
    concurrency: int = 1
    """Concurrent requests of the client."""
    prices: TokenPrices | None = None
    budget: float | None = None
    """What the replies of this run may cost at most, at these prices."""
    since: float = field(default_factory=time.time)
    """When this run began to ask, in seconds since 1970: replies from before are reused."""

    def request(
        self,
        messages: Sequence[Message],
        seed: int,
        *,
        temperature: float = 0.0,
        schema: dict[str, Any] | None = None,
        logprobs: bool = False,
        repetition: int = 0,
    ) -> EndpointRequest:
        """Return a request; equal ones have equal keys, and are sent once. repetition: tells equal ones apart."""
        alternatives = ALTERNATIVES if logprobs else 0
        key = journal.request_key(
            self.client.identity, messages, seed, temperature=temperature, schema=schema, top_logprobs=alternatives
        )
        key += f"-{repetition}" if repetition else ""
        return EndpointRequest(key, messages, seed, (), temperature, schema, alternatives)

    def has_reply(self, request: EndpointRequest) -> bool:
        """Whether the journal has the reply to a request."""
        return self._journal.has_reply(request.key)

    def records(self, requests: Requests) -> Iterator[EndpointRecord]:
        """Ask for what the journal lacks, and return an iterator over the replies to all requests, in their order.

        A request that the server refuses for what it says, as too long or by a content filter, has an empty reply.
        Raises EndpointError where the endpoint cannot go on, where the budget is spent, and where requests failed after
        all retries; the journal then has all other replies, and running the same command again asks for the rest.
        """
        kept, title = self._journal, f"ask {self.client.name}"
        completion.complete(
            self.client, requests, kept, EndpointRecord.of, title=title, prices=self.prices, limit=self._limit
        )
        lacking = (kept[request.key].failure for request in requests if not kept.has_reply(request.key))
        if failed := [failure for failure in lacking if failure not in ONE_REQUEST_ALONE]:
            raise EndpointError(
                f"{self.client.name} did not reply to {len(failed):,} of {len(requests):,} requests",
                found=failed[0],
                do="run the same command again: replies are kept, and only these requests are sent again",
            )
        return (kept[request.key] for request in requests)

    def price(self, usage: TokenUsage) -> float | None:
        """Return what tokens cost; None where prices are unknown."""
        return None if self.prices is None else usage.price(self.prices)

    def costs(self, requests: Requests) -> EndpointCosts:
        """Return what the replies to these requests took, whenever they were asked for; equal requests count once."""
        kept, usage, waited, reused = self._journal, TokenUsage(), 0.0, 0
        models, seconds = set(), array("d")
        for key in dict.fromkeys(request.key for request in requests):
            record = kept[key]
            usage += record.usage
            models.add(record.model)
            seconds.append(record.seconds)
            waited += record.waited
            reused += record.created < self.since
        latency = np.percentile(seconds, [50, 95, 99]).tolist()
        return EndpointCosts(
            model=", ".join(sorted(models - {""})) or self.client.name,
            requests=usage.requests,
            reused=reused,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            price=self.price(usage),
            waited=waited,
            latency=(latency[0], latency[1], latency[2]),
        )

    def seconds(self, requests: Requests) -> float:
        """Return the seconds that these requests take, `concurrency` at a time, by how long each of them took."""
        records = (self._journal[key] for key in {request.key for request in requests})
        return sum(record.seconds + record.waited for record in records) / self.concurrency

    @cached_property
    def _limit(self) -> SpendingLimit | None:
        """The budget of all requests together."""
        return None if self.budget is None else SpendingLimit(self.budget, self.prices, self.client.identity)

    @cached_property
    def _journal(self) -> Journal[EndpointRecord]:
        return Journal(self.folder / journal.file_name(self.client.name, self.client.identity), EndpointRecord)
