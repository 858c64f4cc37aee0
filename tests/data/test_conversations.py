"""Rows of every format become the same conversations; what cannot be one is named; what is too long is cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tunesmith.data import CONVERSATIONS, read, read_unlabelled, summary, truncation
from tunesmith.data.conversations import transcript
from tunesmith.data.encode import IGNORE
from tunesmith.data.prompts import ChatEncoder
from tunesmith.errors import DataError
from tunesmith.recipe import Data, Prompt, Split
from tunesmith.types import Message

WHOLE = Split(test_size=0, validation_size=0)
ASKED = (Message("user", "Add.", "2+2"), Message("assistant", "4"))
PLAIN = (Message("user", "Add 2+2"), Message("assistant", "4"))


def load(tmp_path: Path, rows: list[dict[str, Any]], **settings: Any) -> Any:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    return read(Data(path=str(path), **settings), WHOLE, 1, CONVERSATIONS)


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({"instruction": "Add.", "input": "2+2", "output": "4"}, ASKED),
        ({"instruction": "Add 2+2", "input": "", "output": "4"}, PLAIN),
        ({"instruction": "Add 2+2", "output": 4}, PLAIN),
        ({"instruction": "Add.", "context": "2+2", "response": "4", "category": "math"}, ASKED),
        ({"instruction": "Add 2+2", "output": "4", "system": "Sum."}, (Message("system", "Sum."), *PLAIN)),
        (
            {"instruction": "And?", "output": "5", "history": [["Add 2+2", "4"]]},
            (*PLAIN, Message("user", "And?"), Message("assistant", "5")),
        ),
        ({"messages": [{"role": "user", "content": "Add 2+2"}, {"role": "assistant", "content": "4"}]}, PLAIN),
        (
            {
                "messages": [{"role": "user", "content": "Add 2+2"}, {"role": "assistant", "content": "4"}],
                "prompt": "Add 2+2",
            },
            PLAIN,
        ),
        ({"conversations": [{"from": "human", "value": "Add 2+2"}, {"from": "gpt", "value": "4"}]}, PLAIN),
        ({"prompt": "Add 2+2", "completion": "4"}, PLAIN),
        (
            {"prompt": [{"role": "user", "content": "Add 2+2"}], "completion": [{"role": "assistant", "content": "4"}]},
            PLAIN,
        ),
        ({"text": "### Human: Add 2+2### Assistant: 4"}, PLAIN),
        (
            {"text": "Sum.\n### Human: Add 2+2\n### Assistant: 4### Human: And?### Assistant: 5"},
            (Message("system", "Sum."), *PLAIN, Message("user", "And?"), Message("assistant", "5")),
        ),
    ],
)
def test_formats(tmp_path: Path, row: dict[str, Any], messages: tuple[Message, ...]) -> None:
    (example,) = load(tmp_path, [row]).train
    assert example.messages == messages
    assert example.label is None
    assert example.text == "\n\n".join(f"{m.content}\n\n{m.input}" if m.input else m.content for m in messages[:-1])


def test_a_transcript_names_the_roles_of_several_turns() -> None:
    question = Message("user", "Add.", "2 and 2")
    assert transcript([question]) == "Add.\n\n2 and 2"
    turns = [Message("system", "Be brief."), question, Message("assistant", "4"), Message("user", "And 1?")]
    assert transcript(turns) == "System: Be brief.\n\nUser: Add.\n\n2 and 2\n\nAssistant: 4\n\nUser: And 1?"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"instruction": "", "output": "4"}, "empty user turn"),
        ({"instruction": "Add.", "output": " "}, "null assistant turn"),
        ({"instruction": "Add.", "output": None}, "null assistant turn"),
        ({"messages": []}, "no question with an answer"),
        ({"messages": None}, "not a list of objects"),
        ({"messages": [{"role": "user", "content": "a"}]}, "no question with an answer"),
        (
            {
                "messages": [
                    {"role": "user", "content": "a"},
                    {"role": "user", "content": "b"},
                    {"role": "assistant", "content": "c"},
                ]
            },
            "out of order",
        ),
        ({"messages": [{"role": "tool", "content": "a"}, {"role": "assistant", "content": "c"}]}, "unknown role"),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": [{"id": "1"}]}]},
            "tool calls, which are not supported",
        ),
        ({"messages": [{"role": "user", "content": "a\ud800"}, {"role": "assistant", "content": "c"}]}, "half a char"),
        ({"instruction": "a", "output": "b", "history": "[]"}, "history that is not a list of pairs"),
        ({"instruction": "a", "output": "b", "history": [["q"]]}, "history that is not a list of pairs"),
        ({"instruction": "a", "output": "b", "history": [{"q": "a"}]}, "history that is not a list of pairs"),
        ({"text": "no turns here"}, "without `### Human:`"),
        ({"text": "### Human: a### Assistant: "}, "empty assistant turn"),
    ],
)
def test_rows_that_are_no_conversation(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    good = {key: value for key, value in GOOD.items() if set(key) <= set(row)}
    rows = [next(iter(good.values())), row]
    with pytest.raises(DataError, match=rf"(?s)1 bad row of 2.*{reason}.*rows.json:row 2"):
        load(tmp_path, rows)
    splits = load(tmp_path, rows, on_bad_rows="drop")
    assert len(splits.train) == 1
    assert any(reason in change.what for change in splits.notes)


GOOD: dict[tuple[str, ...], dict[str, Any]] = {
    ("instruction", "output"): {"instruction": "Go.", "output": "Yes."},
    ("messages",): {"messages": [{"role": "user", "content": "Go."}, {"role": "assistant", "content": "Yes."}]},
    ("text",): {"text": "### Human: Go.### Assistant: Yes."},
}


def test_tools_are_refused_by_row(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Go."}, {"role": "assistant", "content": "Yes.", "tool_calls": None}]
    rows = [{"messages": turns, "tools": tools} for tools in (None, [], "[]", [{"name": "add"}], '[{"name": "add"}]')]
    with pytest.raises(DataError, match=r"tools that the model may call, which are not supported: 2 .*row 4.*row 5"):
        load(tmp_path, rows)
    notes = {note.what: note.count for note in load(tmp_path, rows, on_bad_rows="drop").notes}
    assert notes["dropped: tools that the model may call, which are not supported"] == 2
    called = [{"from": "human", "value": "a"}, {"from": "function_call", "value": "{}"}, {"from": "gpt", "value": "b"}]
    with pytest.raises(DataError, match=r"unknown role.*'function_call': tool calls are not supported"):
        load(tmp_path, [rows[0], {"conversations": called}])


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    turns = [("gpt", "Hello!"), ("human", "Add 2+2"), ("gpt", "4"), ("human", "Thanks")]
    splits = load(tmp_path, [{"conversations": [{"from": role, "value": text} for role, text in turns]}])
    assert splits.train[0].messages == PLAIN
    assert {change.what for change in splits.notes} == {
        "conversations in format sharegpt",
        "left out: an answer before the first question",
        "left out: a last question without an answer",
    }


def test_columns_that_are_not_used_are_named(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Add 2+2"}, {"role": "assistant", "content": "4"}]
    rows = [
        {"messages": turns, "prompt": "Add 2+2", "chosen": "4", "images": None},
        {"instruction": "a", "output": "b"},
    ]
    notes = {note.what: note.count for note in load(tmp_path, rows).notes}
    assert notes["unused columns: prompt, chosen, images"] == 3


def test_formats_are_told_with_their_counts(tmp_path: Path) -> None:
    rows = [{"instruction": f"Add {i}.", "output": "4"} for i in range(3)] + [{"prompt": "Go.", "completion": "Yes."}]
    changes = load(tmp_path, rows).notes
    assert summary.lines(changes) == [
        "3 x conversations in format alpaca",
        "1 x conversations in format prompt-completion",
    ]


def test_a_table_without_conversations_is_explained(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)instruction, output/response \(alpaca\).*found: a, b.*data.format"):
        load(tmp_path, [{"a": "1", "b": "2"}])
    with pytest.raises(DataError, match="found: prompt, completion"):
        load(tmp_path, [{"prompt": "a", "completion": "b"}], format="alpaca")


def test_rows_to_answer_need_no_answer(tmp_path: Path) -> None:
    path = tmp_path / "ask.jsonl"
    path.write_text('{"instruction": "Add.", "input": "2+2"}\n{"instruction": "Go.", "output": "Yes."}\n')
    rows, _ = read_unlabelled(Data(path=str(path)), CONVERSATIONS)
    assert [row.messages[-1].role for row in rows] == ["user", "assistant"]
    assert rows[0].messages == ASKED[:1]


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "Add.", "input": "2+2", "output": ""},
        {"instruction": "Add.", "input": "2+2", "output": None},
        {"messages": [{"role": "user", "content": "Add.", "input": "2+2"}, {"role": "assistant", "content": ""}]},
    ],
)
def test_an_empty_answer_is_none_to_be_answered(tmp_path: Path, row: dict[str, Any]) -> None:
    path = tmp_path / "ask.json"
    path.write_text(json.dumps([row]))
    rows, _ = read_unlabelled(Data(path=str(path)), CONVERSATIONS)
    assert [row.messages for row in rows] == [ASKED[:1]]


def test_so_is_an_empty_cell(tmp_path: Path) -> None:
    path = tmp_path / "ask.csv"
    path.write_text("instruction,input,output\nAdd.,2+2,\n")
    rows, _ = read_unlabelled(Data(path=str(path)), CONVERSATIONS)
    assert [row.messages for row in rows] == [ASKED[:1]]


def test_the_fingerprint_covers_the_answers(tmp_path: Path) -> None:
    one = load(tmp_path, [{"prompt": "a", "completion": "b"}])
    other = load(tmp_path, [{"prompt": "a", "completion": "c"}])
    assert one.fingerprints["data"] != other.fingerprints["data"]


def test_equal_prompts_stay_in_one_split(tmp_path: Path) -> None:
    rows = [{"prompt": f"question {i % 10}", "completion": f"answer {i}"} for i in range(40)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    splits = read(Data(path=str(path)), Split(test_size=0.25, validation_size=0.25), 1, CONVERSATIONS)
    parts = [{row.text for row in part} for part in (splits.train, splits.validation, splits.test)]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 10


def test_52_000_rows_load(tmp_path: Path) -> None:
    """As many as Alpaca has: what takes more than linear time would not end within the time of a test."""
    rows = [
        {"instruction": f"Write {i}.", "input": "" if i % 3 else f"about {i}", "output": f"{i} " * 30}
        for i in range(52_000)
    ]
    path = tmp_path / "alpaca.json"
    path.write_text(json.dumps(rows))
    splits = read(Data(path=str(path)), Split(), 1, CONVERSATIONS)
    assert len(splits.train) + len(splits.validation) + len(splits.test) == 52_000


# --- fitting


@pytest.fixture
def prompter() -> ChatEncoder:
    return ChatEncoder.of(Prompt(template="alpaca-short"), tiny.byte_tokenizer())


def test_what_is_cut_is_the_prompt(prompter: ChatEncoder) -> None:
    about = "x" * 300 + " 🙂" * 10
    messages = [Message("user", "Add.", about), Message("assistant", "the whole answer")]
    whole = len(prompter.encode([messages])[0][0])
    for limit in (whole, whole - 1, whole - 2, whole - 30, whole - 200):
        rows, changes = truncation.encode(["r"], [messages], prompter, [limit], "truncate")
        assert len(rows[0]) <= limit
        text = prompter.tokenizer.decode([label for label in rows[0].labels if label != IGNORE])
        assert text == "the whole answer<eos>"
        assert "### Instruction:\nAdd." in prompter.tokenizer.decode(rows[0].ids)
        assert bool(changes) == (limit < whole)
    assert changes[0].what.startswith("cut: the prompt")


def test_earlier_turns_go_first(prompter: ChatEncoder) -> None:
    talk = [Message(("user", "assistant")[i % 2], f"turn {i} " * 5) for i in range(6)]  # type: ignore[arg-type]
    limit = len(prompter.encode([talk[2:]])[0][0])
    rows, _ = truncation.encode(["r"], [talk], prompter, [limit], "truncate")
    assert rows[0].ids == prompter.encode([talk[2:]])[0][0]


def test_policies(prompter: ChatEncoder) -> None:
    short = [Message("user", "a"), Message("assistant", "b")]
    long = [Message("user", "a"), Message("assistant", "b" * 500)]
    limit = len(prompter.encode([short])[0][0])
    names, talks, limits = ["short", "long"], [short, long], [limit, limit]
    for policy in ("truncate", "drop"):
        rows, changes = truncation.encode(names, talks, prompter, limits, policy)
        assert [row.id for row in rows] == ["short"]
        assert changes[-1].what.startswith("left out")
        assert changes[-1].where == ("long",)
    with pytest.raises(DataError, match=r"(?s)long: too long.*found: \d+ tokens"):
        truncation.encode(names, talks, prompter, limits, "error")


def test_prompts_to_answer_are_cut_alike(prompter: ChatEncoder) -> None:
    ask = [Message("user", "Add.", "x" * 300)]
    whole = len(prompter.encode_prompts([ask])[0])
    found, cut = truncation.encode_prompts([ask, ask[:1]], prompter, whole - 10)
    assert cut == [0, 1]
    assert all(len(ids) <= whole - 10 for ids in found)
    assert truncation.encode_prompts([ask], prompter, 20) == ([None], [0])


def test_where_the_input_is_used_up_the_instruction_is_cut(prompter: ChatEncoder) -> None:
    talk = [Message("user", "Count. " * 50, "1 2 3"), Message("assistant", "3")]
    limit = len(prompter.encode([[Message("user", "Count. "), talk[1]]])[0][0])
    rows, changes = truncation.encode(["r"], [talk], prompter, [limit], "truncate")
    assert prompter.tokenizer.decode(rows[0].ids).endswith("### Instruction:\nCount. \n\n### Response:\n3<eos>")
    assert [change.what for change in changes] == ["cut: the prompt, to fit model.max_length"]
    found, cut = truncation.encode_prompts([talk[:1]], prompter, limit - 2)
    assert found == [rows[0].ids[: limit - 2]]
    assert cut == [0]
