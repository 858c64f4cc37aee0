"""The server's routes: answers, refusals, limits, keys, and that no request gets another's answer."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import random
import threading
import time
from typing import Any

import httpx2 as httpx
import pytest

from tests.serving_fakes import (
    FakeClassifier,
    FakeGenerator,
    FakeTagger,
    answered,
    application,
    classifier,
    client,
    error,
    generator,
    message,
    post,
    regressor,
    run,
    tagger,
)
from tunesmith.protocols import AnswerRequest
from tunesmith.serving.generation_stream import StopSequences
from tunesmith.types import Response


def test_one_input_and_many() -> None:
    predictor = FakeClassifier()
    made = application(classifier(model=predictor))
    one = post(made, "/predict", {"inputs": "some text"}).json()
    alone = predictor.alone("some text")
    assert one["model"] == "labels"
    (found,) = one["predictions"]
    assert found["label"] == alone.label
    assert found["score"] == max(alone.probabilities)
    assert found["scores"] == dict(zip(predictor.labels, alone.probabilities, strict=True))
    assert list(found["scores"].values()) == sorted(alone.probabilities, reverse=True)
    many = post(made, "/predict", {"inputs": ["x", {"text": "some text"}], "top_k": 2, "model": "labels"}).json()
    assert [len(row["scores"]) for row in many["predictions"]] == [2, 2]
    assert many["predictions"][1]["score"] == found["score"]


def test_pairs() -> None:
    made = application(classifier(pairs=True))
    found = post(made, "/predict", {"inputs": {"text": "ab", "text_pair": "c"}}).json()
    assert found["predictions"][0]["label"] == FakeClassifier().alone("abc").label
    for wrong in ("text", {"text": "a"}, ["x"]):
        assert error(post(made, "/predict", {"inputs": wrong}))["code"] == "wrong_input"
    assert error(post(application(classifier()), "/predict", {"inputs": {"text": "a", "text_pair": "b"}}))["message"]


def test_explanations() -> None:
    predictor = FakeClassifier()
    made = application(classifier(model=predictor), classifier("pairs", pairs=True))
    text, fewer = "some 😀 text", predictor.alone("some 😀")
    answer = post(made, "/explain", {"text": text, "model": "labels"}).json()
    (found,) = answer["explanations"]
    whole = predictor.alone(text)
    assert (answer["model"], answer["text"], answer["text_pair"]) == ("labels", text, None)
    assert (found["label"], found["probability"]) == (whole.label, max(whole.probabilities))
    assert (found["method"], found["baseline"]) == ("occlusion", None)
    assert [(word["word"], word["start"]) for word in found["words"]] == [("some", 0), ("😀", 5), ("text", 7)]
    output = predictor.labels.index(whole.label)
    odds = [p.probabilities[output] / (1 - p.probabilities[output]) for p in (whole, fewer)]
    assert found["words"][2]["contribution"] == pytest.approx(math.log(odds[0] / odds[1]))
    other = next(label for label in predictor.labels if label != whole.label)
    (asked,) = post(made, "/explain", {"text": text, "model": "labels", "label": other}).json()["explanations"]
    assert asked["label"] == other
    assert asked["score"] < found["score"]
    pair = post(made, "/explain", {"text": "a", "text_pair": "b c", "model": "pairs"}).json()
    assert [word["second"] for word in pair["explanations"][0]["words"]] == [False, True, True]


def test_explanations_pass_the_guard_and_end_in_time() -> None:
    guarded = application(classifier(), guard={"mask": ["email"]})
    masked = post(guarded, "/explain", {"text": "write to a@example.com"}).json()
    assert masked["text"] == "write to [email]"
    slow = FakeClassifier(seconds=0.05)
    made = application(classifier(model=slow), timeout_seconds=0.3)
    started = time.monotonic()
    assert error(post(made, "/explain", {"text": "word " * 2000}))["code"] == "timeout"
    time.sleep(0.3)
    batches = len(slow.batches)
    assert batches < 2000 / 64, "the rest is not computed"
    time.sleep(0.2)
    assert len(slow.batches) == batches
    assert time.monotonic() - started < 20
    assert post(made, "/predict", {"inputs": "a"}).status_code == 200
    limited = application(classifier(model=FakeClassifier(max_length=9), max_input_tokens=9))
    assert error(post(limited, "/explain", {"text": "a" * 10}))["code"] == "input_too_long"


def test_sets_of_labels_and_numbers() -> None:
    made = application(classifier(), tagger(), regressor(), log_texts=True)
    (tags,) = post(made, "/predict", {"inputs": "some text", "model": "tags"}).json()["predictions"]
    assert tags == {
        "cut": False,
        "labels": list((alone := FakeTagger().alone("some text")).labels),
        "scores": dict(sorted(zip("abc", alone.probabilities, strict=True), key=lambda pair: -pair[1])),
    }
    assert 0 < len(tags["labels"]) < 3
    best = post(made, "/predict", {"inputs": ["some text"], "model": "tags", "top_k": 1}).json()["predictions"][0]
    assert (best["labels"], list(best["scores"])) == (tags["labels"], list(tags["scores"])[:1])
    body = {"inputs": ["some text", "text"], "model": "stars"}
    numbers = post(made, "/predict", body).json()["predictions"]
    assert numbers == [{"cut": False, "value": 3.0}, {"cut": False, "value": 4 / 3}]
    assert error(post(made, "/predict", body | {"top_k": 1}))["message"] == (
        "top_k is 1, but this model predicts numbers"
    )
    assert error(post(made, "/predict", {"inputs": "a"}))["code"] == "model_missing"


def test_models_say_their_task() -> None:
    async def main() -> list[dict[str, Any]]:
        async with client(application(classifier(), tagger(), regressor(), generator())) as one:
            cards: list[dict[str, Any]] = (await one.get("/v1/models")).json()["data"]
            return cards

    cards = {card["id"]: card for card in run(main())}
    assert {name: card["task"] for name, card in cards.items()} == {
        "labels": "classification",
        "tags": "multilabel",
        "stars": "regression",
        "talk": "instruction",
    }
    assert {name: card["thresholds"] for name, card in cards.items()} == {
        "labels": None,
        "tags": {"a": 0.3, "b": 0.3, "c": 0.3},
        "stars": None,
        "talk": None,
    }
    assert cards["stars"]["labels"] == []


def test_length_is_counted_and_limited() -> None:
    made = application(
        classifier("cuts", FakeClassifier(max_length=12)),
        classifier("refuses", FakeClassifier(max_length=12), max_input_tokens=20),
    )
    inputs = ["short", "x" * 12, "x" * 13]
    rows = post(made, "/predict", {"inputs": inputs, "model": "cuts"}).json()["predictions"]
    assert [row["cut"] for row in rows] == [False, False, True]
    assert post(made, "/predict", {"inputs": "x" * 20, "model": "refuses"}).status_code == 200
    problem = error(post(made, "/predict", {"inputs": ["a", "x" * 21], "model": "refuses"}))
    assert (problem["code"], problem["message"]) == ("input_too_long", "input 1 has 21 tokens; at most 20 are accepted")


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/predict", {"inputs": ""}, 400, "invalid_request"),
        ("/predict", {"inputs": " \n"}, 400, "invalid_request"),
        ("/predict", {"inputs": []}, 400, "invalid_request"),
        ("/predict", {}, 400, "invalid_request"),
        ("/predict", [], 400, "invalid_request"),
        ("/predict", {"inputs": 3}, 400, "invalid_request"),
        ("/predict", {"inputs": "a", "top_k": "2"}, 400, "invalid_request"),
        ("/predict", {"inputs": "a", "top_k": 4}, 400, "invalid_request"),
        ("/predict", {"inputs": "a", "more": 1}, 400, "invalid_request"),
        ("/predict", {"inputs": ["a"] * 65}, 400, "too_many_inputs"),
        ("/predict", {"inputs": "a", "model": "nobody"}, 404, "model_not_found"),
        ("/predict", {"inputs": "a", "model": "talk"}, 404, "model_not_found"),
        ("/explain", {"text": " "}, 400, "invalid_request"),
        ("/explain", {"text": "a", "label": 3}, 400, "invalid_request"),
        ("/explain", {"text": "a", "label": "d"}, 400, "no_such_label"),
        ("/explain", {"text": "a", "text_pair": "b"}, 400, "wrong_input"),
        ("/explain", {"text": "a", "model": "talk"}, 404, "model_not_found"),
        ("/v1/chat/completions", {"messages": []}, 400, "invalid_request"),
        ("/v1/chat/completions", {"messages": message("a"), "n": 2}, 400, "invalid_request"),
        ("/v1/chat/completions", {"messages": message("a"), "tools": []}, 400, "invalid_request"),
        ("/v1/chat/completions", {"messages": message("a"), "temperature": 3}, 400, "invalid_request"),
        ("/v1/chat/completions", {"messages": message("a"), "stop": ["a"] * 5}, 400, "invalid_request"),
        ("/v1/chat/completions", {"messages": message("a"), "stop": "a" * 257}, 400, "invalid_request"),
        ("/v1/chat/completions", {"messages": message("a") * 257}, 400, "invalid_request"),
        ("/v1/chat/completions", {"messages": [{"role": "tool", "content": "a"}]}, 400, "invalid_request"),
        ("/v1/chat/completions", {"messages": [{"role": "assistant", "content": "a"}]}, 400, "invalid_request"),
        ("/v1/chat/completions", {"messages": message("a" * 300)}, 400, "context_length_exceeded"),
        ("/v1/chat/completions", {"messages": message("a"), "max_tokens": 199}, 400, "context_length_exceeded"),
        ("/v1/chat/completions", {"messages": message("a"), "model": "labels"}, 404, "model_not_found"),
        ("/v1/chat/completions", {"messages": message("a"), "logprobs": 0.0}, 400, "invalid_request"),
        ("/v1/chat/completions", {"messages": message("a"), "n": True}, 400, "invalid_request"),
        ("/v1/completions", {"prompt": ["a", "b"]}, 400, "invalid_request"),
        ("/v1/completions", {"prompt": "a", "echo": True}, 400, "invalid_request"),
        ("/prompt", {}, 400, "invalid_request"),
        ("/prompt", {"input": {"text": "a"}}, 400, "no_prompt"),
        ("/v1/nothing", {}, 404, "no_such_path"),
        ("/metrics", {}, 405, "method_not_allowed"),
    ],
)
def test_what_is_wrong_is_said(path: str, body: Any, status: int, code: str) -> None:
    answer = post(application(classifier(), generator()), path, body)
    assert answer.status_code == status
    assert error(answer)["code"] == code


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"null",
        b'"text"',
        b'{"inputs": NaN}',
        b'{"inputs": "a", "top_k": 1e308}',
        b"\xff\xfe",
        b'{"inputs": "\\ud800"}',
        b'{"inputs": ["\\udfff"]}',
        b'{"\\ud800": 1}',
        b'{"inputs": "a", "model": "\\ud800"}',
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"prompt": "\\udc00"}',
        b"[" * 100_000,
        b'{"inputs": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"inputs": "a", "inputs": 3}',
        b'{"inputs":"a","top_k":' + b"9" * 5000 + b"}",
        b'{"messages": [{"role": "user", "content": "a"}], "temperature": Infinity}',
    ],
)
@pytest.mark.parametrize("path", ["/predict", "/explain", "/v1/chat/completions", "/v1/completions", "/prompt"])
def test_bodies_that_are_none(path: str, raw: bytes) -> None:
    async def main() -> httpx.Response:
        async with client(application(classifier(), generator())) as one:
            return await one.post(path, content=raw, headers={"content-type": "application/json"})

    answer = run(main())
    assert answer.status_code == 400
    assert len(error(answer)["message"]) <= 500


def test_other_media_types_are_no_json() -> None:
    """A page elsewhere can send those without asking."""

    async def main() -> None:
        async with client(application(classifier())) as one:
            for kind in ("text/plain", "application/x-www-form-urlencoded", None):
                headers = {"content-type": kind} if kind else {}
                answer = await one.post("/predict", content=b'{"inputs": "a"}', headers=headers)
                assert answer.status_code == 400

    run(main())


def test_texts_of_all_kinds_come_through() -> None:
    texts = ["\x00", "a\x1fb", "😀" * 50, "‮abc", "ﷺ", "e" + "\u0301" * 50, "</script>", '"\\\n']
    predictor = FakeClassifier()
    rows = post(application(classifier(model=predictor)), "/predict", {"inputs": texts}).json()["predictions"]
    assert [row["label"] for row in rows] == [predictor.alone(text).label for text in texts]


def test_bodies_that_are_too_large() -> None:
    async def main() -> None:
        made = application(classifier(), max_body_bytes=1000)
        sent = 0

        async def chunks() -> Any:
            nonlocal sent
            for _ in range(10_000):
                sent += 1
                yield b"x" * 100

        async with client(made) as one:
            fits = b'{"inputs": "' + b"x" * (1000 - 14) + b'"}'
            headers = {"content-type": "application/json"}
            assert len(fits) == 1000
            assert (await one.post("/predict", content=fits, headers=headers)).status_code == 200
            answer = await one.post("/predict", content=fits + b" ", headers=headers)
            assert (answer.status_code, error(answer)["code"]) == (413, "too_large")
            answer = await one.post("/predict", content=chunks(), headers=headers)
            assert answer.status_code == 413
            assert sent <= 120

    run(main())


def test_bodies_that_do_not_end() -> None:
    async def main() -> None:
        async def slow() -> Any:
            yield b"{"
            await asyncio.sleep(30)

        async with client(application(classifier(), timeout_seconds=0.2)) as one:
            answer = await one.post("/predict", content=slow(), headers={"content-type": "application/json"})
            assert (answer.status_code, error(answer)["code"]) == (408, "too_slow")

    run(main())


def test_every_route_but_health_wants_a_key() -> None:
    made = application(classifier(), generator(), keys=["first key", "second", "clé"])
    paths = [(path, method) for path, one in made.app.openapi()["paths"].items() for method in one]  # type: ignore[attr-defined]
    paths += [("/", "get"), ("/docs", "get"), ("/openapi.json", "get"), ("/nothing", "get")]
    basic, accent = (base64.b64encode(f"anybody:{key}".encode()).decode() for key in ("second", "clé"))

    async def main() -> None:
        async with client(made) as one:
            for path, method in paths:
                open_ = path in ("/healthz", "/readyz")
                for wrong in (
                    "",
                    "Bearer ",
                    "Bearer secon",
                    "Bearer seconds",
                    "Basic !",
                    "Basic é",
                    "Basic /w==",
                    f"Digest {basic}",
                    "Bearer ключ",
                ):
                    headers = {"authorization": wrong.encode()} if wrong else {}
                    answer = await one.request(method, path, headers=headers)  # type: ignore[arg-type]
                    assert answer.status_code == (200 if open_ else 401), (path, wrong)
                    assert open_ or answer.headers["www-authenticate"] == 'Basic realm="key"'
                for right in ("Bearer first key", "bearer second", f"Basic {basic}", "Bearer clé", f"Basic {accent}"):
                    answer = await one.request(method, path, headers={"authorization": right.encode()})  # type: ignore[arg-type]
                    assert answer.status_code in (200, 400, 404)

    run(main())


def test_other_host_names_need_a_key() -> None:
    """Names can be made to mean 127.0.0.1: a page elsewhere could then talk to this server as its own."""

    async def main() -> None:
        for keys, status in (([], 403), (["k"], 200)):
            async with client(application(classifier(), keys=keys)) as one:
                headers = {"host": "evil.example", "authorization": "Bearer k"}
                assert (await one.get("/v1/models", headers=headers)).status_code == status
                for host in ("localhost:80", "127.0.0.1:8000", "[::1]:9", "localhost"):
                    assert (await one.get("/v1/models", headers=headers | {"host": host})).status_code == 200

    run(main())


def test_ids_are_taken_over_where_they_are_sane() -> None:
    async def main() -> None:
        async with client(application(classifier())) as one:
            for given, kept in (("my-id_1.x", True), ("a" * 65, False), ("a b", False), ("<b>", False), ("", False)):
                answer = await one.post("/predict", json={"inputs": "a"}, headers={"x-request-id": given})
                assert (answer.headers["x-request-id"] == given) == kept
                assert answer.json()["id"] == answer.headers["x-request-id"]

    run(main())


def test_a_fault_tells_the_client_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    made = application(classifier())
    answer = post(made, "/predict", {"inputs": "explode with my password"})
    assert answer.status_code == 500
    assert error(answer)["code"] == "internal_error"
    assert "secret" not in answer.text
    log = capsys.readouterr().err
    assert "RuntimeError" in log
    assert "predict" in log
    assert "secret:" in log.replace("{examples", "")  # the line of code, without what it was called with
    assert "password" not in log
    assert post(made, "/predict", {"inputs": "fine"}).status_code == 200


@pytest.mark.parametrize("texts", [False, True])
def test_texts_are_logged_only_when_asked(texts: bool, capsys: pytest.CaptureFixture[str]) -> None:
    made = application(classifier(), generator(), log_texts=texts)
    post(made, "/predict", {"inputs": "private words"})
    post(made, "/v1/chat/completions", {"messages": message("quiet\nplease")})
    log = capsys.readouterr().err
    assert "POST /predict 200" in log
    assert len(log.splitlines()) == 2
    for word in ("private words", "quiet\\nplease", "QUIET PLEASE"):
        assert (word in log) == texts


def test_when_the_queue_is_full_clients_are_told_when_to_come_back() -> None:
    async def main() -> None:
        predictor = FakeClassifier(may_run=threading.Event())
        made = application(classifier(model=predictor), queue_size=4, max_inputs=4, batch_wait_ms=0)
        queue = made.handlers.live["labels"].queue  # type: ignore[attr-defined]
        async with client(made) as one:
            first = asyncio.create_task(one.post("/predict", json={"inputs": "0"}))
            while not queue.running:
                await asyncio.sleep(0.01)
            tasks = [asyncio.create_task(one.post("/predict", json={"inputs": str(n)})) for n in range(7)]
            while sum(task.done() for task in tasks) < 3:
                await asyncio.sleep(0.01)
            assert predictor.may_run
            predictor.may_run.set()
            answers = [await task for task in [first, *tasks]]
            assert sorted(answer.status_code for answer in answers) == [200] * 5 + [429] * 3
            for answer in answers:
                if answer.status_code == 429:
                    assert int(answer.headers["retry-after"]) >= 1
                    assert error(answer)["type"] == "rate_limit_error"

    run(main())


def test_what_takes_too_long_is_ended() -> None:
    async def main() -> None:
        fake = FakeGenerator(seconds=0.05)
        made = application(classifier(model=FakeClassifier(seconds=0.5)), generator(model=fake), timeout_seconds=0.2)
        async with client(made) as one:
            answer = await one.post("/predict", json={"inputs": "a"})
            assert (answer.status_code, error(answer)["code"]) == (503, "timeout")
            assert "retry-after" in answer.headers
            words = " ".join("abcdefghijklmnopqrstuvwxyz")
            answer = await one.post("/v1/chat/completions", json={"messages": message(words)})
            assert answer.status_code == 503
            answer = await one.post("/v1/chat/completions", json={"messages": message(words), "stream": True})
            events = [line[6:] for line in answer.text.splitlines() if line]
            assert answer.status_code == 200
            assert json.loads(events[-1])["error"]["code"] == "timeout"
            while made.handlers.live["talk"].queue.running:  # type: ignore[attr-defined]
                await asyncio.sleep(0.01)
            assert all(count < 26 for _, count in fake.written), "the model stops when the time is over"

    run(main())


def test_a_thousand_at_once_get_their_own_answers() -> None:
    """Classifiers, pairs and generators, streamed or not, wrong ones among them: each as the model alone says."""

    async def main() -> None:
        predictor, paired, fake = FakeClassifier(), FakeClassifier(), FakeGenerator()
        both = [classifier(model=predictor), classifier("pairs", paired, pairs=True)]
        made = application(*both, generator(model=fake), queue_size=10_000, batch_wait_ms=1)
        draw = random.Random(1)
        words = ["alpha", "beta", "gamma", "delta", "mu", "nu"]

        async def ask(one: httpx.AsyncClient, number: int) -> None:
            texts = [
                " ".join(draw.choices(words, k=draw.randint(1, 9))) + f" {number}" for _ in range(draw.randint(1, 4))
            ]
            kind = draw.choice(["labels", "pairs", "chat", "stream", "wrong"])
            if kind in ("labels", "pairs"):
                pairs = [{"text": text, "text_pair": draw.choice(words)} for text in texts]
                inputs = pairs if kind == "pairs" else texts
                answer = (await one.post("/predict", json={"inputs": inputs, "model": kind})).json()
                said = [pair["text"] + pair["text_pair"] for pair in pairs] if kind == "pairs" else texts
                for text, row in zip(said, answer["predictions"], strict=True):
                    alone = predictor.alone(text)
                    assert row["label"] == alone.label
                    assert row["scores"] == dict(zip(predictor.labels, alone.probabilities, strict=True))
            elif kind == "wrong":
                assert (await one.post("/predict", json={"inputs": texts, "top_k": 0})).status_code == 400
            else:
                body = {"messages": message(texts[0]), "max_tokens": draw.randint(1, 12), "stream": kind == "stream"}
                answer = await one.post("/v1/chat/completions", json=body)
                expected = "".join(f"{word} " for word in texts[0].upper().split()[: body["max_tokens"]])
                text, reason = answered(answer, body["stream"])
                assert (text, reason in ("stop", "length")) == (expected, True)

        async with client(made) as one:
            await asyncio.gather(*(ask(one, number) for number in range(1000)))
        assert made.state.active == 0
        assert min(max(map(len, one.batches)) for one in (predictor, paired)) > 3

    run(main())


def test_several_models_under_their_names() -> None:
    made = application(
        classifier("one"),
        classifier("two", FakeClassifier(("x", "y"))),
        generator("talk"),
        generator("other", FakeGenerator(context_length=99)),
    )

    async def main() -> None:
        async with client(made) as one:
            listed = (await one.get("/v1/models")).json()
            assert [model["id"] for model in listed["data"]] == ["one", "two", "talk", "other"]
            assert [model["task"][:5] for model in listed["data"]] == ["class", "class", "instr", "instr"]
            assert listed["data"][1]["labels"] == ["x", "y"]
            answer = await one.post("/predict", json={"inputs": "a", "model": "two"})
            assert set(answer.json()["predictions"][0]["scores"]) == {"x", "y"}
            answer = await one.post("/predict", json={"inputs": "a"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "model_missing")
            answer = await one.post("/v1/chat/completions", json={"messages": message("a"), "model": "other"})
            assert answer.json()["model"] == "other"

    run(main())


def test_the_prompt_is_shown() -> None:
    made = application(classifier(model=FakeClassifier(prompt="Q: ")), generator())
    turns = [{"role": "system", "content": "s"}, *message("u")]
    assert post(made, "/prompt", {"messages": turns}).json() == {"model": "talk", "prompt": "<system>s<user>u<>"}
    assert post(made, "/prompt", {"input": {"text": "t"}}).json() == {"model": "labels", "prompt": "Q: t"}


def test_figures() -> None:
    async def main() -> None:
        made = application(classifier(), generator())
        async with client(made) as one:
            await one.post("/predict", json={"inputs": ["a", "b"]})
            await one.post("/predict", json={"inputs": 3})
            await one.post("/v1/chat/completions", json={"messages": message("a b c")})
            await one.get("/a/random/path")
            page = (await one.get("/metrics")).text
            for line in (
                'tunesmith_requests_total{route="/predict",status="200"} 1.0',
                'tunesmith_requests_total{route="/predict",status="400"} 1.0',
                'tunesmith_requests_total{route="other",status="404"} 1.0',
                'tunesmith_inputs_total{model="labels"} 2.0',
                'tunesmith_waiting{model="talk"} 0.0',
                'tunesmith_tokens_total{kind="completion",model="talk"} 4.0',
            ):
                assert line in page, page

    run(main())


def test_draining_refuses_what_is_new() -> None:
    async def main() -> None:
        made = application(classifier())
        async with client(made) as one:
            assert (await one.get("/readyz")).status_code == 200
            made.state.draining = True
            assert (await one.get("/readyz")).json() == {"status": "draining"}
            assert (await one.get("/healthz")).status_code == 200
            answer = await one.post("/predict", json={"inputs": "a"})
            assert (answer.status_code, error(answer)["code"]) == (503, "shutting_down")

    run(main())


def test_the_pages_run_nothing_but_their_own() -> None:
    async def main() -> None:
        nonces = set()
        async with client(application(classifier())) as one:
            for path in ("/", "/docs"):
                answer = await one.get(path)
                policy = answer.headers["content-security-policy"]
                assert policy.startswith("default-src 'none'; script-src 'nonce-")
                nonce = policy.split("nonce-")[1].split("'")[0]
                nonces.add(nonce)
                assert answer.text.count(f'<script nonce="{nonce}">') == answer.text.count("<script") == 1
                for forbidden in ("innerHTML", "eval(", "http://", "https://", "style=", 'onclick="', "{{"):
                    assert forbidden not in answer.text, forbidden
        assert len(nonces) == 2

    run(main())


def test_openapi_has_the_names_and_the_limits() -> None:
    page = application(classifier("one"), generator("two"), keys=["k"], max_inputs=7).app.openapi()  # type: ignore[attr-defined]
    fields = page["components"]["schemas"]["PredictRequest"]["properties"]
    assert fields["model"]["anyOf"][0]["enum"] == ["one", "two"]
    assert fields["inputs"]["anyOf"][2]["maxItems"] == 7
    assert fields["top_k"]["anyOf"][0]["maximum"] == 3
    explain = page["components"]["schemas"]["ExplainRequest"]["properties"]
    assert explain["label"]["anyOf"][0]["enum"] == ["a", "b", "c"]
    assert "422" not in json.dumps(page)
    assert page["paths"]["/predict"]["post"]["security"] == [{"key": []}]
    only = application(classifier("one")).app.openapi()  # type: ignore[attr-defined]
    assert "/v1/chat/completions" not in only["paths"]
    numbers = application(regressor()).app.openapi()["components"]["schemas"]  # type: ignore[attr-defined]
    assert "top_k" not in numbers["PredictRequest"]["properties"]
    kinds = numbers["PredictResponse"]["properties"]["predictions"]["items"]["anyOf"]
    assert [kind["$ref"].split("/")[-1] for kind in kinds] == ["LabelScores", "LabelSetScores", "NumberScore"]


def test_answers_are_what_the_fakes_say() -> None:
    """The fakes of these tests: a prompt's words in capitals."""
    heard: list[str] = []

    def hear(piece: str, response: Response | None) -> bool:
        heard.append(piece)
        return True

    requests = [AnswerRequest([97, 32, 98], 9, 0, generator().settings, hear)]
    FakeGenerator().write(lambda free: [requests.pop()] if requests else [], 1)
    assert "".join(heard) == "A B "


def test_who_hangs_up_amid_the_body_is_no_fault(capsys: pytest.CaptureFixture[str]) -> None:
    made = application(classifier())
    messages = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(messages)

    async def send(answer: Any) -> None:
        sent.append(answer)

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    run(made({"type": "http", "method": "POST", "path": "/predict", "headers": headers}, receive, send))
    page = made.metrics.render()[0].decode()
    assert 'tunesmith_requests_total{route="other",status="499"} 1.0' in page
    assert "tunesmith_disconnected_total 1.0" in page
    assert "internal_error" not in page
    assert (sent, made.state.active) == ([], 0)
    assert "rror" not in capsys.readouterr().err


def test_what_a_request_may_ask_of_a_generator() -> None:
    made = application(generator("talk", max_input_tokens=20, max_completion_tokens=3))
    fits, long = message("a b c d e"), message("a" * 20)
    assert len("<user>a b c d e<>") <= 20 < len("<user>" + "a" * 20 + "<>")
    whole = post(made, "/v1/chat/completions", {"messages": fits}).json()
    assert (whole["choices"][0]["finish_reason"], whole["usage"]["completion_tokens"]) == ("length", 3)
    assert post(made, "/v1/chat/completions", {"messages": fits, "max_tokens": 3}).status_code == 200
    for name in ("max_tokens", "max_completion_tokens"):
        problem = error(post(made, "/v1/chat/completions", {"messages": fits, name: 4}))
        assert (problem["message"], problem["param"]) == ("max_tokens is 4; at most 3 are allowed", "max_tokens")
    problem = error(post(made, "/v1/chat/completions", {"messages": long}))
    assert (problem["code"], "1 to 20 are accepted" in problem["message"]) == ("context_length_exceeded", True)


def test_stop_texts_wherever_pieces_are_cut() -> None:
    for size in (1, 2, 3, 20):
        stops, text = StopSequences(["END", "ND of"]), "the EN and the END of it"
        passed = [stops.pass_on(text[at : at + size], False) for at in range(0, len(text), size)]
        ended = [stopped for _, stopped in passed].index(True)
        assert "".join(piece for piece, _ in passed[: ended + 1]) == "the EN and the "
    stops = StopSequences(["x" * 100_000])
    assert [stops.pass_on("word ", False) for _ in range(50)] == [("word ", False)] * 50
