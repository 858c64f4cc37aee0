"""Documentation is generated or executed."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

import tunesmith
from tunesmith import cli

ROOT = Path(__file__).parents[1]


def test_generated_pages_are_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run `make docs` after changing a setting or a command."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec
    assert spec.loader
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    monkeypatch.setenv("COLUMNS", "110")
    for name, page in generate.PAGES.items():
        assert (ROOT / "docs" / name).read_text(encoding="utf-8") == page(), f"docs/{name} is out of date: make docs"


def test_the_readme_names_every_command_and_none_that_does_not_exist() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"tunesmith ([a-z-]+)", readme))
    assert set(cli.COMMANDS) - {"quickstart"} <= named <= set(cli.COMMANDS)


def test_every_command_is_a_function() -> None:
    for name in set(cli.COMMANDS) - {"runs"}:
        assert callable(getattr(tunesmith, name.replace("-", "_")))
    assert all(callable(getattr(tunesmith, name)) for name in tunesmith.__all__ if name.startswith("Text"))
    with pytest.raises(AttributeError):
        _ = tunesmith.nothing
