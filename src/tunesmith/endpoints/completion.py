"""Sending many requests to a chat model, with every reply in a journal: for judges, prompted models and labelling."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass
from typing import Generic

from tunesmith.console import meter, warn
from tunesmith.endpoints.chat_client import ChatClient, EndpointReply, EndpointRequest
from tunesmith.endpoints.journal import Journal, Record
from tunesmith.endpoints.spending_limit import SpendingLimit
from tunesmith.endpoints.token_usage import TokenPrices, TokenUsage
from tunesmith.errors import EndpointError


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionTotals:
    """What one call of `complete` sent, and what that took."""

    sent: int
    """Requests that were sent, equal ones once; those that failed are among them."""
    reused: int
    """Requests that were not sent: the journal had a reply, or an equal one was sent."""
    failed: int
    """Requests without a reply, after all retries."""
    usage: TokenUsage
    """Of the requests that were sent."""
    seconds: float
    waited: float
    """Seconds that requests waited between attempts, summed over all of them."""

    @property
    def retries(self) -> int:
        """HTTP requests beyond the first of each request."""
        return self.usage.requests - self.sent


def complete(
    client: ChatClient,
    requests: Iterable[EndpointRequest],
    journal: Journal[Record],
    record: Callable[[EndpointRequest, EndpointReply], Record],
    *,
    title: str,
    prices: TokenPrices | None = None,
    limit: SpendingLimit | None = None,
) -> CompletionTotals:
    """Record a reply to every request in the journal, and return what that took.

    Requests that the journal has a reply to are not sent again, equal ones (by key) once. `requests` may be lazy: they
    are taken when there is room for them. record: makes the journal's record of a reply, also of one that failed;
    those are counted in a warning, and sent again by the next run. limit: what may be spent, in all calls that share
    it; replies of earlier runs count as well. Raises EndpointError where the endpoint cannot go on, or before the limit
    would be exceeded; the journal then keeps the replies so far.
    """
    outbox = _Outbox(requests, journal, limit)
    tally = _Tally(prices)
    with meter(title, outbox.to_send) as show:
        try:
            while True:
                before = tally.sent
                with contextlib.closing(client.replies(outbox)) as replies:
                    for request, reply in replies:
                        journal.add(request.key, record(request, reply))
                        outbox.settle(request, reply)
                        tally.add(reply)
                        show(tally.sent, tally.text(), outbox.to_send)
                if limit is None or outbox.held is None:
                    break
                if tally.sent == before:  # what was on its way has arrived, and still there is no room
                    raise limit.reached(outbox.held)
        except EndpointError as error:
            kept = sum(map(journal.has_reply, journal))
            raise EndpointError(
                f"{error}\n  kept: {kept:,} replies in {journal.path}; run the same command again to go on"
            ) from None
    if tally.failures:
        reasons = ", ".join(f"{reason}: {count:,}" for reason, count in tally.failures.most_common())
        warn(
            f"{title}: {tally.failures.total():,} of {tally.sent:,} requests had no reply ({reasons}); "
            "run the same command again to send them again"
        )
    return CompletionTotals(
        sent=tally.sent,
        reused=outbox.reused,
        failed=tally.failures.total(),
        usage=tally.usage,
        seconds=time.monotonic() - tally.start,
        waited=tally.waited,
    )


class _Outbox(Generic[Record]):
    """The requests that are still to be sent. Iteration ends where the budget has no room, and can begin again."""

    def __init__(
        self, requests: Iterable[EndpointRequest], journal: Journal[Record], limit: SpendingLimit | None
    ) -> None:
        self._requests = iter(requests)
        self._number = len(requests) if isinstance(requests, Sized) else None
        self._journal, self._limit = journal, limit
        self._unanswered: set[str] = set()
        """Keys of requests on their way, and of those that failed."""
        self.reused = 0
        self.held: EndpointRequest | None = None
        """The request for which the budget had no room."""

    @property
    def to_send(self) -> int | None:
        """How many requests are sent in all, as far as is known; None where `requests` has no length."""
        return None if self._number is None else self._number - self.reused

    def __iter__(self) -> Iterator[EndpointRequest]:
        while request := self.held or next(self._requests, None):
            self.held = None
            key = request.key
            if key in self._unanswered:
                self.reused += 1
            elif self._journal.has_reply(key):
                self.reused += 1
                if self._limit:
                    self._limit.count(key, self._journal[key].usage)
            elif self._limit and not self._limit.allows(request):
                self.held = request
                return
            else:
                self._unanswered.add(key)
                yield request

    def settle(self, request: EndpointRequest, reply: EndpointReply) -> None:
        """Note that a reply has come."""
        if self._limit:
            self._limit.settle(request, reply)
        if not reply.failure:
            self._unanswered.remove(request.key)


class _Tally:
    """What has come so far."""

    def __init__(self, prices: TokenPrices | None) -> None:
        self._prices = prices or TokenPrices()
        self.start = time.monotonic()
        self.sent = 0
        self.usage = TokenUsage()
        self.waited = 0.0
        self.failures: Counter[str] = Counter()

    def add(self, reply: EndpointReply) -> None:
        """Count a reply."""
        self.sent += 1
        self.usage += reply.usage
        self.waited += reply.waited
        if reply.failure:
            self.failures[reply.failure] += 1

    def text(self) -> str:
        """Return rate, money spent and failures, for the progress display."""
        parts = [f"{self.sent / max(1e-9, time.monotonic() - self.start):.1f}/s"]
        if (price := self.usage.price(self._prices)) is not None:
            parts.append(f"{price:.3g} spent")
        if self.failures:
            parts.append(f"{self.failures.total():,} failed")
        return ", ".join(parts)
