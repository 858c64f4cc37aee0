"""Numbers as people read them."""

import pytest

from tunesmith.reporting import format


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (format.seconds(0.04), "40 ms"),
        (format.seconds(0.42), "0.4 s"),
        (format.seconds(12.3), "12 s"),
        (format.seconds(59.7), "1 min"),
        (format.seconds(200), "3 min 20 s"),
        (format.seconds(7500), "2 h 5 min"),
        (format.count(50_000), "50,000"),
        (format.count(120_400), "120 k"),
        (format.count(999_999), "1.0 M"),
        (format.count(22_713_216), "22.7 M"),
        (format.count(1_300_000_000), "1.3 B"),
        (format.megabytes(0.04), "40 kB"),
        (format.megabytes(1.21), "1.2 MB"),
        (format.megabytes(1400), "1.4 GB"),
        (format.chance(0.0001), "< 0.001"),
        (format.p_value(0.0001), "p < 0.001"),
        (format.p_value(0.042), "p = 0.042"),
        (format.p_value(1.0), "p > 0.99"),
        (format.counted(0, "row"), "0 rows"),
        (format.counted(1, "row"), "1 row"),
        (format.counted(1_234_567, "row"), "1,234,567 rows"),
        (format.counted(1.0, "epoch"), "1 epoch"),
        (format.counted(0.5, "epoch"), "0.5 epochs"),
        (format.chance(0.042), "0.042"),
        (format.chance(0.31), "0.31"),
        (format.signed(-0.0001), "0.000"),
        (format.signed(-0.012), "−0.012"),
        (format.percent(0.004), "0.4%"),
    ],
)
def test_numbers_are_written_for_people(shown: str, text: str) -> None:
    assert shown == text


def test_prices_have_two_decimals_or_two_digits_and_their_currency() -> None:
    values = (None, 0.0, 1e-9, 0.0000193, 0.004821, 0.0999, 0.123, 0.997, 4.2, 1234.5)
    texts = ("–", "0", "< 0.000001", "0.000019", "0.0048", "0.10", "0.12", "1.00", "4.20", "1,234.50")
    assert tuple(map(format.price, values)) == texts
    assert format.price(4.2, "USD") == "4.20 USD"
    assert format.price(None, "USD") == "–"


def test_numbers_that_are_roughly_known_have_two_digits() -> None:
    assert [format.approximate(n) for n in (1, 7, 126, 41_234, 1_249_000, 96_000_000)] == [
        *("1", "7", "130", "41,000", "1,200,000", "96.0 M")
    ]
