"""What requests to an endpoint used: tokens, requests, and what they cost at given prices."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens as the endpoint counts them (0 where it does not) and HTTP requests, retries among them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    requests: int = 0

    @classmethod
    def total(cls, parts: Iterable[TokenUsage]) -> TokenUsage:
        """Return the sum over several replies."""
        counts = [(part.prompt_tokens, part.completion_tokens, part.requests) for part in parts]
        return cls(*(sum(column) for column in zip(*counts, strict=True)))

    def price(self, input_price: float | None, output_price: float | None) -> float | None:
        """Return what the tokens cost, from prices per million tokens; None where neither price is known."""
        if input_price is None and output_price is None:
            return None
        return (self.prompt_tokens * (input_price or 0) + self.completion_tokens * (output_price or 0)) / 1e6
