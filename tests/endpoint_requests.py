"""Requests to endpoints, a client that answers them at once, and what is kept of its replies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith.endpoints.chat_client import ChatClient, ClientIdentity, EndpointReply, EndpointRequest, Replies
from tunesmith.endpoints.completion import CompletionTotals, complete
from tunesmith.endpoints.journal import Journal
from tunesmith.endpoints.spending_limit import SpendingLimit
from tunesmith.endpoints.token_usage import TokenUsage
from tunesmith.types import Message


@dataclass(frozen=True)
class Kept:
    """What a journal of these tests keeps of a reply."""

    text: str
    usage: TokenUsage
    failure: str = ""

    @classmethod
    def of(cls, request: EndpointRequest, reply: EndpointReply) -> Kept:
        return cls(reply.text, reply.usage, reply.failure)


Act = Callable[[EndpointRequest], EndpointReply]


def answer(request: EndpointRequest) -> EndpointReply:
    """A reply of 107 tokens."""
    return EndpointReply(f"re {request.key}", TokenUsage(100, 7, 1))


@dataclass
class FakeClient:
    """Answers in groups, as concurrent requests do: whole groups are taken before the first reply comes."""

    act: Act = answer
    concurrency: int = 4
    name: str = "fake"
    sent: list[str] = field(default_factory=list)
    most: int = 0
    identity = ClientIdentity(api="openai", model="fake", max_tokens=7)

    def replies(self, requests: Iterable[EndpointRequest]) -> Replies:
        waiting: list[EndpointRequest] = []
        unsent = iter(requests)
        while True:
            while len(waiting) < self.concurrency and (request := next(unsent, None)):
                self.sent.append(request.key)
                waiting.append(request)
            self.most = max(self.most, len(waiting))
            if not waiting:
                return
            request = waiting.pop()
            yield request, self.act(request)


def requests(keys: Iterable[int], **parameters: Any) -> Iterator[EndpointRequest]:
    """`question 1` and so on."""
    for key in keys:
        yield EndpointRequest(str(key), [Message("system", "s"), Message("user", f"question {key}")], 7, **parameters)


def run(
    folder: Path, client: ChatClient, asked: Iterable[EndpointRequest], limit: SpendingLimit | None = None
) -> CompletionTotals:
    """Complete requests, with a journal `j.jsonl`."""
    return complete(client, asked, Journal(folder / "j.jsonl", Kept), Kept.of, title="test", limit=limit)
