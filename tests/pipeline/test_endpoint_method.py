"""Method `endpoint`: what is asked, what it costs, and what is made of the replies."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tests.conftest import write_csv
from tests.endpoint_server import Request, Server, serving
from tunesmith.errors import EndpointError, RecipeError
from tunesmith.evaluation.determinism import Determinism
from tunesmith.pipeline.commands.compare import compare
from tunesmith.pipeline.commands.predict import predict
from tunesmith.pipeline.commands.train import train
from tunesmith.types import PredictionRow, ResponseRow

KEY = "sk-not-to-be-seen-anywhere"
LABELS = ("sport", "tech", "world")


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_ENDPOINT_KEY", KEY)
    monkeypatch.delenv("TUNESMITH_ENDPOINT_MODEL", raising=False)


def label_of(text: str) -> str:
    """A label that the words of a text alone decide."""
    return LABELS[sum(map(ord, text)) % 3]


def act(request: Request) -> str:
    return label_of(request.block("TEXT"))


def with_logprobs(request: Request) -> Any:
    """A reply whose tokens say 0.7 for the label, 0.2 and 0.1 for the next ones."""
    place = LABELS.index(act(request))
    shares = {LABELS[(place + step) % 3]: share for step, share in enumerate((0.7, 0.2, 0.1))}
    top = [{"token": label, "logprob": math.log(share)} for label, share in shares.items()]
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": LABELS[place]},
        "finish_reason": "stop",
        "logprobs": {"content": [{**top[0], "top_logprobs": top}]},
    }
    usage = {"prompt_tokens": 50, "completion_tokens": 2}
    body = {"model": "small-2026-11", "system_fingerprint": "fp_7", "choices": [choice], "usage": usage}
    return 200, {}, json.dumps(body).encode()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(with_logprobs) as started:
        yield started


def settings(server: Server, *more: str) -> list[str]:
    return [f"endpoint.url={server.url}", "endpoint.model=small", "method=endpoint", "endpoint.max_retries=0", *more]


def asked(server: Server) -> list[str]:
    return [request.block("TEXT") for request in server.requests]


def test_only_test_rows_are_asked_and_twenty_of_them_twice(server: Server, reviews: Path) -> None:
    run = train(str(reviews), settings(server, "split.test_size=30"))
    rows = run.predictions("test", PredictionRow)
    assert len(rows) == 30
    assert len(server.requests) == 30 + 20
    assert len(set(asked(server))) == 30
    texts = {f"reviews.csv:{number}": text for number, (text, _) in enumerate(tiny.texts(240), 2)}
    assert [row.label for row in rows] == [label_of(texts[row.id]) for row in rows]
    assert sorted(rows[0].probabilities) == pytest.approx([0.1, 0.2, 0.7], abs=1e-12)
    assert run.load("determinism.json", Determinism) == Determinism(20, 0, 0)
    assert not run.has("predictions/validation.jsonl")


def test_costs_are_what_the_server_counted_and_the_key_is_nowhere(server: Server, reviews: Path) -> None:
    prices = "endpoint.prices={small: [2, 10]}"
    run = train(str(reviews), settings(server, "split.test_size=30", prices))
    costs = run.finished.costs.endpoint
    assert costs is not None
    assert (costs.prompt_tokens, costs.completion_tokens, costs.requests) == (1500, 60, 30)
    assert costs.price == pytest.approx((1500 * 2 + 60 * 10) / 1e6)
    assert costs.model == "small-2026-11 (fp_7)"
    assert 0 < costs.latency[0] <= costs.latency[1] <= costs.latency[2]
    assert all(request.headers["authorization"] == f"Bearer {KEY}" for request in server.requests)
    assert not [path for path in Path().rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_a_second_run_and_new_predictions_ask_only_what_is_new(server: Server, reviews: Path) -> None:
    first = train(str(reviews), settings(server, "split.test_size=30"))
    before = len(server.requests)
    second = train(str(reviews), settings(server, "split.test_size=30"))
    assert len(server.requests) == before
    assert second.predictions("test", PredictionRow) == first.predictions("test", PredictionRow)
    costs = second.finished.costs
    assert costs.endpoint is not None
    assert costs.endpoint.reused == 30
    assert costs.seconds_per_1000 == first.finished.costs.seconds_per_1000
    known, new = asked(server)[0], "never seen before"
    rows = predict(first.path, [known, new])
    assert [row["label"] for row in rows] == [label_of(known), label_of(new)]
    assert asked(server)[before:] == [new]


def test_a_run_that_a_failure_ended_goes_on_with_the_rest(reviews: Path) -> None:
    broken: list[str] = []

    def sometimes(request: Request) -> Any:
        text = request.block("TEXT")
        if len(broken) < 3 and text not in broken:
            broken.append(text)
            return 500, {}, b"no"
        return label_of(text)

    with serving(sometimes) as server:
        words = settings(server, "split.test_size=30", "endpoint.logprobs=false", "endpoint.concurrency=1")
        with pytest.raises(EndpointError, match="did not reply to 3 of 30"):
            train(str(reviews), words, run_dir="run")
        assert len(server.requests) == 30
        run = train(resume="run")
        assert len(server.requests) == 30 + 3 + 20
        rows = run.predictions("test", PredictionRow)
        assert {row.label for row in rows} <= set(LABELS)
        assert all(len(row.probabilities) == 0 for row in rows)


def test_a_budget_refuses_before_the_first_request(server: Server, reviews: Path) -> None:
    words = settings(server, "endpoint.budget=0.001", "endpoint.prices={small: [2, 10]}")
    with pytest.raises(RecipeError, match=r"would cost about 0\.0\d, more than endpoint.budget"):
        train(str(reviews), words)
    with pytest.raises(RecipeError, match="prices of small are unknown"):
        train(str(reviews), settings(server, "endpoint.budget=1"))
    with pytest.raises(RecipeError, match="no model for method endpoint"):
        train(str(reviews), ["method=endpoint"])
    assert server.requests == []


def test_replies_that_are_no_label_are_wrong_and_said(reviews: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serving(lambda request: "I would rather not say") as server:
        run = train(str(reviews), settings(server, "split.test_size=30"))
    rows = run.predictions("test", PredictionRow)
    assert {row.label for row in rows} == {""}
    assert "30 of 30 replies are no label: 'I would rather not say'" in caplog.text


def test_a_text_that_the_server_refuses_is_an_invalid_row_and_not_the_end(
    reviews: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def filtered(request: Request) -> Any:
        if "coach" in request.block("TEXT"):
            return 400, {}, json.dumps({"error": {"message": "filtered", "code": "content_filter"}}).encode()
        return with_logprobs(request)

    with serving(filtered) as server:
        run = train(str(reviews), settings(server, "split.test_size=30"))
    texts = {f"reviews.csv:{number}": text for number, (text, _) in enumerate(tiny.texts(240), 2)}
    rows = run.predictions("test", PredictionRow)
    refused = [row for row in rows if "coach" in texts[row.id]]
    assert 0 < len(refused) < 30
    assert {row.label for row in refused} == {""}
    assert all(row.label for row in rows if row not in refused)
    assert f"{len(refused)} empty: refused by the endpoint's content filter" in caplog.text


def test_several_samples_make_probabilities(reviews: Path) -> None:
    def by_seed(request: Request) -> str:
        return LABELS[(0, 0, 0, 2)[(request.body["seed"] - 42) % 4]]

    with serving(by_seed) as server:
        run = train(str(reviews), settings(server, "split.test_size=30", "endpoint.samples=4"))
        assert len(server.requests) == 4 * (30 + 20)
        assert {request.body["temperature"] for request in server.requests} == {1.0}
        assert not any("logprobs" in request.body for request in server.requests)
    for row in run.predictions("test", PredictionRow):
        assert row.label == "sport"
        assert list(row.probabilities) == [0.75, 0, 0.25]


def test_decisions_change_labels_by_the_probabilities(server: Server, reviews: Path) -> None:
    costs = {gold: {label: 100 if label == "sport" else 1 for label in LABELS if label != gold} for gold in LABELS}
    run = train(str(reviews), settings(server, "split.test_size=30", f"decide.costs={json.dumps(costs)}"))
    assert len(server.requests) == 30 + 20 + len(run.predictions("validation", PredictionRow))
    for row in run.predictions("test", PredictionRow):
        gold = dict(zip(LABELS, row.probabilities, strict=True))
        expected = {label: sum(p * costs[name].get(label, 0) for name, p in gold.items()) for label in LABELS}
        assert row.label == min(expected, key=lambda label: expected[label])


def test_shots_come_from_train_and_travel_with_the_model(server: Server, reviews: Path) -> None:
    descriptions = "data.label_descriptions={sport: 'games, of any kind'}"
    run = train(str(reviews), settings(server, "split.test_size=30", "endpoint.shots=6", descriptions))
    messages = [request.body["messages"] for request in server.requests]
    assert [message["role"] for message in messages[0]] == ["system", *["user", "assistant"] * 6, "user"]
    assert all(other[:-1] == messages[0][:-1] for other in messages)  # the same for every text
    answers = [message["content"] for message in messages[0] if message["role"] == "assistant"]
    assert sorted(answers) == sorted(LABELS * 2)
    by_text = dict(tiny.texts(240))
    shown = [message["content"].splitlines()[1] for message in messages[0] if message["role"] == "user"][:-1]
    assert [by_text[text] for text in shown] == answers
    assert set(shown).isdisjoint(asked(server))
    assert "sport: games, of any kind" in messages[0][0]["content"]
    predict(run.path, ["something new"])
    assert server.requests[-1].body["messages"][:-1] == messages[0][:-1]


def test_several_models_are_several_methods_of_one_comparison(server: Server, reviews: Path) -> None:
    words = [f"endpoint.url={server.url}", "split.test_size=30"]
    comparison = compare([str(reviews)], words, methods=["linear", "endpoint:small", "endpoint:org/large:8b"])
    names = [method.name for method in comparison.report.methods]
    assert names == ["linear", "endpoint:small", "endpoint:org/large:8b"]
    assert {request.body["model"] for request in server.requests} == {"small", "org/large:8b"}
    assert (comparison.path / "endpoint-org-large-8b").is_dir()


def test_instructions_are_answered(tmp_path: Path) -> None:
    path = tmp_path / "instructions.json"
    rows = [{"instruction": f"Say {n}.", "output": f"It is {n}."} for n in range(40)]
    path.write_text(json.dumps(rows), encoding="utf-8")
    with serving(lambda request: f"As you say: {request.user}") as server:
        words = settings(server, "task=instruction", "prompt.system=Be brief.", "split.test_size=10")
        run = train(str(path), words)
        answers = run.predictions("test", ResponseRow)
        assert len(server.requests) == 2 * len(answers)
    assert [row.response for row in answers] == [f"As you say: {row.prompt}" for row in answers]
    assert all(row.loss is None for row in answers)
    assert {request.body["messages"][0]["content"] for request in server.requests} == {"Be brief."}
    assert run.has("README.md")
    assert "loss" not in run.read("scores.json")["headline"]
    assert compare([str(run.path), str(run.path)]).page.is_file()


def test_numbers_and_sets_of_labels(tmp_path: Path) -> None:
    rows = [(f"text {n} of many", n % 5) for n in range(120)]
    path = write_csv(tmp_path / "stars.csv", rows)
    with serving(lambda request: json.dumps({"number": int(request.block("TEXT").split()[1]) % 5})) as server:
        run = train(str(path), settings(server, "task=regression", "split.test_size=30"))
    scores = run.read("scores.json")["headline"]
    assert scores["rmse"]["value"] == 0
    with serving(lambda request: "a lot") as server:
        run = train(str(path), settings(server, "task=regression", "split.test_size=30", "output_dir=other"))
    assert abs(run.read("scores.json")["headline"]["r2"]["value"]) < 0.1  # the mean of train


def test_sets_of_labels(tmp_path: Path) -> None:
    names = ("red", "green", "blue")
    rows = [(f"text {n} of many", "|".join(name for k, name in enumerate(names) if n >> k & 1)) for n in range(120)]
    path = write_csv(tmp_path / "colours.csv", rows)

    def listed(request: Request) -> str:
        number = int(request.block("TEXT").split()[1])
        return ", ".join(name for k, name in enumerate(names) if number >> k & 1) or "none"

    with serving(listed) as server:
        words = settings(server, "task=multilabel", "data.label_separator='|'", "split.test_size=30")
        run = train(str(path), words)
    assert run.read("scores.json")["headline"]["micro_f1"]["value"] == 1
