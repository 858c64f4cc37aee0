"""Documentation is generated or executed."""

from __future__ import annotations

import re

import pytest

import tunesmith
from tests.documentation import ROOT, module_of_docs
from tunesmith import cli


def test_generated_pages_are_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run `make docs` after changing a setting or a command."""
    generate = module_of_docs("generate")
    monkeypatch.setenv("COLUMNS", "110")
    for name, page in generate.PAGES.items():
        path = generate.DOCS / name
        assert path.read_text(encoding="utf-8") == page(), f"{path} is out of date: make docs"


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
