"""Wrong encodings, escapes and markup in texts."""

from __future__ import annotations

import pytest

from tunesmith.auditing import encoding_problems

PROBLEMS = {
    "wrong encoding": "It isnâ€™t what we agreed on.",
    "lost characters": "caf\ufffd au lait",
    "control characters": "a \x00 byte",
    "invisible characters": "soft\u00adhyphen and \u200b space",
    "HTML entities": "Smith &amp; Sons",
    "HTML tags": "one<br />two",
    "escaped characters": r"first line\nSecond line",
    "stray backslashes": r"the dwindling\band of",
}
CLEAN = [
    "Plain English, with a number: 3.",
    "Schöne Grüße aus Köln – “naïve” café",
    "日本語のテキストです。",
    "if a < b and b > c; x & y",
    "C:\\Users\\me\\file.txt",
    "AT&T; a family emoji 👨‍👩‍👧",
    "First line\nsecond\tline",
    "Мой дядя самых честных правил",
]


@pytest.mark.parametrize(("kind", "text"), PROBLEMS.items())
def test_each_kind_is_found_where_it_is(kind: str, text: str) -> None:
    (found,) = encoding_problems.find(["a", "b"], [CLEAN[0], text])
    assert found.kind == kind
    assert (found.count.rows, found.count.where) == (1, ("b",))


@pytest.mark.parametrize("text", CLEAN)
def test_clean_texts_have_none(text: str) -> None:
    assert encoding_problems.find(["a"], [text]) == ()


def test_what_ftfy_repairs_is_shown() -> None:
    (found,) = encoding_problems.find(["a"], [PROBLEMS["wrong encoding"]])
    assert found.repaired == "It isn’t what we agre"


def test_examples_show_no_personal_data_and_no_control_characters() -> None:
    (found,) = encoding_problems.find(["a"], ["mail jane.doe@mail.example\x1b[31m at once"])
    assert "jane" not in found.example
    assert "mail.example" not in found.example
    assert found.example.isprintable()
