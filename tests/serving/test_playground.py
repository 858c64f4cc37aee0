"""The playground, clicked through in a headless browser; skipped where there is none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving_fakes import (
    FakeClassifier,
    FakeGenerator,
    application,
    classifier,
    generator,
    listening,
    regressor,
    tagger,
)

SHOTS = os.environ.get("TUNESMITH_SCREENSHOTS")
"""A folder for pictures of what the test sees, to be looked at."""
SIZES = {"wide": (1200, 800), "phone": (390, 780)}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    labels = ("World", "Sports", "Business", "Sci/Tech", "<b>bold</b>", *(f"label {n}" for n in range(8)))
    fake = FakeGenerator(context_length=10**4, seconds=0.03)
    made = application(
        classifier("ag-news", FakeClassifier(labels, prompt="Text: ")),
        classifier("pairs", pairs=True),
        tagger(),
        regressor(),
        generator("assistant", fake),
        keys=["open sesame"],
        guard={"block": ["card"]},
    )
    with listening(made) as found:
        yield found


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_clicking_through(browser: Any, address: str, scheme: str, size: str) -> None:
    width, height = SIZES[size]
    context = browser.new_context(
        color_scheme=scheme,
        viewport={"width": width, "height": height},
        bypass_csp=False,
        http_credentials={"username": "me", "password": "open sesame"},
    )
    page = context.new_page()
    problems: list[str] = []
    page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))

    def shoot(name: str) -> None:
        if SHOTS:
            page.screenshot(path=Path(SHOTS) / f"{scheme}-{size}-{name}.png")

    page.goto(address)
    classify(page)
    shoot("classify")
    page.select_option("#model", "pairs")
    page.fill("#text", "one")
    page.fill("#text-pair", "two")
    page.click("#go")
    page.wait_for_selector("#bars li")
    assert page.locator("#bars li").count() == 3
    assert page.locator("#words mark").count() == 0
    page.click("#explain")
    page.wait_for_selector("#words p:nth-child(2) mark")
    assert page.locator("#words p").all_inner_texts() == ["one", "two"]
    labels_and_numbers(page)
    shoot("number")
    assert problems == []
    talk(page)
    shoot("chat")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    refused(page)
    shoot("refused")
    assert [line for line in problems if "400" not in line] == []
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 22, 26)"}[scheme]
    page.goto(f"{address}/docs")
    page.wait_for_selector("text=POST /predict")
    shoot("docs")
    assert page.locator("h2").count() >= 7
    context.close()


def classify(page: Any) -> None:
    page.wait_for_selector("#go")
    assert page.input_value("#model") == "ag-news"
    page.click("#go")  # the browser itself asks for a text
    page.fill("#text", "Stocks rose on Tuesday as investors welcomed the <i>report</i>.")
    page.click("#go")
    page.wait_for_selector("#bars li")
    assert page.locator("#bars li").count() == 10
    scores = [float(text.rstrip("%")) for text in page.locator("#bars .value").all_inner_texts()]
    assert scores == sorted(scores, reverse=True)
    assert page.inner_text("#verdict") == page.locator("#bars .name").first.inner_text()
    widths = [box["width"] for box in (one.bounding_box() for one in page.locator("#bars .track span").all())]
    assert widths[0] > widths[-1]
    page.click("#more")
    assert page.locator("#bars li").count() == 13
    assert page.locator("#bars b").count() == 0, "labels are text"
    assert "ms" in page.inner_text("#took")
    page.click("#explain")
    page.wait_for_selector("#words mark")
    assert page.inner_text("#words p") == page.input_value("#text")
    assert page.locator("#words i").count() == 0, "words are text"
    assert page.inner_text("#explained").startswith(f"Blue words speak for {page.inner_text('#verdict')}")
    assert page.get_attribute("#words mark", "title")[0] in "+-0"
    page.click("#prompt-box summary")
    assert page.inner_text("#prompt").startswith("Text: Stocks rose")


def labels_and_numbers(page: Any) -> None:
    page.select_option("#model", "tags")
    page.fill("#text", "some text")
    page.click("#go")
    page.wait_for_selector("#bars .chosen")
    chosen = page.locator("#bars .chosen .name").all_inner_texts()
    assert page.inner_text("#verdict") == ", ".join(sorted(chosen))
    assert page.locator("#bars .track i").count() == 3
    page.select_option("#model", "stars")
    page.click("#go")
    page.wait_for_selector("#result:visible")
    assert page.inner_text("#verdict") == "3"
    assert page.locator("#bars li").count() == 0


def talk(page: Any) -> None:
    page.select_option("#model", "assistant")
    page.fill("#question", "say these <b>words</b> one by one please")
    page.keyboard.press("Enter")
    page.locator("#talk .assistant .content", has_text="SAY THESE").wait_for()
    assert page.locator("#talk .note").count() == 0, "the answer comes word by word"
    page.wait_for_selector("#talk .note")
    assert page.inner_text("#talk .assistant .content").strip() == "SAY THESE <B>WORDS</B> ONE BY ONE PLEASE"
    note = page.inner_text("#talk .note")
    assert "first token after" in note
    assert "tokens/s" in note
    assert "<user>say these" in page.text_content("#prompt")
    page.fill("#question", " ".join(["word"] * 45))
    page.click("#send")
    page.locator("#talk li:nth-child(4) .content", has_text="WORD").wait_for()
    page.click("#stop")
    page.wait_for_selector("#talk li:nth-child(4) .note")
    assert "stopped" in page.inner_text("#talk li:nth-child(4) .note")
    page.click("#options summary")
    page.fill("#most", "2")
    page.fill("#question", "a b c d")
    page.click("#send")
    page.wait_for_selector("#talk li:nth-child(6) .note")
    assert page.inner_text("#talk li:nth-child(6) .content").strip() == "A B"
    assert "token limit" in page.inner_text("#talk li:nth-child(6) .note")
    page.click("#options summary")


def refused(page: Any) -> None:
    page.click("#clear")
    assert page.locator("#talk li").count() == 0
    page.fill("#question", "my card is 4111 1111 1111 1111")
    page.click("#send")
    page.wait_for_selector("#problem:visible")
    assert "blocked by the guard" in page.inner_text("#problem")
    assert page.locator("#talk li").count() == 0
    assert page.input_value("#question").startswith("my card")
