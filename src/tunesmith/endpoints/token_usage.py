"""What requests to an endpoint used: tokens, requests, and what they cost at given prices."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TokenPrices:
    """Prices per million tokens, in any currency; None where one is unknown."""

    input: float | None = None
    output: float | None = None


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens as the endpoint counts them (0 where it does not) and HTTP requests, retries among them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    requests: int = 0

    @classmethod
    def total(cls, parts: Iterable[TokenUsage]) -> TokenUsage:
        """Return the sum over several replies."""
        return sum(parts, cls())

    def __add__(self, other: TokenUsage) -> TokenUsage:
        return TokenUsage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.requests + other.requests,
        )

    def price(self, prices: TokenPrices) -> float | None:
        """Return what the tokens cost; None unless both prices are known."""
        if prices.input is None or prices.output is None:
            return None
        return (self.prompt_tokens * prices.input + self.completion_tokens * prices.output) / 1e6
