"""Documentation is generated or executed."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import tunesmith
from tests.documentation import DOCS, GAP, PAGES, ROOT, blocks, messages, module_of_docs
from tests.serving_fakes import application, classifier, generator
from tunesmith import cli, recipe as recipes


def test_generated_pages_are_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run `make reference` after changing a setting or a command."""
    generate = module_of_docs("generate")
    monkeypatch.setenv("COLUMNS", "110")
    for name, page in generate.PAGES.items():
        path = generate.DOCS / name
        assert path.read_text(encoding="utf-8") == page(), f"{path} is out of date: make reference"


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


def test_every_error_message_that_is_explained_is_one_of_the_source() -> None:
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    explained = re.findall(r"^### `(.+)`$", page, re.MULTILINE)
    assert len(explained) > 30
    known = {normalised(message) for message in messages()}
    for message in [*explained, *re.findall(r"`([^`]*…[^`]*)`", re.sub(r"^### .*$", "", page, flags=re.MULTILINE))]:
        assert message == GAP or normalised(message) in known, message


def normalised(message: str) -> str:
    """A message without its changing parts at the ends, whose number does not show."""
    return re.sub(r"\s+", " ", re.sub(f"{GAP}+", GAP, message)).strip()


def test_every_extra_that_is_named_exists() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for page in PAGES:
        for extras in re.findall(r"tunesmith\[([a-z0-9,-]+)\]", page.read_text(encoding="utf-8")):
            assert set(extras.split(",")) <= set(project["optional-dependencies"]), page.name


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "yaml")], ids=lambda page: page.stem)
def test_every_recipe_on_a_page_is_one(page: Path, tmp_path: Path) -> None:
    for number, block in enumerate(blocks(page, "yaml")):
        path = tmp_path / f"{number}.yaml"
        path.write_text(block)
        recipes.load(path)


def test_the_readme_fits_on_three_screens() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
    assert (DOCS / "report.png").stat().st_size < 300_000


def test_the_reference_has_every_route_of_the_server() -> None:
    page = (DOCS / "reference" / "http.md").read_text(encoding="utf-8")
    routes = application(classifier(), generator()).app.openapi()["paths"]
    documented = set(re.findall(r"`(?:GET|POST) ([^`]+)`", page))
    assert documented == set(routes)
