"""What is wrong with the form of answers, and what is not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tunesmith.evaluation import format_checks
from tunesmith.types import ResponseRow

INSTRUCTION = "Rewrite the sentence using a simile."


def row(response: str, reference: str = "It is as fast as lightning.", **more: Any) -> ResponseRow:
    known = {"id": "1", "prompt": f"{INSTRUCTION}\n\nIt is fast.", "reference": reference, "response": response}
    return ResponseRow(**(known | more))


@pytest.mark.parametrize(
    "text",
    [
        "Grain\n\n### Response:\nGrain",
        "### Instruction: do",
        "fine<|im_end|>\n<|im_start|>user",
        "yes [/INST] no",
        "Yes.\nHuman: and now?",
        "assistant: yes",
        "It is.</s>",
        "a <end_of_turn>",
        "x ### Human: y",
        "Below is an instruction that describes a task.",
    ],
)
def test_template_text_is_no_answer(text: str) -> None:
    assert format_checks.template_text(row(text))
    assert not format_checks.answer_only(row(text))
    assert not format_checks.template_text(row(text, reference=text))  # it was asked for


@pytest.mark.parametrize(
    "text",
    [
        "It is as fast as light.",
        "# Title\n\n## Input and output\nfine",
        "The human: a study.",
        "### Summary\nshort",
        "Use a < b and c > d.",
        "He said: assistant directors are rare",
    ],
)
def test_plain_answers_are_left_alone(text: str) -> None:
    assert format_checks.answer_only(row(text))
    assert not format_checks.loops(row(text))


def test_a_repeated_instruction_is_seen() -> None:
    assert format_checks.repeats_instruction(row(f"{INSTRUCTION.upper()}\nIt is as fast as light."))
    turns = f"System: {INSTRUCTION}\n\nUser: It is fast."
    assert format_checks.repeats_instruction(row(f"{INSTRUCTION} It is.", prompt=turns))
    assert not format_checks.repeats_instruction(row("It is fast."))  # the input may well belong to an answer
    assert not format_checks.repeats_instruction(row("Why? It is.", prompt="Why? It is.\n\nfast"))  # too short to tell
    assert not format_checks.repeats_instruction(row(f"{INSTRUCTION} So.", reference=f"{INSTRUCTION} So it goes."))
    assert format_checks.repeats_instruction(
        row("Name the capital of France please", prompt="x", instruction="name the capital of France")
    )


def test_going_round_in_circles_is_seen() -> None:
    circle = "I do not know what to say. " * 6
    assert format_checks.loops(row(circle))
    assert not format_checks.loops(row(circle, reference=circle))
    assert not format_checks.loops(row("no no no"))
    assert not format_checks.loops(row(" ".join(f"word{i}" for i in range(40))))


def test_flaws_are_counted_and_named() -> None:
    rows = [row(text, id=str(n)) for n, text in enumerate(["", "ok", "ok", "### Response: ok", "other"])]
    rows[2] = replace(rows[2], prompt="Another prompt entirely.", reference="Something else.")
    rows[0] = replace(rows[0], missing=True)
    found = format_checks.count(rows)
    assert {name: flaw.count for name, flaw in found.items()} == {
        "no response in the data": 1,
        "empty": 1,
        "template text": 1,
        "repeats the instruction": 0,
        "repeats itself": 0,
        "same answer to different prompts": 2,
    }
    assert found["same answer to different prompts"].where == ("1", "2")
    assert not format_checks.answer_only(rows[0])
    told = format_checks.count([replace(row, ended=n > 2) for n, row in enumerate(rows)])
    assert told["not ended"] == format_checks.FormatFlaw(3, ("0", "1", "2"))
