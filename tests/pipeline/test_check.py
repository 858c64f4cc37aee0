"""What `check` says of data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import tiny
from tests.conftest import write_csv
from tunesmith.pipeline.commands.check import check, describe
from tunesmith.pipeline.fitting import inspection


def test_tokens_of_many_rows_are_those_of_some(
    tmp_path: Path, tiny_models: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_csv(tmp_path / "reviews.csv", tiny.texts(200))
    settings = ["method=encoder", f"model.name_or_path={tiny_models('bert')}"]
    monkeypatch.setattr(inspection, "MOST_ROWS", 50)
    checked = check(str(source), settings)
    assert checked.tokens is not None
    assert (checked.tokens.rows, checked.tokens.drawn_from) == (50, 200)
    assert "tokens (50 of 200 rows, evenly spread): median" in describe(checked)
    monkeypatch.setattr(inspection, "MOST_ROWS", 200)
    whole = check(str(source), settings)
    assert "tokens: median" in describe(whole)
    assert whole.tokens is not None
    assert abs(whole.tokens.median - checked.tokens.median) <= 2
