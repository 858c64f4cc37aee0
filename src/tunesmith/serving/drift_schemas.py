"""The response body of /drift."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Self

from pydantic import BaseModel

from tunesmith.serving.drift_monitor import QuantityDrift, Status
from tunesmith.serving.live_models import LiveModel


class BinShares(BaseModel):
    """How often the values of a quantity are in one bin."""

    bin: str
    reference: float
    """Share of the reference."""
    served: float | None
    """Share of the window; None where it has no value."""


class QuantityReport(BaseModel):
    """How a quantity differs from its reference."""

    quantity: str
    """`label`, `confidence` (the highest probability), `value`, `characters`, or `response_tokens`."""
    status: Status
    """`too_few` values in the window; `stable`; `moderate`, PSI from 0.1; `drift`, PSI from 0.25. The last two only
    where the chi-squared test has p < 0.001."""
    values: int
    """Values in the window."""
    source: str
    """What the reference is."""
    reference_values: int
    psi: float | None
    """Population stability index; None where there are too few values, or all are in one bin."""
    psi_by_chance: float | None
    """What it stays below in 95 of 100 cases without any difference."""
    distance: float | None
    """Share of the values that would need another bin (total variation distance)."""
    p: float | None
    """Of the chi-squared test that there is no difference."""
    bins: list[BinShares]

    @classmethod
    def of(cls, result: QuantityDrift) -> Self:
        """Return a result as a response has it."""
        quantity, shift = result.quantity, result.shift
        total = sum(quantity.reference)
        return cls(
            quantity=quantity.name,
            status=result.status,
            values=result.total,
            source=quantity.source,
            reference_values=round(total),
            psi=shift.psi if shift else None,
            psi_by_chance=shift.psi_by_chance if shift else None,
            distance=shift.distance if shift else None,
            p=shift.p if shift else None,
            bins=[
                BinShares(bin=name, reference=count / total, served=served / result.total if result.total else None)
                for name, count, served in zip(quantity.bins, quantity.reference, result.counts.tolist(), strict=True)
            ],
        )


class ModelDrift(BaseModel):
    """The drift of one version of a model."""

    model: str
    version: str
    since: str
    """When this version began to answer; a new version is counted anew."""
    quantities: list[QuantityReport]

    @classmethod
    def of(cls, name: str, live: LiveModel[Any], hours: int) -> Self:
        """Return the drift of a model over the last hours."""
        since = datetime.fromtimestamp(live.drift.since, UTC).isoformat(timespec="seconds")
        quantities = [QuantityReport.of(result) for result in live.drift.report(hours)]
        return cls(model=name, version=live.served.version, since=since, quantities=quantities)


class DriftResponse(BaseModel):
    """How the requests of a window differ from the data that the runs were evaluated on."""

    hours: int
    """The window: the present hour and those before it."""
    fewest: int
    """Values from which a quantity is compared."""
    models: list[ModelDrift]
