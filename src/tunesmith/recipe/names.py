"""The names of tasks and methods that a recipe may have. What they mean is in `pipeline`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

TASKS = ["classification", "instruction"]
METHODS = ["linear", "probe", "encoder", "generator"]


@dataclass(frozen=True, slots=True)
class OneOf:
    """Checks that a setting is one of some names, to which others may have been added."""

    names: Sequence[str]

    def __call__(self, value: str) -> str:
        """Return the value. Raises ValueError for an unknown name."""
        if value not in self.names:
            *most, last = (repr(name) for name in self.names)
            raise ValueError(f"input should be {', '.join(most)} or {last}")
        return value
