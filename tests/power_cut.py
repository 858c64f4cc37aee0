"""A training that dies at one of its steps, as if the power had been cut."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tunesmith.training import loop


@contextmanager
def at_step(step: int) -> Iterator[None]:
    """Within this, training raises at the end of a step; it is an error if none gets so far."""
    check = loop._check_finite

    def failing(number: int, *arguments: Any) -> None:
        if number == step:
            raise RuntimeError("power cut")
        check(number, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_check_finite", failing)
        with pytest.raises(RuntimeError, match="power cut"):
            yield
