"""Many requests: what is sent, what is not sent again, what it cost, and where it stops."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.endpoint_requests import FakeClient, Kept, answer, requests, run
from tunesmith.endpoints.chat_client import EndpointReply, EndpointRequest
from tunesmith.endpoints.journal import Journal
from tunesmith.endpoints.spending_limit import SpendingLimit
from tunesmith.endpoints.token_usage import TokenPrices, TokenUsage
from tunesmith.errors import EndpointError


def test_each_request_is_sent_once_and_never_again(tmp_path: Path) -> None:
    client = FakeClient()
    totals = run(tmp_path, client, requests([1, 2, 3, 2, 1, 4, 5, 1]))
    assert (totals.sent, totals.reused, totals.failed, totals.usage) == (5, 3, 0, TokenUsage(500, 35, 5))
    assert Counter(client.sent) == Counter("12345")
    totals = run(tmp_path, client, list(requests(range(1, 8))))
    assert (totals.sent, totals.reused, totals.usage) == (2, 5, TokenUsage(200, 14, 2))
    assert Counter(client.sent) == Counter("1234567")
    journal = Journal(tmp_path / "j.jsonl", Kept)
    assert {key: kept.text for key, kept in journal.items()} == {key: f"re {key}" for key in "1234567"}


def test_a_failed_request_is_counted_and_sent_again_by_the_next_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def act(request: EndpointRequest) -> EndpointReply:
        usage = TokenUsage(requests=6)
        failure = {"2": "HTTP 500", "4": "HTTP 500", "6": "a broken connection"}.get(request.key)
        return EndpointReply(failure=failure, usage=usage, waited=1.5) if failure else answer(request)

    client = FakeClient(act)
    totals = run(tmp_path, client, requests([*range(10), 2, 2]))
    assert (totals.sent, totals.reused, totals.failed) == (10, 2, 3)
    assert (totals.usage, totals.retries, totals.waited) == (TokenUsage(700, 49, 25), 15, 4.5)
    (warning,) = caplog.messages
    assert "3 of 10 requests had no reply (HTTP 500: 2, a broken connection: 1)" in warning
    client = FakeClient()
    assert run(tmp_path, client, requests(range(10))).sent == 3
    assert sorted(client.sent) == ["2", "4", "6"]
    assert not any(kept.failure for kept in Journal(tmp_path / "j.jsonl", Kept).values())


def test_replies_before_an_error_are_kept(tmp_path: Path) -> None:
    def act(request: EndpointRequest) -> EndpointReply:
        if request.key == "13":
            raise EndpointError("the endpoint is gone", do="start it")
        return answer(request)

    with pytest.raises(EndpointError, match=r"the endpoint is gone\n.*start it\n.*kept: 1\d replies in .*j\.jsonl"):
        run(tmp_path, FakeClient(act), requests(range(50)))
    kept = set(Journal(tmp_path / "j.jsonl", Kept))
    client = FakeClient()
    run(tmp_path, client, requests(range(50)))
    assert set(client.sent) == {str(key) for key in range(50)} - kept


def limit(budget: float) -> SpendingLimit:
    """A token costs 1."""
    return SpendingLimit(budget, TokenPrices(1e6, 1e6), FakeClient.identity)


@pytest.mark.parametrize("prices", [None, TokenPrices(1.0, None), TokenPrices(None, 1.0)])
def test_a_budget_needs_prices(prices: TokenPrices | None) -> None:
    with pytest.raises(EndpointError, match="cannot keep to a budget of 5 without prices"):
        SpendingLimit(5, prices, FakeClient.identity)


def test_a_budget_is_used_up_and_never_exceeded(tmp_path: Path) -> None:
    """A reply costs 107; a request reserves over 519, of which the server then uses a fifth."""
    client = FakeClient(concurrency=16)
    with pytest.raises(EndpointError, match="the budget of 20000 does not allow another request") as raised:
        run(tmp_path, client, requests(range(1000)), limit(20_000))
    spent = 107 * len(Journal(tmp_path / "j.jsonl", Kept))
    assert len(client.sent) == spent / 107
    assert 20_000 - 550 < spent <= 20_000
    assert f"{spent:.4g} spent" in str(raised.value)
    client = FakeClient()  # what was spent before counts: nothing is left
    with pytest.raises(EndpointError, match="does not allow another"):
        run(tmp_path, client, requests(range(1000)), limit(20_000))
    assert not client.sent
    with pytest.raises(EndpointError, match="does not allow another"):
        run(tmp_path, client, requests(range(1000)), limit(30_000))
    assert 30_000 - 550 < spent + 107 * len(client.sent) <= 30_000


def test_a_budget_of_several_calls_counts_each_reply_once(tmp_path: Path) -> None:
    shared = limit(11_300)
    client = FakeClient(concurrency=16)
    for last in (30, 60, 60, 100):
        run(tmp_path, client, requests(range(last)), shared)
    assert len(client.sent) == 100
    assert shared.spent == pytest.approx(10_700)
    run(tmp_path, FakeClient(lambda request: EndpointReply(failure="HTTP 500")), requests([100]), shared)
    with pytest.raises(EndpointError, match="does not allow another"):
        run(tmp_path, client, requests(range(100, 200)), shared)
    assert shared.spent == pytest.approx(107 * len(client.sent))
    assert 11_300 - 550 < shared.spent <= 11_300


def test_a_server_that_counts_no_tokens_uses_up_the_budget_too(tmp_path: Path) -> None:
    client = FakeClient(lambda request: EndpointReply("yes"))
    with pytest.raises(EndpointError, match="does not allow another"):
        run(tmp_path, client, requests(range(1000)), limit(20_000))
    assert len(client.sent) == 20_000 // (512 + 7 + len("s") + len("question 10") + 2)


def test_requests_are_taken_when_there_is_room(tmp_path: Path) -> None:
    taken = 0

    def lazily() -> Iterator[EndpointRequest]:
        nonlocal taken
        for request in requests(range(200)):
            taken += 1
            assert taken <= replied + 5
            yield request

    replied = 0

    def act(request: EndpointRequest) -> EndpointReply:
        nonlocal replied
        replied += 1
        return answer(request)

    client = FakeClient(act)
    assert run(tmp_path, client, lazily()).sent == taken == 200
    assert client.most == 4


def test_the_journal_says_what_was_written(tmp_path: Path) -> None:
    run(tmp_path, FakeClient(), requests([1]))
    (line,) = (tmp_path / "j.jsonl").read_text().splitlines()
    usage = {"prompt_tokens": 100, "completion_tokens": 7, "requests": 1}
    assert json.loads(line) == {"key": "1", "text": "re 1", "usage": usage, "failure": ""}
