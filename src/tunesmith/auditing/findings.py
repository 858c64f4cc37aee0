"""What an audit says in one line: a headline, how bad it is, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tunesmith.records import omitted_if_none

Severity = Literal["severe", "warning", "note"]
"""`severe`: scores on this data mislead; `warning`: worth a look; `note`: good to know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that an audit found."""

    headline: str
    """A sentence that can be read alone."""
    severity: Severity
    rows: int | None = omitted_if_none()
    """How many rows it concerns."""
    where: tuple[str, ...] = ()
    """Ids of the first of these rows."""
    do: str
    """What to do about it; with the setting that does it, where there is one."""
