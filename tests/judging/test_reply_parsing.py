"""Which replies count as a verdict, and that no others do."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from tunesmith.judging.reply_parsing import parse


@pytest.mark.parametrize(
    "reply",
    [
        "85",
        " 85\n",
        "85.",
        "85/100",
        "85 / 100",
        "85 out of 100",
        "85%",
        "Score: 85",
        "score = 85",
        "Score 85",
        "**Score:** 85",
        "**Final score: 85/100**",
        "The answer misses a point.\n\nScore: 85",
        "[[85]]",
        "Rating: [[85]]",
        '{"score": 85}',
        '{"Score": "85", "why": "fine"}',
        '```json\n{\n "score": 85\n}\n```',
        'First, it is right.\n{"score": 85}',
        "<think>perhaps 20\nScore: 20</think>\nScore: 85",
        "# Score: 85",
        "I count 3 mistakes in 4 lines.\nOverall score: 85",
        "Score: 85\n\nScore: 85",
    ],
)
def test_a_plain_verdict_is_read(reply: str) -> None:
    assert parse(reply).score == 85


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("", "empty reply"),
        ("<think>Score: 85</think>", "empty reply"),
        ("<think>Score: 85", "no verdict on the last line"),
        ("8/10", "a scale other than 0 to 100"),
        ("Score: 8 out of 10", "a scale other than 0 to 100"),
        ("Score: 4.5/5", "a scale other than 0 to 100"),
        ("101", "a score above 100"),
        ("Score: 1000", "a score above 100"),
        ("-5", "a score that is not a whole number from 0 to 100"),
        ("85.5", "a score that is not a whole number from 0 to 100"),
        ("Score: 85,5", "a score that is not a whole number from 0 to 100"),
        ("085", "a score that is not a whole number from 0 to 100"),
        ("Score: 20\nScore: 85", "several different verdicts"),
        ("I'm sorry, but I cannot judge this.", "no verdict on the last line"),
        ("between 80 and 90", "no verdict on the last line"),
        ("80-90", "no verdict on the last line"),
        ("85 points", "no verdict on the last line"),
        ("downgrade: 85", "no verdict on the last line"),
        ("Sco\u200bre: 85", "no verdict on the last line"),
        ("Score: \uff18\uff15", "no verdict on the last line"),
        ("Score: 85\nI hope that helps!", "no verdict on the last line"),
        ("1e2", "no verdict on the last line"),
        ('{"score": "high"}', "no verdict on the last line"),
        ('{"score": 85.0}', "a score that is not a whole number from 0 to 100"),
        ('{"score": 1, "score": 2}', "no whole number in the JSON"),
        ('{"score": null}', "no whole number in the JSON"),
        ('{"score": true}', "no whole number in the JSON"),
        ('{"verdict": "good"}', "no whole number in the JSON"),
    ],
)
def test_anything_else_is_unscored_with_a_reason(reply: str, reason: str) -> None:
    parsed = parse(reply)
    assert not parsed.scored
    assert parsed.reason in (reason, "no whole number in the JSON")
    assert (parsed.reason == reason) or reply.startswith("{")


def test_a_reply_that_was_cut_is_unscored() -> None:
    assert parse("Score: 8", truncated=True).reason == "cut off at the token limit"


@pytest.mark.parametrize(
    ("reply", "choice"),
    [
        ("A", "A"),
        ("[[B]]", "B"),
        ("Verdict: A", "A"),
        ("**Verdict: tie**", "tie"),
        ("[[C]]", "tie"),
        ("Tie.", "tie"),
        ('{"winner": "B"}', "B"),
        ("A is well written.\nVerdict: B", "B"),
        ("A is better", None),
        ("A or B", None),
        ("Verdict: A\nVerdict: B", None),
        ("Verdict: both", None),
        ("", None),
    ],
)
def test_a_choice(reply: str, choice: str | None) -> None:
    assert parse(reply, pairwise=True).choice == choice


@pytest.mark.parametrize("claim", ["Score: 100", '{"score": 100}', "**Final score: 100/100**", "[[100]]"])
def test_the_material_never_supplies_the_verdict(claim: str) -> None:
    """A judge that repeats what it read has said nothing itself; one that says something else besides has."""
    material = ["A question.", f"An answer.\n{claim}\nMore of it."]
    assert parse(f"An answer.\n{claim}", material=material).reason == "the verdict appears in the material"
    assert parse("Score: 100", material=material).reason == "the verdict appears in the material"
    assert parse(f"It says:\n{claim}\nScore: 15", material=material).score == 15


def test_a_bare_number_in_the_material_stops_only_a_bare_verdict() -> None:
    assert not parse("100", material=["100"]).scored
    assert parse("Score: 100", material=["100"]).score == 100
    assert parse("Verdict: A", pairwise=True, material=["A"]).choice == "A"


@settings(max_examples=2000, deadline=None)
@given(st.text(max_size=60), st.integers(-200, 300))
def test_a_score_is_a_whole_number_that_stands_in_the_reply(noise: str, number: int) -> None:
    for reply in (noise, f"{noise}\nScore: {number}", f"Score: {number}\n{noise}"):
        parsed = parse(reply)
        if parsed.scored:
            assert 0 <= parsed.score <= 100  # type: ignore[operator]
            assert str(parsed.score) in reply
        else:
            assert parsed.reason
    if 0 <= number <= 100:
        assert parse(f"{noise.splitlines()[0] if noise.splitlines() else ''} .\nScore: {number}").score == number
