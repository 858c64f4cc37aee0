"""Personal data: one set of patterns for the guard and the audit."""

from __future__ import annotations

import pytest
import regex
from hypothesis import given, settings, strategies as st

from tunesmith.data import personal_data
from tunesmith.serving import patterns

EXAMPLES = {
    "email": "write to jane.doe+spam@mail.example.co.uk today",
    "phone": "call +49 (30) 1234-5678 or 555-123-4567",
    "card": "card 4111 1111 1111 1111, please",
    "key": "use sk-abcdefghijklmnopqrst1234 or ghp_abcdefghijklmnopqrstuvwx",
}


def test_the_guard_has_the_same_patterns() -> None:
    assert patterns.BUILT_IN is personal_data.PATTERNS


@pytest.mark.parametrize(("kind", "text"), EXAMPLES.items())
def test_each_kind_is_found_and_masked(kind: str, text: str) -> None:
    found = personal_data.spans(text)
    assert found
    assert {name for _, _, name in found} == {kind}
    masked = personal_data.masked(text)
    assert f"[{kind}]" in masked
    assert not any(text[start:end] in masked for start, end, _ in found)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="0123456789+-() .@abcAKIAsk_eyJ/\n", max_size=60))
def test_re_finds_what_regex_finds(text: str) -> None:
    """The audit compiles the patterns with `re`, the guard with `regex`."""
    import re

    for expression, _ in personal_data.PATTERNS.values():
        found = [match.span() for match in re.finditer(expression, text)]
        assert found == [match.span() for match in regex.finditer(expression, text)]


def test_of_a_card_number_no_part_is_a_phone_number() -> None:
    assert [kind for _, _, kind in personal_data.spans("4111 1111 1111 1111")] == ["card"]


def test_a_wrong_checksum_is_no_card() -> None:
    assert "card" not in {kind for _, _, kind in personal_data.spans("4111 1111 1111 1112")}


def test_long_numbers_are_masked_although_they_are_no_phone_numbers() -> None:
    assert personal_data.masked("txt 08712460324 now, 2004, 150p") == "txt [number] now, 2004, 150p"


def test_a_text_of_many_matches_takes_linear_time() -> None:
    assert len(personal_data.spans("a@b.example " * 20_000)) == 20_000
