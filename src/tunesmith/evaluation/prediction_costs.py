"""What training and predictions cost in money, and from how many predictions on training pays."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import ceil

from tunesmith.manifest import Costs
from tunesmith.records import omitted_if_none

PER = 1000
"""Predictions that a price is for."""
SECONDS_PER_HOUR = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodPrices:
    """What a method costs in money. None is a price that is not known, which is another thing than 0."""

    training: float | None
    """0 where nothing was trained."""
    per_1000: float | None
    """Of 1,000 predictions."""
    currency: str | None = omitted_if_none()


@dataclass(frozen=True, slots=True)
class BreakEven:
    """From how many predictions on a method costs no more than an endpoint, its training included."""

    method: str
    endpoint: str
    predictions: int | None
    """None where it never does, as its predictions cost at least as much as the endpoint's."""


@dataclass(frozen=True, slots=True)
class PriceComparison:
    """What the methods of a report cost."""

    methods: dict[str, MethodPrices]
    """By name."""
    break_evens: tuple[BreakEven, ...] = ()
    """Of each method with each endpoint, where their prices are known and have one currency."""


def prices(costs: Costs, rows: int, price_per_hour: float | None, currency: str | None = None) -> MethodPrices:
    """Return what a method costs: its seconds at the price of an hour, or what an endpoint took for the test rows.

    rows: how many test rows were predicted. price_per_hour: of the machine; None where it is not known.
    """
    if costs.endpoint is not None:
        price = costs.endpoint.price
        per_1000 = None if price is None or not rows else price / rows * PER
        return MethodPrices(training=0.0, per_1000=per_1000, currency=currency)
    training = _price(costs.train_seconds, price_per_hour) if costs.trainable else 0.0
    return MethodPrices(training=training, per_1000=_price(costs.seconds_per_1000, price_per_hour), currency=currency)


def compare(methods: Mapping[str, MethodPrices], endpoints: Collection[str]) -> PriceComparison:
    """Return the prices of methods by name, and the break-even of each with each of them that is an endpoint."""
    pairs = []
    for endpoint in endpoints:
        asked = methods[endpoint]
        for name, own in methods.items():
            if name in endpoints or own.training is None or own.per_1000 is None or asked.per_1000 is None:
                continue
            if own.currency == asked.currency:
                saved = asked.per_1000 - own.per_1000
                pairs.append(BreakEven(name, endpoint, _predictions(own.training, saved) if saved > 0 else None))
    return PriceComparison(dict(methods), tuple(pairs))


def _price(seconds: float | None, price_per_hour: float | None) -> float | None:
    return None if seconds is None or price_per_hour is None else seconds * price_per_hour / SECONDS_PER_HOUR


def _predictions(training: float, saved_per_1000: float) -> int:
    """Return how many predictions save what the training cost, at least 1; rounding errors do not add one."""
    predictions = training / saved_per_1000 * PER
    return max(1, ceil(predictions * (1 - 1e-12)))
