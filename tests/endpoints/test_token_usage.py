"""Tokens and requests add up, and cost what the prices say."""

import pytest

from tunesmith.endpoints.token_usage import TokenPrices, TokenUsage


def test_the_total_is_the_sum_of_each_count() -> None:
    parts = [TokenUsage(100, 7, 1), TokenUsage(50, 3, 4), TokenUsage(requests=2)]
    assert TokenUsage.total(parts) == TokenUsage(150, 10, 7)
    assert TokenUsage.total(iter(parts[:1])) == parts[0]


def test_the_total_of_nothing_is_zero() -> None:
    assert TokenUsage.total([]) == TokenUsage(0, 0, 0)


@pytest.mark.parametrize(
    ("prices", "cost"),
    [((3.0, 15.0), 0.45 + 0.3), ((0.0, 0.0), 0.0), ((3.0, None), None), ((None, 15.0), None), ((None, None), None)],
)
def test_prices_are_per_million_tokens_and_half_of_them_make_no_price(
    prices: tuple[float | None, float | None], cost: float | None
) -> None:
    assert TokenUsage(150_000, 20_000, 9).price(TokenPrices(*prices)) == (None if cost is None else pytest.approx(cost))
