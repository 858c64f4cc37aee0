"""The journal keeps whole records of any kind, and says which line is damaged."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tunesmith.endpoints.chat_client import ONE_REQUEST, ClientIdentity
from tunesmith.endpoints.journal import Journal, file_name, request_key
from tunesmith.endpoints.token_usage import TokenUsage
from tunesmith.errors import EndpointError
from tunesmith.types import Message

SMALL = ClientIdentity(api="openai", url="http://127.0.0.1/v1", model="org/small", max_tokens=64, extra={})


@dataclass(frozen=True)
class Label:
    """A record as another command than the judge would keep it."""

    label: str
    votes: tuple[int, ...]
    failure: str = ""
    usage: TokenUsage = ONE_REQUEST


def test_records_survive_the_process(tmp_path: Path) -> None:
    path = tmp_path / "new" / "labels.jsonl"
    journal = Journal(path, Label)
    journal.add("a", Label("grüße\n", (1, 2)))
    journal.add("b", Label("", (), failure="HTTP 500"))
    again = Journal(path, Label)
    assert dict(again) == {"a": Label("grüße\n", (1, 2)), "b": Label("", (), failure="HTTP 500")}
    assert [again.has_reply(key) for key in "abc"] == [True, False, False]
    assert len(path.read_text(encoding="utf-8").splitlines()) == 2


def test_the_last_record_of_a_key_counts(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "labels.jsonl", Label)
    journal.add("a", Label("", (), failure="HTTP 500"))
    journal.add("a", Label("ham", (3,)))
    assert dict(Journal(journal.path, Label)) == {"a": Label("ham", (3,))}
    assert Journal(journal.path, Label).has_reply("a")


def test_records_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "labels.jsonl", Label)
    for number in range(100):
        journal.add(str(number), Label("ü" * number * 100, (number,)))
    again = Journal(journal.path, Label)
    assert list(again) == list(journal) == [str(number) for number in range(100)]
    assert again["99"].votes == (99,)
    assert len(again["37"].label) == 3700
    with pytest.raises(KeyError):
        again["100"]
    lines = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(b"".join(lines[1:]))
    with pytest.raises(EndpointError, match=r"labels\.jsonl was changed while it was in use"):
        again["37"]


def test_reading_an_empty_journal_makes_no_file(tmp_path: Path) -> None:
    assert not Journal(tmp_path / "labels.jsonl", Label)
    assert not list(tmp_path.iterdir())


def test_a_line_that_another_process_left_cut_off_is_dropped_before_the_next(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "labels.jsonl", Label)
    journal.add("a", Label("ham", (3,)))
    with journal.path.open("ab") as file:
        file.write(b'{"key": "b", "label": "' + b"x" * 10_000)
    journal.add("c", Label("spam", ()))
    assert dict(Journal(journal.path, Label)) == dict(journal) == {"a": Label("ham", (3,)), "c": Label("spam", ())}


@pytest.mark.parametrize("kept", [0, 1, 20])
def test_a_line_that_a_kill_cut_off_is_dropped(tmp_path: Path, kept: int) -> None:
    journal = Journal(tmp_path / "labels.jsonl", Label)
    journal.add("a", Label("ham", (3,)))
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole + whole.replace(b"ham", b"spam")[:kept])
    again = Journal(journal.path, Label)
    assert dict(again) == {"a": Label("ham", (3,))}
    assert journal.path.read_bytes() == whole
    again.add("b", Label("spam", ()))
    assert list(Journal(journal.path, Label)) == ["a", "b"]


@pytest.mark.parametrize("line", ["{}", "no JSON", "[]", '{"key": "a", "label": "ham"}', '{"key": "a", "label": 1}'])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "labels.jsonl"
    Journal(path, Label).add("a", Label("ham", ()))
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(EndpointError, match=r"labels\.jsonl:2: damaged"):
        Journal(path, Label)


def test_a_file_name_holds_the_name_and_the_address() -> None:
    name = file_name("org/small", SMALL)
    assert name.startswith("org-small-")
    others = [replace(SMALL, url="http://127.0.0.1/v2"), replace(SMALL, api="ollama"), replace(SMALL, model="small")]
    assert len({name, *(file_name("org/small", other) for other in others)}) == 4
    assert file_name("org/small", replace(SMALL, max_tokens=1)) == name  # the keys of the requests differ
    assert file_name("../..", SMALL).startswith("model-")


def test_a_key_changes_with_all_that_could_change_a_reply() -> None:
    ask = [Message("system", "s"), Message("user", "q")]
    key = request_key(SMALL, ask, 1)
    assert key == request_key(replace(SMALL), list(ask), 1)
    changed = [
        request_key(replace(SMALL, max_tokens=65), ask, 1),
        request_key(replace(SMALL, extra={"top_p": 1}), ask, 1),
        request_key(SMALL, ask[1:], 1),
        request_key(SMALL, [ask[0], Message("user", "q", "about this")], 1),
        request_key(SMALL, ask, 2),
        request_key(SMALL, ask, 1, temperature=0.7),
        request_key(SMALL, ask, 1, schema={"type": "object"}),
        request_key(SMALL, ask, 1, top_logprobs=5),
        request_key(SMALL, ask, 1, temperature=5),
    ]
    assert len({key, *changed}) == 10
    assert key == request_key(SMALL, ask, 1, temperature=0.0, schema=None, top_logprobs=0)


def test_keys_of_earlier_versions_stay_valid() -> None:
    """A judge that was interrupted before an update asks nothing twice after it."""
    assert request_key(SMALL, [Message("system", "s"), Message("user", "q")], 1) == KEY_OF_0_1
    local = ClientIdentity(api="local", model="m", max_tokens=8, constrained=True, dtype="float32")
    assert request_key(local, [Message("user", "q")], 2) == LOCAL_KEY_OF_0_1


KEY_OF_0_1 = "dd5562111b0c4e470df8708686f8da55"
LOCAL_KEY_OF_0_1 = "350181f20ef10805c5a8761231d01fbc"
