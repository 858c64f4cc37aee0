"""Checks of instructions and responses."""

from __future__ import annotations

import numpy as np
import pytest

from tunesmith.auditing import conversation_checks, conversation_findings
from tunesmith.auditing.conversation_checks import SAME, UNENDED, LossRow
from tunesmith.types import Example, Message

LONG = "This answer has more than twenty words, because only of long answers can be told whether they were cut off"


def talk(number: int, prompt: str, answer: str, given: str = "") -> Example:
    text = f"{prompt}\n\n{given}" if given else prompt
    return Example(f"r{number}", text, messages=(Message("user", prompt, given), Message("assistant", answer)))


def audit(*pairs: tuple[str, str]) -> conversation_checks.ConversationAudit:
    found = conversation_checks.audit({"train": [talk(n, *pair) for n, pair in enumerate(pairs)]})
    assert found is not None
    return found


def flaws(*pairs: tuple[str, str]) -> dict[str, tuple[str, ...]]:
    return {flaw.kind: flaw.count.where for flaw in audit(*pairs).flaws}


SOUND = [(f"Which number comes after {n}?", f"After {n} comes {n + 1}.") for n in range(20)]


def test_sound_conversations_have_no_flaw() -> None:
    found = audit(*SOUND)
    assert found.flaws == ()
    assert found.contradictions.prompts == 0
    assert conversation_findings.of(found) == ()


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("says nothing", "N/A"),
        ("says nothing", "..."),
        ("refusal, or speaks as an AI", "As an AI language model, I have no favourite."),
        ("refusal, or speaks as an AI", "I'm sorry, but I can't help with that."),
        ("refusal, or speaks as an AI", "I cannot provide medical advice."),
        ("refusal, or speaks as an AI", "Lo siento, como modelo de lenguaje no tengo opiniones."),
        ("code block without an end", "Use this:\n```python\nprint(1)"),
        ("template text in the answer", "Fine.<|im_end|>"),
        ("template text in the answer", "Fine. [INST] And now?"),
        ("template text in the answer", "Fine.\n### Human: And now?"),
        ("repeats itself", "again and again. " * 20),
        (UNENDED, LONG),
        (UNENDED, f"{LONG},"),
    ],
)
def test_each_flaw_is_found(kind: str, answer: str) -> None:
    ended = [(prompt, f"{LONG} {n}.") for n, (prompt, _) in enumerate(SOUND)]
    assert flaws(*ended, ("What do you like?", answer)) == {kind: ("r20",)}


@pytest.mark.parametrize(
    "answer",
    [
        "No.",
        "42",
        "I can't recommend this film enough!",
        "I am an artist, and I paint.",
        f"{LONG}.",
        f"{LONG}:\n- one\n- two",
        f"{LONG} (see above)",
        "Use `x`:\n```python\nprint(1)\n```",
        "The tag <br> and a < b",
    ],
)
def test_sound_answers_have_none(answer: str) -> None:
    assert flaws(*SOUND, ("What do you like?", answer)) == {}


def test_where_many_long_answers_have_no_last_mark_that_is_their_style() -> None:
    assert flaws(*((prompt, f"{LONG} {n} x") for n, (prompt, _) in enumerate(SOUND))) == {}


def test_template_text_in_a_prompt_and_a_repeated_instruction() -> None:
    assert flaws(("### Human: Name three large rivers", "Nile, Amazon, Rhine.")) == {
        "template text in the prompt": ("r0",)
    }
    assert flaws(("Name three large rivers", "Name three large rivers: Nile, Amazon, Rhine.")) == {
        "repeats the instruction": ("r0",)
    }


def test_one_answer_to_different_prompts() -> None:
    answer = "That is a very good question."
    assert flaws(("Why?", answer), ("How?", answer.upper()), ("why?", "Because it is so.")) == {SAME: ("r0", "r1")}


def test_every_turn_is_looked_at() -> None:
    turns = [("user", "Hi"), ("assistant", "N/A"), ("user", "And?"), ("assistant", "Hello there.")]
    row = Example("a", "Hi", messages=tuple(Message(role, text) for role, text in turns))  # type: ignore[arg-type]
    found = conversation_checks.audit({"train": [row]})
    assert found is not None
    assert [flaw.kind for flaw in found.flaws] == ["says nothing"]
    assert found.several_turns == 1


def test_contradictions_are_found_whatever_case_and_spaces_and_splits() -> None:
    train = [talk(0, "What is 2+2?", "4"), talk(1, "Capital of  FRANCE?", "Paris"), talk(2, "Same?", "yes")]
    test = [talk(3, "what is 2+2?", "5"), talk(4, "capital of France?", "paris"), talk(5, "Same?", "Yes")]
    more = [
        talk(6, "Your name?", "A"),
        talk(7, "Your name?", "B"),
        talk(8, "Sum?", "3", "1, 2"),
        talk(9, "Sum?", "5", "2, 3"),
    ]
    found = conversation_checks.contradictions({"train": [*train, *more], "test": test})
    assert (found.prompts, found.count.rows, found.across_splits, found.exact) == (2, 4, 1, 1)
    assert set(found.count.where) == {"r0", "r3", "r6", "r7"}


def test_an_answer_in_another_language_is_found_and_a_translation_is_not() -> None:
    english = "Please tell me how long a train takes from Berlin to Munich, and what a ticket costs."
    german = "Der Zug von Berlin nach München braucht etwa vier Stunden, und eine Fahrkarte kostet rund hundert Euro."
    found = audit((english, german), (f"Translate into another language: {english}", german), (english, english))
    assert (found.languages.checked, found.languages.count.where) == (3, ("r0",))
    assert found.languages.pairs == {"English answered in German": 1}


def test_odd_lengths_are_found_on_both_sides() -> None:
    answers = ["word " * (20 + n % 7) + "end." for n in range(60)]
    found = audit(*((f"Question number {n}?", answer) for n, answer in enumerate([*answers, "I", "long " * 2000])))
    assert (found.short.where, found.long.where) == (("r60",), ("r61",))


def test_equal_lengths_have_no_odd_ones() -> None:
    assert conversation_checks.odd(np.ones(10)) == ([], [])


def test_raw_texts_answer_nothing() -> None:
    assert conversation_checks.audit({"train": [Example("a", "x", messages=(Message("assistant", "x"),))]}) is None
    assert conversation_checks.audit({"train": [Example("a", "x", label="y")]}) is None


def test_odd_losses_are_those_far_from_the_median() -> None:
    rows = [LossRow(f"r{n}", 2 + 0.01 * (n % 10), 20) for n in range(50)]
    found = conversation_checks.loss_outliers("gpt2", [*rows, LossRow("bad", 9.0, 3), LossRow("known", 0.1, 30)])
    assert found is not None
    assert (found.high.where, found.low.where) == (("bad",), ("known",))
    assert (found.highest[0].id, found.lowest[0].id, len(found.highest)) == ("bad", "known", conversation_checks.SHOWN)
    assert conversation_checks.loss_outliers("gpt2", []) is None


def test_findings_have_the_rows_and_something_to_do() -> None:
    found = audit(
        *SOUND, ("Name a river", "As an AI, I like the Nile."), ("Name a river", "The Rhine."), ("Why?", "N/A")
    )
    findings = conversation_findings.of(found)
    assert {(finding.severity, finding.rows) for finding in findings} >= {("note", 2), ("note", 1), ("warning", 1)}
    assert all(finding.do and finding.where for finding in findings)
