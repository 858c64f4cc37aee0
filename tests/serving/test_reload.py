"""New versions of served models: no request fails while they come, and each is answered by one version."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

import tunesmith
from tests.serving_fakes import (
    FakeClassifier,
    FakeGenerator,
    application,
    classifier,
    client,
    error,
    generator,
    listening,
    message,
    regressor,
    run,
    tagger,
)
from tunesmith import runs
from tunesmith.errors import RunError
from tunesmith.pipeline.commands.serve import version
from tunesmith.recipe import Serve
from tunesmith.serving import app, server
from tunesmith.serving.backends import Served
from tunesmith.serving.handlers import Handlers
from tunesmith.types import Example, Prediction

RELOADS = 10
HEADERS = {"content-type": "application/json"}


class VersionedClassifier(FakeClassifier):
    """Every label names the version."""

    def __init__(self, number: int) -> None:
        super().__init__((f"v{number}-a", f"v{number}-b"), seconds=0.002)

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        half = len(examples) // 2
        first = super().predict(examples[:half]) if half else []
        return first + super().predict(examples[half:])


class VersionedGenerator(FakeGenerator):
    """Every word names the version."""

    def __init__(self, number: int) -> None:
        super().__init__(seconds=0.002, answer=lambda text: [f"v{number} "] * 12)


class Versions:
    """Loads a classifier and a generator, each time as the next version; keeps no reference to them."""

    def __init__(self) -> None:
        self.number = 0
        self.models: list[weakref.ref[Any]] = []

    def load(self, name: str) -> Served:
        self.number += 1
        model: Any = VersionedClassifier(self.number) if name == "labels" else VersionedGenerator(self.number)
        self.models.append(weakref.ref(model))
        make = classifier if name == "labels" else generator
        return make(name, model, version=f"v{self.number}")

    @property
    def alive(self) -> int:
        gc.collect()
        return sum(model() is not None for model in self.models)

    def handlers(self, **settings: Any) -> Handlers:
        return Handlers({name: self.load(name) for name in ("labels", "talk")}, Serve(**settings), None, self.load)


def test_ten_reloads_under_load() -> None:
    """Requests of 24 clients: all succeed, and each is answered by the version that it names; old ones are let go."""
    versions = Versions()
    handlers = versions.handlers(queue_size=4096)
    answered: dict[str, set[str]] = {"labels": set(), "talk": set()}
    done = False

    async def predict(http: httpx.AsyncClient) -> int:
        count = 0
        while not done:
            answer = await http.post("/predict", json={"inputs": [f"text {n}" for n in range(6)]})
            assert answer.status_code == 200, answer.text
            named = answer.json()["version"]
            assert answer.headers["x-model-version"] == named
            assert {row["label"].partition("-")[0] for row in answer.json()["predictions"]} == {named}
            answered["labels"].add(named)
            count += 1
        return count

    async def chat(http: httpx.AsyncClient) -> int:
        count = 0
        while not done:
            body = {"messages": message("a"), "stream": count % 2 == 1}
            answer = await http.post("/v1/chat/completions", json=body)
            assert answer.status_code == 200, answer.text
            named = answer.headers["x-model-version"]
            assert answer.text.count(f'"content":"{named} ') + answer.text.count(f'"content": "{named} ') >= 1
            words = {
                word for word in answer.text.replace('"', " ").split() if word.strip("v").isdecimal() and "v" in word
            }
            assert words == {named}
            answered["talk"].add(named)
            count += 1
        return count

    async def load(address: str, admin: str) -> int:
        nonlocal done
        async with httpx.AsyncClient(base_url=address, timeout=60, limits=httpx.Limits(max_connections=None)) as http:
            clients = [asyncio.create_task(each(http)) for each in (predict, chat) for _ in range(12)]
            for _ in range(RELOADS):
                await asyncio.sleep(0.05)
                answer = await http.post(f"{admin}/admin/reload")
                assert [each["model"] for each in answer.json()["models"]] == ["labels", "talk"]
                assert versions.alive <= 2, "a replaced version is gone when the answer comes"
            await asyncio.sleep(0.1)
            done = True
            return sum(await asyncio.gather(*clients))

    with server.listen_admin(Serve(admin_port=0)) as admin:  # type: ignore[union-attr]
        made = app.create(handlers, (), admin.getsockname())
        with listening(made, admin) as address:
            assert asyncio.run(load(address, f"http://127.0.0.1:{admin.getsockname()[1]}")) > 10 * RELOADS
    assert len(answered["labels"]) == len(answered["talk"]) == RELOADS + 1
    assert made.state.active == 0
    handlers.close()


def test_a_request_keeps_its_version_until_it_is_answered() -> None:
    """Also where it waits for the guard before it reaches the queue: the old version is let go only then."""
    versions = Versions()
    handlers = versions.handlers()
    allowed = asyncio.Event()
    slow = Slow(allowed)
    handlers.guard = slow  # type: ignore[assignment]

    async def main() -> None:
        async with client(app.create(handlers)) as http:
            first = asyncio.create_task(http.post("/predict", json={"inputs": "a"}))
            await slow.reached.wait()
            reloading = asyncio.create_task(handlers.live.reload(["labels"]))
            while handlers.live["labels"].served.version == "v1":
                await asyncio.sleep(0.01)
            assert not reloading.done()
            allowed.set()
            assert (await first).json()["version"] == "v1"
            (result,) = await reloading
            assert (result.previous, result.version) == ("v1", "v3")
            assert (await http.post("/predict", json={"inputs": "a"})).json()["version"] == "v3"

    run(main())
    handlers.close()


class Slow:
    """A guard that lets nothing pass before it may."""

    def __init__(self, allowed: asyncio.Event) -> None:
        self.allowed, self.reached = allowed, asyncio.Event()

    async def check_examples(self, examples: Sequence[Example], request_id: str) -> list[Example]:
        self.reached.set()
        await self.allowed.wait()
        return list(examples)


BROKEN: dict[str, Callable[[], Served]] = {
    "is not a run directory": lambda: broken(RunError("runs/x is not a run directory")),
    "ZeroDivisionError: amid": lambda: broken(ZeroDivisionError("amid")),
    "found: task multilabel": tagger,
    "found: task regression": regressor,
    "found: task classification, pairs of texts": lambda: classifier(pairs=True),
}


def broken(problem: Exception) -> Served:
    raise problem


@pytest.mark.parametrize("problem", BROKEN)
def test_a_broken_version_leaves_the_old_one(problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    loads: list[str] = []

    def load(name: str) -> Served:
        loads.append(name)
        return BROKEN[problem]() if name == "labels" else generator(name, version="new")

    models = {"labels": classifier(version="old"), "talk": generator(version="old")}
    handlers = Handlers(models, Serve(), None, load)

    async def main() -> None:
        async with admin_client(handlers) as http:
            answer = await http.post("/admin/reload")
            assert (answer.status_code, error(answer)["code"]) == (500, "reload_failed")
            assert problem in error(answer)["message"]
            assert (await http.post("/predict", json={"inputs": "a"})).json()["version"] == "old"
            chat = await http.post("/v1/chat/completions", json={"messages": message("a")})
            assert chat.json()["system_fingerprint"] == "new"
            metrics = (await http.get("/metrics")).text
            assert 'tunesmith_reloads_total{model="labels",result="failed"} 1.0' in metrics
            assert 'tunesmith_reloads_total{model="talk",result="loaded"} 1.0' in metrics
            infos = [line for line in metrics.splitlines() if line.startswith("tunesmith_model_info{")]
            assert sorted(infos) == [
                'tunesmith_model_info{model="labels",version="old"} 1.0',
                'tunesmith_model_info{model="talk",version="new"} 1.0',
            ]

    run(main())
    assert loads == ["labels", "talk"]
    log = capsys.readouterr().err
    assert "cannot reload labels" in log
    assert problem.splitlines()[0] in log
    handlers.close()


ADMIN = ("127.0.0.1", 9001)


def admin_client(handlers: Handlers, keys: Sequence[str] = ()) -> httpx.AsyncClient:
    """A client whose connections come in at the admin port."""
    made = app.create(handlers, keys, ADMIN)

    async def on_admin_port(scope: Any, receive: Any, send: Any) -> None:
        await made({**scope, "server": ADMIN}, receive, send)

    transport = httpx.ASGITransport(on_admin_port)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:9001", timeout=30)


def test_the_admin_port_alone_reloads() -> None:
    """Headers of a proxy, or a host name, change nothing: what counts is the socket that a connection came in at."""
    versions = Versions()
    handlers = versions.handlers()
    made_up = {
        "host": "127.0.0.1",
        "x-forwarded-for": "127.0.0.1",
        "forwarded": "for=127.0.0.1",
        "x-real-ip": "127.0.0.1",
    }
    with server.listen_admin(Serve(admin_port=0)) as admin:  # type: ignore[union-attr]
        address = admin.getsockname()
        with listening(app.create(handlers, (), address), admin) as other:
            for headers in ({}, made_up, {"host": f"127.0.0.1:{address[1]}"}):
                for path in ("/admin/reload", "/admin/reload/", "/admin/../admin/reload", "/admin/x"):
                    answer = httpx.post(other + path, headers=headers)
                    assert (answer.status_code, error(answer)["code"]) == (404, "no_such_path")
            url = f"http://127.0.0.1:{address[1]}/admin/reload"
            (one,) = httpx.post(url, json={"model": "talk"}).json()["models"]
            assert (one["model"], one["previous"], one["version"]) == ("talk", "v2", "v3")
            assert [each["model"] for each in httpx.post(url).json()["models"]] == ["labels", "talk"]
            assert error(httpx.post(url, json={"model": "x"}))["code"] == "model_not_found"
            assert error(httpx.post(url, json={"models": "x"}))["code"] == "invalid_request"
            assert error(httpx.post(url, headers={"origin": "https://evil.example"}))["code"] == "forbidden_origin"
            assert error(httpx.post(url, headers={"host": "evil.example"}))["code"] == "unknown_host"
            assert error(httpx.get(url))["code"] == "method_not_allowed"
    handlers.close()

    async def main() -> None:
        keyed = versions.handlers()
        async with admin_client(keyed, ["key"]) as http:
            assert error(await http.post("/admin/reload"))["code"] == "invalid_api_key"
            assert (await http.post("/admin/reload", headers={"authorization": "Bearer key"})).status_code == 200
        keyed.close()

    run(main())


def test_no_admin_port_by_default() -> None:
    assert server.listen_admin(Serve()) is None
    with pytest.raises(ValueError, match="admin_port"):
        Serve(port=8001, admin_port=8001)


# --- a process of its own


def train(reviews: Path, folder: Path, **more: Any) -> Path:
    recipe = {"method": "linear", "data": {"path": str(reviews)}, "linear": more}
    return Path(tunesmith.train(recipe, ["evaluate.bootstrap_samples=100"], run_dir=folder).path)


@contextmanager
def served(*words: str, **streams: Any) -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    """A server, its address, and what it has said so far."""
    command = [sys.executable, "-m", "tunesmith", "serve", *words, "port=0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **streams)
    lines: list[str] = []
    try:
        assert process.stderr
        while not lines or not lines[-1].startswith("serving "):
            lines.append(process.stderr.readline())
            assert lines[-1], lines
        address = lines[-1].split(" at ")[1].split(" ")[0]
        assert httpx.get(f"{address}/healthz").status_code == 200, "clients can connect as soon as it says where"
        yield process, address, lines
    finally:
        process.kill()
        process.communicate()


def test_sighup_follows_a_link_and_a_folder(reviews: Path, tmp_path: Path) -> None:
    first, second = train(reviews, tmp_path / "one"), train(reviews, tmp_path / "two", lowercase=False)
    link, new_link = tmp_path / "current", tmp_path / "new"
    link.symlink_to(first)
    with served(f"news={link}") as (process, address, lines):

        def after(word: str) -> str:
            """What is said once the server was told to reload, up to a line with a word."""
            process.send_signal(signal.SIGHUP)
            assert process.stderr
            while word not in lines[-1]:
                lines.append(process.stderr.readline())
                assert lines[-1], lines
            return lines[-1]

        def answering() -> str:
            answer = httpx.post(f"{address}/predict", json={"inputs": "the goal of the team"}).json()
            assert answer["predictions"][0]["label"] == "sport"
            return str(answer["version"])

        assert answering() == version(runs.find(first))
        new_link.symlink_to(second)
        new_link.rename(link)
        assert answering() == version(runs.find(first)), "nothing changes before the signal"
        assert version(runs.find(second)) in after("reloaded news")
        assert answering() == version(runs.find(second))
        broken_run = shutil.copytree(first, tmp_path / "broken")
        next((broken_run / "model").glob("*.safetensors")).write_bytes(b"no weights")
        new_link.symlink_to(broken_run)
        new_link.rename(link)
        assert "cannot reload news" in after("cannot reload")
        assert answering() == version(runs.find(second))
        link.unlink()
        first.rename(link)
        assert version(runs.find(link)) in after("reloaded news: version " + version(runs.find(link)))
        assert answering() == version(runs.find(link))
        process.terminate()
        assert process.wait(10) == 0


def test_json_logs(reviews: Path, tmp_path: Path) -> None:
    """From the first message to the last, and without texts: start-up, requests, refusals, reloads, shutdown."""
    one = train(reviews, tmp_path / "one")
    command = [sys.executable, "-m", "tunesmith", "serve", f"news={one}", "port=0", "--log-format", "json"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"TUNESMITH_KEYS": "hush"})
    try:
        assert process.stderr
        lines = [json.loads(process.stderr.readline()) for _ in range(2)]
        assert [line["message"].partition(" ")[0] for line in lines] == ["loading", "serving"]
        address = lines[1]["address"]
        with httpx.Client(base_url=address, headers={"authorization": "Bearer hush", "x-request-id": "mine"}) as http:
            http.post("/predict", json={"inputs": "private words"})
            http.post("/predict", json={"inputs": ""})
            with socket.create_connection((http.base_url.host, http.base_url.port)) as connection:
                connection.sendall(b"nonsense\r\n\r\n")
                connection.recv(100)
            shutil.rmtree(one)
            process.send_signal(signal.SIGHUP)
            lines += [json.loads(process.stderr.readline()) for _ in range(5)]
        process.terminate()
        assert process.wait(10) == 0
        rest = [json.loads(line) for line in process.stderr]
    finally:
        process.kill()
        process.communicate()
    answered, refused, *others = lines[2:]
    assert answered | {"time": 0, "latency_ms": 0} == {
        "time": 0,
        "level": "info",
        "module": "request_log",
        "message": "POST /predict 200",
        "request_id": "mine",
        "method": "POST",
        "path": "/predict",
        "status": 200,
        "latency_ms": 0,
        "model": "news",
        "version": lines[1]["models"]["news"],
        "inputs": 1,
    }
    assert (refused["status"], refused["level"]) == (400, "info")
    assert [line["message"].split(":")[0] for line in others if line["level"] == "warning"] == [
        "Invalid HTTP request received.",
        "cannot reload news",
    ]
    assert rest[-1]["message"].startswith("answered ")
    everything = json.dumps([*lines, *rest])
    assert "private" not in everything
    assert "hush" not in everything


def test_sighup_while_models_load_waits(reviews: Path, tmp_path: Path) -> None:
    """The models that are loaded may be old by then, so they are loaded again."""
    one = train(reviews, tmp_path / "one")
    command = [sys.executable, "-m", "tunesmith", "serve", str(one), "port=0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        lines = [process.stderr.readline()]
        process.send_signal(signal.SIGHUP)
        lines += [process.stderr.readline() for _ in range(3)]
        process.terminate()
        assert process.wait(10) == 0
    assert [line.partition(" ")[0] for line in lines] == ["loading", "serving", "loading", "reloaded"]


def test_many_signals_reload_twice() -> None:
    """Whatever comes during a reload is loaded by the one after it."""
    reloads: list[int] = []
    finish = asyncio.Event()

    async def reload() -> None:
        reloads.append(len(reloads))
        await finish.wait()

    async def main() -> None:
        process = server.server(application(classifier()), Serve(), reload)
        listening_at = server.listen(Serve(port=0))
        serving = asyncio.create_task(process.serve([listening_at]))
        while not process.started:
            await asyncio.sleep(0.01)
        for _ in range(10):
            signal.raise_signal(signal.SIGHUP)
            await asyncio.sleep(0.01)
        assert reloads == [0, 1], "here side by side; those of models wait for each other"
        finish.set()
        await asyncio.sleep(0.01)
        signal.raise_signal(signal.SIGHUP)
        await asyncio.sleep(0.01)
        assert reloads == [0, 1, 2]
        process.should_exit = True
        await serving

    run(main())


def test_a_terminal_that_is_closed_ends_the_server(reviews: Path, tmp_path: Path) -> None:
    """SIGHUP reloads in a terminal as well, but a closed one sends it too."""
    one = train(reviews, tmp_path / "one")
    master, slave = pty.openpty()
    with served(str(one), stdin=slave, start_new_session=True, preexec_fn=own_terminal) as (process, address, _):
        os.close(slave)
        process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        assert httpx.get(f"{address}/healthz").status_code == 200
        os.close(master)
        process.send_signal(signal.SIGHUP)
        assert process.wait(10) == 0


def own_terminal() -> None:
    """Make stdin the controlling terminal, so that closing it is a hang-up."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
