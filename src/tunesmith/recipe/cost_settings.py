"""The settings of prices in reports."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from tunesmith.recipe.values import Section


class CostRates(Section):
    """What computing costs, from which reports make prices of training and of predictions. No result depends on it."""

    price_per_hour: Annotated[float, Field(ge=0)] | None = None
    """Price of an hour of the machine that trains and predicts. Null: unknown, and prices that need it stay blank."""
    currency: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=12)] | None = None
    """What stands behind prices, such as `USD`; null for nothing."""
