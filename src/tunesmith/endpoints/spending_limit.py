"""A budget that requests on their way cannot exceed either."""

from __future__ import annotations

import json

from tunesmith.endpoints.chat_client import ClientIdentity, EndpointReply, EndpointRequest
from tunesmith.endpoints.token_usage import TokenPrices, TokenUsage
from tunesmith.errors import EndpointError

OVERHEAD = 512
"""Prompt tokens that a server may add to the texts of a request: its template, a system message of its own."""
BOUNDS = ("max_tokens", "max_completion_tokens")
"""Fields of a request's body that bound its completion."""


class SpendingLimit:
    """What requests have cost, and what those on their way may cost at most.

    A request has at most as many prompt tokens as its texts have bytes, and a fixed number beside; its completion at
    most those that it may have. Where a reply shows more, the bounds grow.
    """

    def __init__(self, budget: float, prices: TokenPrices | None, identity: ClientIdentity) -> None:
        """Begin with nothing spent. Raises EndpointError where a price is unknown."""
        if prices is None or TokenUsage().price(prices) is None:
            raise EndpointError(
                f"cannot keep to a budget of {budget:g} without prices", do="set the prices of input and output tokens"
            )
        self.budget, self.prices = budget, prices
        self.spent = 0.0
        self._reserved: dict[str, TokenUsage] = {}
        self._counted: set[str] = set()
        self._overhead = OVERHEAD
        own = [value for name in BOUNDS if type(value := (identity.extra or {}).get(name)) is int]
        self._completion = max([identity.max_tokens, *own])

    def allows(self, request: EndpointRequest) -> bool:
        """Return whether a request fits into the budget, and reserve the most that it may cost if it does."""
        most = self._most(request)
        if self.spent + sum(map(self._price, self._reserved.values())) + self._price(most) > self.budget:
            return False
        self._reserved[request.key] = most
        return True

    def settle(self, request: EndpointRequest, reply: EndpointReply) -> None:
        """Replace what was reserved for a request by what it cost; by the most where the server counts no tokens."""
        most, usage = self._reserved.pop(request.key), reply.usage
        self._overhead += max(0, usage.prompt_tokens - most.prompt_tokens)
        self._completion = max(self._completion, usage.completion_tokens)
        self.spent += self._price(usage if usage.prompt_tokens or reply.failure else most)
        self._counted.add(request.key)

    def count(self, key: str, usage: TokenUsage) -> None:
        """Add what an earlier reply cost, unless it is counted already."""
        if key not in self._counted:
            self._counted.add(key)
            self.spent += self._price(usage)

    def reached(self, request: EndpointRequest) -> EndpointError:
        """Return the error for a request that does not fit any more."""
        return EndpointError(
            f"the budget of {self.budget:g} does not allow another request",
            found=f"{self.spent:.4g} spent; the next request may cost up to {self._price(self._most(request)):.4g}",
            do="set a higher budget",
        )

    def _most(self, request: EndpointRequest) -> TokenUsage:
        texts = [message.content for message in request.messages] + [json.dumps(request.schema or "")]
        return TokenUsage(sum(len(text.encode(errors="replace")) for text in texts) + self._overhead, self._completion)

    def _price(self, usage: TokenUsage) -> float:
        price = usage.price(self.prices)
        assert price is not None
        return price
