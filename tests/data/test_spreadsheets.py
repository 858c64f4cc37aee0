"""Formulas in cells: marked when written, and read back."""

from __future__ import annotations

import pytest

from tunesmith.data import spreadsheets


@pytest.mark.parametrize("cell", ["=1+1", "@SUM(A1)", "+cmd", "-a", "\tx", "\uff1dx"])
def test_a_formula_is_marked_and_read_back(cell: str) -> None:
    assert spreadsheets.escape(cell) == f"'{cell}"
    assert spreadsheets.unescape(spreadsheets.escape(cell)) == cell


@pytest.mark.parametrize("cell", ["-1.5", "+3", "text", "", "'quoted'", "'-1.5", 7, None])
def test_other_cells_stay(cell: object) -> None:
    assert spreadsheets.escape(cell) == cell
    if isinstance(cell, str):
        assert spreadsheets.unescape(cell) == cell
