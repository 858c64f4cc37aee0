"""What every message does by itself."""

from __future__ import annotations

import pytest

from tunesmith.errors import MAX_LINE, ModelError


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://me:hunter2@host/m", "http://***@host/m"),
        ("postgresql://hunter2@host", "postgresql://***@host"),
        ("https://host/a@b", "https://host/a@b"),
        ("me@host", "me@host"),
    ],
)
def test_messages_hide_credentials(address: str, shown: str) -> None:
    error = ModelError(f"cannot load {address}", found=f"no model: '{address}'", do="check the name")
    assert str(error) == f"cannot load {shown}\n  found: no model: '{shown}'\n  do: check the name"


def test_credentials_at_the_cut_of_a_long_line_stay_hidden() -> None:
    address = f"http://me:{'hunter2' * 400}@host/m"
    error = ModelError(f"{'x' * (MAX_LINE - 100)} {address}")
    assert "hunter2" not in str(error)
