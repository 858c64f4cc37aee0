"""The documentation site: built strictly, complete without a network, and without a dead link."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

import tunesmith
from tests.documentation import module_of_docs

ROOT = Path(__file__).parents[1]
BUILD = """
import logging, sys
logging.basicConfig(level=logging.WARNING)
from mkdocs.commands.build import build
from mkdocs.config import load_config
build(load_config("mkdocs.yml", docs_dir=sys.argv[1], site_dir=sys.argv[2]))
"""


@pytest.fixture(scope="module")
def stage() -> ModuleType:
    return module_of_docs("stage")


def build(pages: Path, site: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-c", BUILD, str(pages), str(site)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(stage: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    stage.stage(folder / "pages")
    built = build(folder / "pages", folder / "site")
    assert built.returncode == 0, built.stderr
    return folder / "site"


class Page(HTMLParser):
    """The ids of a page, its links, and what a browser loads for it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag == "link" and values.get("rel") not in ("canonical", "prev", "next"):
            self.loaded.append(values["href"])
        elif "src" in values:
            self.loaded.append(values["src"])


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html")}


def test_a_page_loads_nothing_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    for path, page in pages.items():
        foreign = [url for url in page.loaded if urlsplit(url).scheme not in ("", "data") or url.startswith("//")]
        assert foreign == [], path.relative_to(site)
    for sheet in site.rglob("*.css"):
        assert re.findall(r"url\(['\"]?(?:https?:)?//", sheet.read_text(encoding="utf-8")) == [], sheet.name


def test_every_link_within_the_site_has_a_target(site: Path, pages: dict[Path, Page]) -> None:
    dead = []
    for path, page in pages.items():
        if path.name == "404.html":  # its links are those of a server's root
            continue
        for link in page.links:
            address = urlsplit(link)
            if address.scheme or address.netloc:
                continue
            target = Path(os.path.normpath(path.parent / unquote(address.path))) if address.path else path
            target = target / "index.html" if target.is_dir() else target
            anchor = unquote(address.fragment)
            if not target.is_file() or (anchor and target in pages and anchor not in pages[target].ids):
                dead.append(f"{path.relative_to(site)}: {link}")
    assert dead == []


def test_dead_links_fail_the_build(stage: ModuleType, tmp_path: Path) -> None:
    stage.stage(tmp_path / "pages")
    links = ("[a page](nopage.md)", "[an anchor](start.md#noanchor)", "[a file](../nofile.py)")
    (tmp_path / "pages" / "index.md").write_text(f"# Home\n\nSee {', '.join(links)}.\n")
    built = build(tmp_path / "pages", tmp_path / "site")
    assert built.returncode != 0
    assert all(name in built.stderr for name in ("nopage.md", "#noanchor", "nofile.py"))


def test_the_python_reference_has_everything_that_can_be_imported(pages: dict[Path, Page], site: Path) -> None:
    text = (site / "reference" / "python.html").read_text(encoding="utf-8")
    headings = set(re.findall(r'class="doc doc-heading">\s*(?:<[^>]+>\s*)*([A-Za-z_.]+)', text))
    assert set(tunesmith.__all__) - {"__version__"} <= headings
    assert "<strong><code>overrides</code></strong>" in text, "parameters are lists"
    assert {"fit", "save"} <= headings, "inherited methods"
    assert "{settings}" not in text, "docstrings that are completed at run time"


def test_a_notebook_is_a_page_with_its_outputs(stage: ModuleType) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "text"]},
        {
            "cell_type": "code",
            "source": ["print(1 < 2)"],
            "outputs": [
                {"output_type": "stream", "name": "stdout", "text": ["\x1b[1mTrue\x1b[0m\n", "\n", "<end>"]},
                {"output_type": "display_data", "data": {"image/png": "iVBORw0=\n", "text/plain": "<Figure>"}},
                {"output_type": "execute_result", "data": {"text/html": "<table>\n\n</table>", "text/plain": "t"}},
            ],
        },
        {"cell_type": "code", "source": [], "outputs": []},
    ]
    page = stage.notebook_page({"cells": cells})
    assert page.startswith("# Title\ntext\n\n```python\nprint(1 < 2)\n```\n\n")
    assert "<pre>True\n&#8203;\n&lt;end&gt;</pre>" in page
    assert 'src="data:image/png;base64,iVBORw0="' in page
    assert '<div class="output"><table>\n</table></div>' in page


@pytest.fixture(scope="module")
def addresses(site: Path) -> Iterator[dict[str, str]]:
    """The site through a plain server, and as files."""
    handler = functools.partial(SilentHandler, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield {"http": f"http://127.0.0.1:{server.server_port}", "file": site.as_uri()}
        server.shutdown()


class SilentHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize("kind", ["http", "file"])
def test_the_search_works_without_a_network(addresses: dict[str, str], kind: str, browser: Any) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(f"{addresses[kind]}/index.html")
    field = page.locator("input.md-search__input")
    field.press_sequentially("coin tosses")  # the search listens to keys
    page.locator("a.md-search-result__link[href*='concepts/statistics']").first.wait_for(
        state="attached", timeout=60_000
    )
    page.close()
    foreign = [url for url in requests if not url.startswith((addresses[kind], "data:", "blob:"))]
    assert foreign == []
