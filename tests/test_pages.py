"""Every kind of page, in Chromium: no overflow on a phone, no serious problem of accessibility, light and dark.

Skipped without Chromium, playwright, or axe-playwright-python, which has the script of axe-core.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tests import small_runs, tiny
from tests.conftest import write_csv
from tests.serving_fakes import application, classifier, generator, listening, regressor, tagger

QUICK = ["evaluate.bootstrap_samples=100"]


@pytest.fixture(scope="module")
def axe() -> str:
    """The script of axe-core."""
    package = pytest.importorskip("axe_playwright_python")
    return resources.files(package).joinpath("axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place for runs, with reviews.csv."""
    made = tmp_path_factory.mktemp("pages")
    write_csv(made / "reviews.csv", tiny.texts(150))
    return made


def compared(folder: Path) -> Path:
    source = {"data": {"path": str(folder / "reviews.csv")}, "output_dir": str(folder)}
    return Path(tunesmith.compare(source, QUICK, methods=["linear"]).page)


def multilabel(folder: Path) -> Path:
    return Path(small_runs.learn("multilabel", "linear", folder / "tags", folder).path) / "report.html"


def regression(folder: Path) -> Path:
    return Path(small_runs.learn("regression", "linear", folder / "prices", folder).path) / "report.html"


def audited(folder: Path) -> Path:
    tunesmith.audit(str(folder / "reviews.csv"), output=folder / "audit")
    return folder / "audit" / "report.html"


def swept(folder: Path) -> Path:
    pytest.importorskip("optuna")
    source = {"method": "linear", "data": {"path": str(folder / "reviews.csv")}, "output_dir": str(folder)}
    tunesmith.sweep(source, [*QUICK, "linear.lowercase=true,false"], sweep_dir=folder / "sweep")
    return folder / "sweep" / "report.html"


def evaluated(folder: Path) -> Path:
    rows = [{"instruction": f"Say {n}", "output": f"it is {n}", "response": f"it is {n % 7}"} for n in range(30)]
    (folder / "responses.json").write_text(json.dumps(rows))
    page = folder / "responses.html"
    tunesmith.evaluate(str(folder / "responses.json"), report=str(page), responses=["response"])
    return page


REPORTS: dict[str, Callable[[Path], Path]] = {
    "compare": compared,
    "multilabel": multilabel,
    "regression": regression,
    "audit": audited,
    "sweep": swept,
    "responses": evaluated,
}


@pytest.mark.parametrize("kind", REPORTS)
def test_reports(kind: str, folder: Path, browser: Any, axe: str) -> None:
    check(browser, axe, REPORTS[kind](folder).as_uri())


def test_pages_of_the_server(browser: Any, axe: str) -> None:
    made = application(classifier(), classifier("other"), tagger(), regressor(), generator(), examples=["an example"])
    with listening(made) as address:
        check(browser, axe, f"{address}/docs", lambda page: page.wait_for_selector("h2"))
        check(browser, axe, f"{address}/monitor", lambda page: page.wait_for_selector("h2"))
        check(browser, axe, address, predict)


def predict(page: Any) -> None:
    """Fill the playground: an example, a prediction with its words, and both models side by side."""
    page.click("#examples button")
    assert page.input_value("#text") == "an example"
    page.click("#go")
    page.wait_for_selector("#bars li")
    page.click("#explain")
    page.wait_for_selector("#words mark")
    page.click("#compare")
    page.wait_for_selector("#comparison tbody tr:nth-child(2) td:nth-child(4)")
    page.click("#code-box summary")


def check(browser: Any, axe: str, url: str, prepare: Callable[[Any], Any] = lambda page: None) -> None:
    for scheme in ("light", "dark"):
        context = browser.new_context(color_scheme=scheme, viewport={"width": 390, "height": 800}, bypass_csp=True)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.goto(url)
        prepare(page)
        page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, (url, scheme)
        page.evaluate(axe)
        violations = page.evaluate("axe.run()")["violations"]
        serious = [
            (each["id"], each["nodes"][0]["html"][:200], each["nodes"][0]["failureSummary"])
            for each in violations
            if each["impact"] in ("serious", "critical")
        ]
        assert serious == [], (url, scheme)
        context.close()
