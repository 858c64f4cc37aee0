"""The server as others meet it: OpenAI's client, curl, clients that go away, SIGTERM, whatever OpenAPI allows."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.serving_fakes import (
    PATIENCE,
    FakeClassifier,
    FakeGenerator,
    application,
    classifier,
    generator,
    listening,
    message,
    never_reload,
    wait_until,
)
from tunesmith.errors import RecipeError
from tunesmith.recipe import Serve
from tunesmith.serving import server
from tunesmith.serving.middleware import Middleware

ROOT = Path(__file__).parents[2]


@pytest.fixture
def made() -> Middleware:
    return application(
        classifier(),
        generator(model=FakeGenerator(context_length=5000, seconds=0.01)),
        keys=["key"],
        queue_size=2000,
        max_inputs=8,
    )


@pytest.fixture
def address(made: Middleware) -> Iterator[str]:
    with listening(made) as found:
        yield found


def test_responses_are_not_held_back() -> None:
    """Every connection has TCP_NODELAY: without it each response on a kept connection waits for an ACK, some 40 ms."""
    options = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        options.append(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    async def main() -> None:
        listener = server.listen(Serve(port=0))
        async with await asyncio.start_server(answer, sock=listener):
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            await reader.read()
            writer.close()
            await writer.wait_closed()

    asyncio.run(asyncio.wait_for(main(), PATIENCE))
    assert len(options) == 1
    assert options[0] != 0


def test_the_stock_openai_client(address: str) -> None:
    import openai

    with openai.OpenAI(base_url=f"{address}/v1", api_key="key", max_retries=0) as one:
        assert [model.id for model in one.models.list()] == ["labels", "talk"]
        whole = one.chat.completions.create(model="talk", messages=message("one two three"))  # type: ignore[arg-type]
        assert whole.choices[0].message.content == "ONE TWO THREE "
        assert whole.choices[0].finish_reason == "stop"
        assert whole.usage
        assert (whole.usage.completion_tokens, whole.usage.prompt_tokens) == (4, len("<user>one two three<>"))
        turns: list[Any] = [*message("one two three"), whole.choices[0].message, *message("and four")]  # as it came
        second = one.chat.completions.create(model="talk", messages=turns)
        assert second.choices[0].message.content == "AND FOUR "
        stream = one.chat.completions.create(
            model="talk",
            messages=message("one two three"),
            stream=True,
            stream_options={"include_usage": True},  # type: ignore[arg-type]
            max_completion_tokens=2,
            temperature=0.5,
            top_p=0.9,
            seed=3,
        )
        chunks = list(stream)
        said = [chunk.choices[0] for chunk in chunks if chunk.choices]
        assert "".join(choice.delta.content or "" for choice in said) == "ONE TWO "
        assert said[0].delta.role == "assistant"
        assert said[-1].finish_reason == "length"
        assert chunks[-1].usage.total_tokens == chunks[-1].usage.prompt_tokens + 2
        plain = one.completions.create(model="talk", prompt="x y", stop=["Y"])
        assert (plain.choices[0].text, plain.choices[0].finish_reason) == ("X ", "stop")
        pieces = one.completions.create(model="talk", prompt="x y", stream=True)
        assert "".join(piece.choices[0].text for piece in pieces) == "X Y "
        with pytest.raises(openai.NotFoundError) as missing:
            one.chat.completions.create(model="gpt", messages=message("a"))  # type: ignore[arg-type]
        assert missing.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError):
            one.chat.completions.create(model="talk", messages=message("a"), n=2)  # type: ignore[arg-type]
    stranger = openai.OpenAI(base_url=f"{address}/v1", api_key="wrong", max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError):
        stranger.models.list()


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_curl(address: str) -> None:
    def curl(path: str, body: Any, *more: str) -> str:
        Path("body.json").write_text(json.dumps(body))
        words = ["curl", "-sS", "-N", f"{address}{path}", "-H", "Authorization: Bearer key", *more]
        words += ["-H", "Content-Type: application/json", "--data-binary", "@body.json"]
        return subprocess.run(words, check=True, capture_output=True, text=True, timeout=20).stdout

    assert json.loads(curl("/predict", {"inputs": "text"}))["predictions"][0]["label"] in "abc"
    body = {"messages": message("a b"), "stream": True}
    lines = curl("/v1/chat/completions", body).split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    assert all(line.startswith("data: {") for line in lines[:-2])
    for more in ([], ["-H", "Transfer-Encoding: chunked"], ["-H", "Expect:"]):
        assert "too_large" in curl("/predict", {"inputs": "x" * 1_100_000}, *more)


def test_who_goes_away_frees_the_slot(made: Middleware, address: str) -> None:
    """60 clients leave in the queue, before the first token or amid tokens, streamed or not: nothing is left behind."""
    queue = made.handlers.live["talk"].queue  # type: ignore[attr-defined]
    words = " ".join(["word"] * 45)

    async def main() -> None:
        async with httpx.AsyncClient(base_url=address, headers={"authorization": "Bearer key"}) as one:

            async def leave(number: int) -> None:
                body = {"messages": message(f"{words} {number}"), "stream": bool(number % 2)}
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(one.post("/v1/chat/completions", json=body), 0.01 + number * 0.005)

            await asyncio.gather(*(leave(number) for number in range(60)))
            while queue.waiting or queue.running or made.state.active:
                await asyncio.sleep(0.01)
            answer = await one.post("/v1/chat/completions", json={"messages": message("hi")})
            assert answer.json()["choices"][0]["message"]["content"] == "HI "

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


def test_who_leaves_while_the_guard_judges_is_noticed() -> None:
    judge = classifier("guard", FakeClassifier(may_run=threading.Event()))
    guard = {"classifier": "somewhere", "thresholds": {"a": 1.0}}
    made = application(classifier(), generator(), guard_classifier=judge, guard=guard)
    bodies: dict[str, Any] = {
        "predict": {"inputs": "b"},
        "v1/completions": {"prompt": "b"},
        "v1/chat/completions": {"messages": message("b")},
    }
    with listening(made) as address, httpx.Client(base_url=address, timeout=0.3) as one:
        for path, body in bodies.items():
            with pytest.raises(httpx.TimeoutException):
                one.post(path, json=body)
            wait_until(lambda: not made.state.active)
    assert judge.classifier.may_run  # type: ignore[attr-defined]
    judge.classifier.may_run.set()  # type: ignore[attr-defined]


def test_who_does_not_read_the_answer_is_given_up() -> None:
    """Its request ends with its time, so that the server can end too."""
    fake = FakeGenerator(context_length=10**4, answer=lambda _: ["word " * 100_000] * 40)
    made = application(generator(model=fake), timeout_seconds=1)
    with listening(made) as address, socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.connect(("127.0.0.1", int(address.rsplit(":")[-1])))
        body = json.dumps({"messages": message("a"), "stream": True})
        head = ["POST /v1/chat/completions HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
        one.sendall("\r\n".join([*head, f"Content-Length: {len(body)}", "", body]).encode())
        wait_until(lambda: made.state.active == 1)
        wait_until(lambda: not made.state.active)
    assert "tunesmith_disconnected_total 1.0" in made.metrics.render()[0].decode()


def test_serving_leaves_the_process_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, before = Serve(port=0), (sys.getswitchinterval(), gc.get_freeze_count())
    while_serving = []

    def serve(self: Any, sockets: Any) -> None:
        while_serving.append((sys.getswitchinterval(), gc.get_freeze_count()))
        raise KeyboardInterrupt

    monkeypatch.setattr("uvicorn.Server.run", serve)
    with server.listen(settings) as listener, pytest.raises(KeyboardInterrupt):
        server.run(application(classifier()), settings, [listener], never_reload)
    assert while_serving[0][0] < before[0]
    assert while_serving[0][1] > 1000
    assert (sys.getswitchinterval(), gc.get_freeze_count()) == before


def test_an_address_that_two_servers_were_bound_to() -> None:
    """As where both load their models at the same time: the second one to listen is refused, without a traceback."""
    with server.listen(Serve(port=0)) as first:
        settings = Serve(port=first.getsockname()[1])
        with server.listen(settings) as second:
            first.listen()
            with pytest.raises(RecipeError, match="another process took the address"):
                server.run(application(classifier()), settings, [second], never_reload)


SERVER = """
import socket, sys
sys.path.insert(0, {root!r})
from tests.serving_fakes import FakeClassifier, FakeGenerator, generator, classifier, application
from tunesmith import console
from tunesmith.recipe import Serve
from tunesmith.serving import server
console.configure()
settings = Serve(port=0, drain_seconds=20, queue_size=500)
listener = server.listen(settings)
print(listener.getsockname()[1], flush=True)
slow = FakeClassifier(seconds=0.03), FakeGenerator(seconds=0.02)
made = application(classifier(model=slow[0]), generator(model=slow[1]), queue_size=500)
server.run(made, settings, [listener], made.handlers.live.reload)
"""


@contextlib.contextmanager
def process(code: str = SERVER) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server in a process of its own, and its address, once it is ready."""
    started = subprocess.Popen(
        [sys.executable, "-c", code.format(root=str(ROOT))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    )
    try:
        assert started.stdout
        address = f"http://127.0.0.1:{int(started.stdout.readline())}"
        with httpx.Client() as one:
            for _ in range(200):
                with contextlib.suppress(httpx.TransportError):
                    one.get(f"{address}/readyz")
                    break
                time.sleep(0.05)
        yield started, address
    finally:
        started.kill()
        started.communicate()


@pytest.mark.parametrize("after", [0.3, 0.7])
def test_sigterm_drains(after: float) -> None:
    assert drain(after)["200"] > 10


def drain(after: float) -> Counter[str]:
    """End a server under load: who was let in is answered, the others are refused or find the door closed."""
    found: Counter[str] = Counter()

    async def client(one: httpx.AsyncClient, number: int) -> None:
        while True:
            try:
                if number % 3:
                    answer = await one.post("/predict", json={"inputs": f"text {number}"})
                else:
                    body = {"messages": message("a b c d e"), "stream": bool(number % 2)}
                    answer = await one.post("/v1/chat/completions", json=body)
                    if answer.status_code == 200:
                        assert "E " in answer.text
            except httpx.TransportError:  # the door is closed
                found["closed"] += 1
                return
            found[str(answer.status_code)] += 1
            if answer.status_code != 200:
                return

    async def load(started: subprocess.Popen[str], address: str) -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=address, timeout=20, limits=limits) as one:
            clients = [asyncio.create_task(client(one, number)) for number in range(24)]
            await asyncio.sleep(after)
            started.send_signal(signal.SIGTERM)
            await asyncio.gather(*clients)

    with process() as (started, address):
        asyncio.run(load(started, address))
        _, log = started.communicate(timeout=25)
        assert started.returncode == 0, log
    assert set(found) <= {"200", "503", "closed"}
    lines = [line.split() for line in log.splitlines() if " POST " in line]
    served = sum(line[4] == "200" for line in lines)
    assert served == found["200"], f"{served} answers were written, {found['200']} arrived"
    assert {line[4] for line in lines} <= {"200", "503"}
    assert "error" not in log
    return found


@pytest.mark.parametrize("signals", [1, 2])
def test_a_second_signal_ends_at_once_and_time_runs_out(signals: int) -> None:
    code = SERVER.replace("drain_seconds=20", "drain_seconds=0.5")
    with process(code.replace("FakeGenerator(seconds=0.02)", "FakeGenerator(seconds=30)")) as (started, address):
        with contextlib.suppress(httpx.TimeoutException):
            httpx.post(f"{address}/v1/chat/completions", json={"messages": message("a"), "stream": True}, timeout=0.1)
        port = int(address.rsplit(":")[-1])
        with socket.create_connection(("127.0.0.1", port)) as one:
            body = json.dumps({"messages": message("a")})
            head = ["POST /v1/chat/completions HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
            one.sendall("\r\n".join([*head, f"Content-Length: {len(body)}", "", body]).encode())
            time.sleep(0.3)
            for _ in range(signals):
                started.send_signal(signal.SIGTERM)
                time.sleep(0.05)
            started.wait(PATIENCE)  # less than the answer takes


EXAMPLES = int(os.environ.get("TUNESMITH_EXAMPLES", "20"))


@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_whatever_openapi_allows_or_forbids(mode: str) -> None:
    """schemathesis on every operation: no fault, and nothing that the description does not say."""
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from schemathesis import GenerationMode
    from schemathesis.checks import load_all_checks, not_a_server_error
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        negative_data_rejection,
        response_headers_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

    load_all_checks()
    checks = [
        not_a_server_error,
        status_code_conformance,
        content_type_conformance,
        response_schema_conformance,
        response_headers_conformance,
    ]
    checks += [negative_data_rejection] if mode == "negative" else []
    made = application(classifier(model=FakeClassifier()), generator(model=FakeGenerator()), batch_wait_ms=0)
    counted = 0
    with listening(made) as address:
        schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
        for result in schema.get_all_operations():
            operation = result.ok()
            if mode == "negative" and operation.method != "post":
                continue  # there is nothing in them to be wrong
            strategy = operation.as_strategy(generation_mode=GenerationMode(mode))

            @given(case=strategy)
            @settings(
                max_examples=EXAMPLES,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                database=None,
                phases=[Phase.generate],
            )
            def try_it(case: Any) -> None:
                nonlocal counted
                counted += 1
                case.call_and_validate(checks=checks)

            try_it()
    assert counted >= 3 * EXAMPLES
    assert made.state.active == 0
