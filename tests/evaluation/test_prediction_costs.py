"""Prices of training and predictions, break-even with an endpoint, and answers that were asked for twice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tunesmith.evaluation import determinism, prediction_costs
from tunesmith.evaluation.determinism import Determinism
from tunesmith.evaluation.prediction_costs import BreakEven, MethodPrices
from tunesmith.manifest import UNKNOWN_COSTS, Costs, EndpointCosts
from tunesmith.types import NO_LABEL

TRAINED = replace(UNKNOWN_COSTS, train_seconds=900.0, seconds_per_1000=36.0, parameters=10, trainable=10)
USAGE = EndpointCosts(
    model="gpt", requests=420, reused=0, prompt_tokens=9, completion_tokens=9, price=0.8, waited=0.0, latency=(1, 2, 3)
)
ASKED = replace(UNKNOWN_COSTS, train_seconds=0.1, seconds_per_1000=500.0, endpoint=USAGE)


def price(training: float | None, per_1000: float | None, currency: str | None = None) -> MethodPrices:
    return MethodPrices(training=training, per_1000=per_1000, currency=currency)


def test_a_trained_method_costs_its_seconds_at_the_price_of_an_hour() -> None:
    assert prediction_costs.prices(TRAINED, 400, 2.0, "EUR") == price(0.5, 0.02, "EUR")


def test_an_endpoint_costs_what_its_tokens_cost_whatever_an_hour_here_costs() -> None:
    for price_per_hour in (None, 0.0, 2.0):
        assert prediction_costs.prices(ASKED, 400, price_per_hour) == price(0.0, pytest.approx(2.0))


@pytest.mark.parametrize(
    ("costs", "rows", "price_per_hour", "expected"),
    [
        (TRAINED, 400, None, price(None, None)),
        (replace(TRAINED, seconds_per_1000=None), 0, 2.0, price(0.5, None)),
        (replace(TRAINED, train_seconds=None), 400, 2.0, price(None, 0.02)),
        (replace(ASKED, endpoint=replace(USAGE, price=None)), 400, 2.0, price(0.0, None)),
        (ASKED, 0, 2.0, price(0.0, None)),
        (replace(TRAINED, trainable=0), 400, 2.0, price(0.0, 0.02)),
        (TRAINED, 400, 0.0, price(0.0, 0.0)),
    ],
)
def test_what_is_not_known_is_none_and_never_0(
    costs: Costs, rows: int, price_per_hour: float | None, expected: MethodPrices
) -> None:
    assert prediction_costs.prices(costs, rows, price_per_hour) == expected


@pytest.mark.parametrize(
    ("own", "asked", "predictions"),
    [
        (price(0.5, 0.02), price(0.0, 2.02), 250),
        (price(0.3, 0.1), price(0.0, 0.4), 1000),  # 0.3 / (0.4 - 0.1) is 1 but for rounding
        (price(0.5, 0.0), price(0.0, 0.3), 1667),
        (price(0.0, 1.0), price(0.0, 2.0), 1),
        (price(0.5, 2.0), price(0.0, 2.0), None),
        (price(0.0, 3.0), price(0.0, 2.0), None),
    ],
)
def test_training_pays_once_the_predictions_have_saved_what_it_cost(
    own: MethodPrices, asked: MethodPrices, predictions: int | None
) -> None:
    compared = prediction_costs.compare({"encoder": own, "endpoint": asked}, ["endpoint"])
    assert compared.break_evens == (BreakEven("encoder", "endpoint", predictions),)
    if predictions is not None and own.training and own.per_1000 is not None and asked.per_1000 is not None:
        saved = (asked.per_1000 - own.per_1000) / 1000
        assert (predictions - 1) * saved < own.training <= predictions * saved * (1 + 1e-9)


@pytest.mark.parametrize(
    ("own", "asked"),
    [
        (price(None, 0.1), price(0.0, 2.0)),
        (price(0.5, None), price(0.0, 2.0)),
        (price(0.5, 0.1), price(0.0, None)),
        (price(0.5, 0.1, "USD"), price(0.0, 2.0, "EUR")),
        (price(0.5, 0.1, "USD"), price(0.0, 2.0)),
    ],
)
def test_nobody_knows_what_pays_without_all_prices_in_one_currency(own: MethodPrices, asked: MethodPrices) -> None:
    assert prediction_costs.compare({"encoder": own, "endpoint": asked}, ["endpoint"]).break_evens == ()


def test_every_method_is_held_against_every_endpoint() -> None:
    prices = {"a": price(1.0, 1.0), "b": price(2.0, 1.0), "x": price(0.0, 2.0), "y": price(0.0, 3.0)}
    pairs = prediction_costs.compare(prices, ["x", "y"]).break_evens
    assert [(pair.method, pair.endpoint, pair.predictions) for pair in pairs] == [
        *(("a", "x", 1000), ("b", "x", 2000)),
        *(("a", "y", 500), ("b", "y", 1000)),
    ]


def test_answers_that_change_are_counted_as_texts_and_as_what_they_mean() -> None:
    texts = (["spam", "ham", "ham", "no idea"], ["Spam", "ham", "spam", "none"])
    labels = (["spam", "ham", "ham", NO_LABEL], ["spam", "ham", "spam", NO_LABEL])
    assert determinism.compare(texts, labels) == Determinism(rows=4, changed=3, answer_changed=1)
    assert determinism.compare(texts) == Determinism(rows=4, changed=3)
    assert determinism.compare(([], [])) == Determinism(rows=0, changed=0)
    with pytest.raises(ValueError, match="shorter"):
        determinism.compare((["a", "b"], ["a"]))
