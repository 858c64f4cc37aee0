"""A thousand requests to a server that misbehaves in every way, kills at random moments, speed and memory."""

from __future__ import annotations

import gc
import json
import random
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import forked
from tests.endpoint_requests import FakeClient, Kept, requests, run
from tests.endpoint_server import Request, Server, response, serving
from tunesmith.endpoints import client
from tunesmith.endpoints.chat_client import ClientIdentity, EndpointReply, EndpointRequest
from tunesmith.endpoints.client import EndpointClient
from tunesmith.endpoints.completion import CompletionTotals, complete
from tunesmith.endpoints.journal import Journal
from tunesmith.endpoints.spending_limit import SpendingLimit
from tunesmith.endpoints.token_usage import TokenPrices, TokenUsage
from tunesmith.errors import EndpointError

ROWS = 1000
PASSING: list[Any] = [
    (429, {}, b"{}"),
    (429, {"Retry-After": "0.05"}, b"{}"),
    (500, {}, b"oops"),
    (503, {"Retry-After": "0"}, b""),
    "drop",
    "reset",
    "cut",
    (200, {}, b"<!DOCTYPE html><title>502 Bad Gateway</title>"),
    (200, {}, b'{"choices": []}'),
    (200, {}, b'{"choices": [{"message": {"content": null, "logprobs": '),
]
"""What passes when a request is sent again."""
HANGS = range(50, ROWS, 100)
"""Few, as each takes the whole of the client's timeout."""
FAILING = range(20, ROWS, 40)
"""Requests that never have a reply: twenty-five of a thousand."""
TIMEOUT = 3.0


def number(request: Request) -> int:
    return int(request.user.split()[1])


def reply_of(row: int) -> bytes:
    """Whatever a model may say: it counts as a reply, with as many tokens as the row says."""
    tokens = [{"token": "ham", "logprob": -0.1, "top_logprobs": [{"token": "ham", "logprob": -0.1}]}]
    kinds: list[dict[str, Any]] = [
        {"message": {"content": "ham"}, "logprobs": {"content": tokens}},
        {"message": {"content": "a label that nobody knows"}},
        {"message": {"content": None, "refusal": "I cannot help with that."}},
        {"message": {"content": "ham"}, "logprobs": None},
        {"message": {"content": "ham spam"}, "logprobs": {"content": tokens}},
        {"message": {"content": "ham"}, "logprobs": {"content": [{"token": "ham"}]}},
        {"message": {"content": "x" * 2**20}, "finish_reason": "length"},
        {"message": {"content": ""}},
    ]
    model = "another-model" if row % 3 else "small"
    kind = kinds[row % 7] if row % 97 else kinds[6]  # a megabyte each is enough of ten
    return response(kinds[7] if row % 7 == 6 and row % 97 else kind, prompt=100 + row, written=row % 13, model=model)


class Misbehaving:
    """Every third row has trouble first, of each kind in turn, once or twice; the others are answered at once."""

    def __init__(self) -> None:
        self.tries: Counter[int] = Counter()
        self.answered: Counter[int] = Counter()

    def __call__(self, request: Request) -> Any:
        row = number(request)
        self.tries[row] += 1
        if row in FAILING:
            return PASSING[row // 40 % len(PASSING)]
        if row in HANGS and self.tries[row] == 1:
            return "hang"
        if row % 3 == 0 and self.tries[row] <= 1 + row % 2:
            return PASSING[row // 3 % len(PASSING)]
        self.answered[row] += 1
        return 200, {}, reply_of(row)


def ask(server: Server, path: Path, numbers: Any = range(ROWS), limit: SpendingLimit | None = None) -> CompletionTotals:
    endpoint = EndpointClient("openai", server.url, "small", concurrency=16, timeout=TIMEOUT, max_retries=3)
    return complete(endpoint, requests(numbers), Journal(path, Kept), Kept.of, title="test", limit=limit)


def test_of_a_thousand_requests_none_is_lost_and_none_sent_again_after_its_reply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "INITIAL_BACKOFF", 0.01)
    path = tmp_path / "j.jsonl"
    endpoint = Misbehaving()
    with serving(endpoint, hang=2 * TIMEOUT) as server:
        totals = ask(server, path)
        sent, first = len(server.requests), Counter(endpoint.tries)
        again = ask(server, path)
        assert {number(request) for request in server.requests[sent:]} == set(FAILING)
    answered = set(range(ROWS)) - set(FAILING)
    assert endpoint.answered == Counter(answered)
    assert (totals.sent, totals.reused, totals.failed) == (ROWS, 0, len(FAILING))
    assert (again.sent, again.reused, again.failed) == (len(FAILING), len(answered), len(FAILING))
    troubles = {row: 1 if row in HANGS else (1 + row % 2) * (row % 3 == 0) for row in answered}
    assert first == {row: 1 + troubles.get(row, 3) for row in range(ROWS)}
    assert totals.usage == TokenUsage(sum(100 + row for row in answered), sum(row % 13 for row in answered), sent)
    assert totals.retries == sent - ROWS == sum(troubles.values()) + 3 * len(FAILING)
    assert again.usage == TokenUsage(requests=4 * len(FAILING))
    journal = Journal(path, Kept)
    assert {int(key) for key, kept in journal.items() if kept.failure} == set(FAILING)
    for row in answered:
        message = json.loads(reply_of(row))["choices"][0]["message"]
        text = message["content"] or message.get("refusal") or ""
        assert journal[str(row)] == Kept(text, TokenUsage(100 + row, row % 13, 1 + troubles[row]))


def test_a_budget_holds_at_a_server_that_misbehaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "INITIAL_BACKOFF", 0.01)
    endpoint = Misbehaving()
    limit = SpendingLimit(25_000, TokenPrices(1e6, 0), ClientIdentity(api="openai", model="small", max_tokens=512))
    with (
        serving(endpoint, hang=2 * TIMEOUT) as server,
        pytest.raises(EndpointError, match="the budget of 25000 does not allow another request"),
    ):
        ask(server, tmp_path / "j.jsonl", range(200), limit)
    assert set(endpoint.answered.values()) == {1}
    assert 25_000 - 600 < sum(100 + row for row in endpoint.answered) <= 25_000


def complete_rows(url: str, path: str, rows: int) -> None:
    """What is killed."""
    endpoint = EndpointClient("openai", url, "small", concurrency=8)
    complete(endpoint, requests(range(rows)), Journal(Path(path), Kept), Kept.of, title="test")


def test_after_twenty_kills_the_journal_is_that_of_an_undisturbed_run(tmp_path: Path) -> None:
    rows, draw = 600, random.Random(5)
    path, undisturbed = tmp_path / "killed.jsonl", tmp_path / "undisturbed.jsonl"
    kills = 0
    with serving(lambda one: f"re {one.user}", delay=0.004) as server:
        while True:
            known = set(Journal(path, Kept)) if path.exists() else set()
            before = len(server.requests)
            process = forked.start(tmp_path / "said", complete_rows, server.url, str(path), rows)
            moment = before + draw.randint(1, 25) if kills < 20 else rows**2
            while process.is_alive() and len(server.requests) < moment:
                time.sleep(0.001)
            time.sleep(draw.uniform(0, 0.02))
            kills += process.is_alive()
            process.kill()
            process.join()
            assert not known & {str(number(request)) for request in server.requests[before:]}
            if process.exitcode == 0:
                break
        assert kills == 20
        complete_rows(server.url, str(undisturbed), rows)
    assert dict(Journal(path, Kept)) == dict(Journal(undisturbed, Kept))
    lines = path.read_text().splitlines()
    assert len(lines) == len(set(lines)) == rows
    assert len(server.requests) <= 2 * rows + 20 * 8  # what was on its way at a kill is sent again


def add_records(path: str, name: str) -> None:
    """One of several processes that write to one journal."""
    journal = Journal(Path(path), Kept)
    for index in range(200):
        journal.add(f"{name}{index}", Kept(name * (index * 97 % 20_000), TokenUsage(requests=index)))
    for index in range(200):
        assert journal[f"{name}{index}"].usage.requests == index


def test_processes_may_write_to_one_journal_at_once(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    path.write_bytes(b'{"key": "half a li')
    processes = [forked.start(tmp_path / name, add_records, str(path), name) for name in "abc"]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0], (tmp_path / "a.err").read_text()
    journal = Journal(path, Kept)
    assert len(journal) == len(path.read_text().splitlines()) == 600
    assert all(kept.text == key[0] * (kept.usage.requests * 97 % 20_000) for key, kept in journal.items())


def test_overhead_allows_two_hundred_requests_a_second_of_cpu(tmp_path: Path) -> None:
    """Server and client together: the client alone takes about 0.6 ms."""
    rows = 2000
    with serving(lambda _: "ham") as server:
        start = time.process_time()
        totals = ask(server, tmp_path / "j.jsonl", range(rows))
        seconds = time.process_time() - start
    assert totals.sent == len(server.requests) == rows
    assert seconds / rows < 1 / 200


def test_memory_does_not_grow_with_the_number_of_requests(tmp_path: Path) -> None:
    """But for the journal's index: a key and a place, about 150 bytes."""
    marks: dict[int, int] = {}

    def lazily() -> Iterator[EndpointRequest]:
        for row, request in enumerate(requests(range(10_000))):
            if row in (1_000, 9_999):
                gc.collect()
                marks[row] = tracemalloc.get_traced_memory()[0]
            yield request

    class Forgetful(FakeClient):
        def replies(self, requests: Any) -> Any:
            for request in requests:
                yield request, EndpointReply("x" * 1000, TokenUsage(1, 1, 1))

    tracemalloc.start()
    try:
        totals = run(tmp_path, Forgetful(), lazily())
    finally:
        tracemalloc.stop()
    assert totals.sent == 10_000
    assert (marks[9_999] - marks[1_000]) / 9_000 < 250
